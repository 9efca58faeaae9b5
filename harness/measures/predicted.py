"""Voxels that count: where a mapping predicts nothing, its selectors say nothing.

A comparison of two snapshots counts the voxels that are predicted at either end: one that stops being
predicted is a result, one that never was is noise. Every comparison has one mask, so a raw distance and its
floor are means over the same voxels. Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from harness.brains import Roi
from harness.mappings import MIN_R2
from harness.storage import InputError

MIN_VOXELS = 5
"""A place with fewer predicted voxels has no mean."""


def predicted_voxels(
    before: Float[np.ndarray, " n_voxels"] | Sequence[Float[np.ndarray, " n_voxels"]],
    after: Float[np.ndarray, " n_voxels_after"],
) -> Bool[np.ndarray, " n_voxels"]:
    """Mark the voxels whose held-out R² is above `MIN_R2` at either end of a comparison.

    Parameters
    ----------
    before : float array [n_voxels], or one per fit of step 0
        Fits are averaged first: the best of several would be lucky somewhere.
    after : float array [n_voxels]
        R² of the later snapshot's own mapping.

    Returns
    -------
    bool array [n_voxels]

    Raises
    ------
    InputError
        If the two ends differ in their number of voxels.
    """
    start = np.asarray(before, dtype=np.float64)
    start = start.mean(axis=0) if start.ndim == 2 else start
    if start.shape != after.shape:
        raise InputError(
            f"mappings to compare must share voxels: found {start.shape[-1]} and {after.shape[-1]}"
        )
    return (start > MIN_R2) | (np.asarray(after, dtype=np.float64) > MIN_R2)


def counted_places(
    rois: Sequence[Roi], predicted: Bool[np.ndarray, " n_voxels"]
) -> dict[str, Int[np.ndarray, " _"]]:
    """Indices of the predicted voxels of ``"all"`` and of every ROI; places with too few are absent.

    Parameters
    ----------
    rois : sequence of Roi
    predicted : bool array [n_voxels]
        From `predicted_voxels`.

    Returns
    -------
    dict of place to int array
        At least `MIN_VOXELS` indices each, in the order of the ROI's voxels.
    """
    places = {"all": np.arange(len(predicted))} | {roi.name: roi.voxels for roi in rois}
    counted = {place: voxels[predicted[voxels]] for place, voxels in places.items()}
    return {place: voxels for place, voxels in counted.items() if len(voxels) >= MIN_VOXELS}
