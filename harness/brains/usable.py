"""Which measured voxels can be used: those whose responses are all numbers, and not all the same."""

from __future__ import annotations

import logging

import numpy as np
from jaxtyping import Bool, Float

from harness.brains.brain import Brain
from harness.storage import InputError

log = logging.getLogger(__name__)

AT_ONCE = 256  # rows: bounds memory


def keep_usable(brain: Brain, source: object) -> Brain:
    """The brain without voxels that hold a number that is not finite, or the same one for all stimuli.

    How many are left out is logged. Bounding box and order stay.

    Parameters
    ----------
    brain : Brain
    source : path
        Named where something is wrong.

    Raises
    ------
    InputError
        If no voxel would be left.
    """
    finite, varies = _judge(brain.responses)
    good = finite & varies
    if not good.any():
        empty = np.flatnonzero(~np.isfinite(brain.responses).any(axis=1))
        where = f"; row {empty[0]} (counted from 0) holds none at all" if len(empty) else ""
        raise InputError(
            f"{source}: found no voxel with finite responses that differ between stimuli{where}; "
            "accepted: responses of which at least some voxels' are"
        )
    for bad, why in (
        (~finite, "values that are not finite"),
        (finite & ~varies, "one value for all stimuli"),
    ):
        if bad.any():
            log.warning(
                "warning: %s: %d of %d voxels have %s, and are left out", source, bad.sum(), len(bad), why
            )
    return brain.select_voxels(np.flatnonzero(good))


def _judge(
    responses: Float[np.ndarray, "n_images n_voxels"],
) -> tuple[Bool[np.ndarray, " n_voxels"], Bool[np.ndarray, " n_voxels"]]:
    """Which voxels are finite, and which differ from their first response."""
    finite, varies = np.ones(responses.shape[1], dtype=bool), np.zeros(responses.shape[1], dtype=bool)
    for start in range(0, len(responses), AT_ONCE):
        rows = responses[start : start + AT_ONCE]
        finite &= np.isfinite(rows).all(axis=0)
        varies |= (rows != responses[0]).any(axis=0)
    return finite, varies


def check_ceiling(ceiling: Float[np.ndarray, " n_voxels"], source: object) -> Float[np.ndarray, " n_voxels"]:
    """Noise ceilings as shares of the variance, 0 to 1, float32.

    Values in per cent, some above 1 and none above 100, are divided by 100; those that are not numbers
    become 0, as nothing is known to be explainable there. Both are logged.

    Raises
    ------
    InputError
        If a ceiling is negative or above 100.
    """
    low, high = np.nanmin(ceiling, initial=0), np.nanmax(ceiling, initial=0)
    if low < 0 or high > 100:
        raise InputError(f"{source}: found noise ceilings from {low:g} to {high:g}, accepted: 0 to 1")
    if high > 1:
        log.warning("warning: %s: noise ceilings up to %g: they are taken for per cent", source, high)
        ceiling = ceiling / 100
    if np.isnan(ceiling).any():
        log.warning(
            "warning: %s: %d noise ceilings are not numbers, and count as 0", source, np.isnan(ceiling).sum()
        )
    return np.nan_to_num(ceiling, nan=0.0).astype(np.float32)
