"""Usable voxels: those whose responses are finite and vary."""

from __future__ import annotations

import logging

import numpy as np
from jaxtyping import Bool, Float

from harness.brains.brain import Brain
from harness.storage import InputError

log = logging.getLogger(__name__)

AT_ONCE = 256  # rows; bounds memory


def keep_usable(brain: Brain, source: object) -> Brain:
    """Drop voxels whose responses are not finite or constant over stimuli, and log their number.

    Bounding box and order stay.

    Parameters
    ----------
    brain : Brain
    source : path
        Named in messages.

    Raises
    ------
    InputError
        If no voxel is left.
    """
    finite, varies = _judge(brain.responses)
    good = finite & varies
    if not good.any():
        empty = np.flatnonzero(~np.isfinite(brain.responses).any(axis=1))
        where = f"; row {empty[0]} (0-based) has no finite value" if len(empty) else ""
        raise InputError(
            f"{source}: found no voxel with finite responses that vary over stimuli{where}; "
            "expected one or more"
        )
    for bad, why in (
        (~finite, "non-finite values"),
        (finite & ~varies, "the same value for all stimuli"),
    ):
        if bad.any():
            log.warning(
                "warning: %s: %d of %d voxels have %s and are dropped", source, bad.sum(), len(bad), why
            )
    return brain.select_voxels(np.flatnonzero(good))


def _judge(
    responses: Float[np.ndarray, "n_images n_voxels"],
) -> tuple[Bool[np.ndarray, " n_voxels"], Bool[np.ndarray, " n_voxels"]]:
    """Masks of the voxels that are finite, and of those that vary."""
    finite, varies = np.ones(responses.shape[1], dtype=bool), np.zeros(responses.shape[1], dtype=bool)
    for start in range(0, len(responses), AT_ONCE):
        rows = responses[start : start + AT_ONCE]
        finite &= np.isfinite(rows).all(axis=0)
        varies |= (rows != responses[0]).any(axis=0)
    return finite, varies


def check_ceiling(ceiling: Float[np.ndarray, " n_voxels"], source: object) -> Float[np.ndarray, " n_voxels"]:
    """Check noise ceilings and return them as shares of the variance, 0 to 1, float32.

    If some are above 1 and none above 100, they count as per cent and are divided by 100. NaN becomes 0: no
    explainable variance is known. Both are logged.

    Raises
    ------
    InputError
        If a ceiling is negative or above 100.
    """
    low, high = np.nanmin(ceiling, initial=0), np.nanmax(ceiling, initial=0)
    if low < 0 or high > 100:
        raise InputError(f"{source}: found noise ceilings from {low:g} to {high:g}, expected 0 to 1")
    if high > 1:
        log.warning("warning: %s: noise ceilings up to %g; they count as per cent", source, high)
        ceiling = ceiling / 100
    if np.isnan(ceiling).any():
        log.warning(
            "warning: %s: %d noise ceilings are NaN and are set to 0", source, np.isnan(ceiling).sum()
        )
    return np.nan_to_num(ceiling, nan=0.0).astype(np.float32)
