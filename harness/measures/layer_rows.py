"""Rows of layer distributions: the mean layer selector of every place, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from harness.brains import (
    Roi,
    group_areas,
)
from harness.measures.predicted import (
    MIN_VOXELS,
    counted_places,
)


def places_of_layers(
    rois: Sequence[Roi], predicted: Bool[np.ndarray, " n_voxels"]
) -> dict[str, Int[np.ndarray, " _"]]:
    """Predicted voxels of the whole brain, of every region, and of early, middle and high areas.

    Parameters
    ----------
    rois : sequence of Roi
    predicted : bool array [n_voxels]
        From `predicted_voxels`.

    Returns
    -------
    dict of place to int array
        At least `MIN_VOXELS` indices each; places with fewer are absent. A voxel in several regions of a
        group counts once.
    """
    places = dict(counted_places(rois, predicted))
    for name, members in group_areas(rois).items():
        voxels = np.unique(np.concatenate([roi.voxels for roi in members]))
        voxels = voxels[predicted[voxels]]
        if len(voxels) >= MIN_VOXELS:
            places[name] = voxels
    return places


def name_layers(
    layer: Float[np.ndarray, "n_voxels n_layers"],
    layers: Sequence[str],
    places: Mapping[str, Int[np.ndarray, " _"]],
) -> dict[str, float]:
    """Name the mean layer distribution of every place: ``selectors/<place>/layer/<layer>``.

    Parameters
    ----------
    layer : float array [n_voxels, n_layers]
        Layer distributions ω, each row at least 0 with sum 1.
    layers : sequence of str
        Names of the layers, input first.
    places : dict of place to int array
        Voxels to average, from `places_of_layers`.

    Returns
    -------
    dict of str to float
        Shares in [0, 1]; those of a place sum to 1.
    """
    return {
        f"selectors/{place}/layer/{name}": float(share)
        for place, voxels in places.items()
        for name, share in zip(layers, np.asarray(layer, np.float64)[voxels].mean(axis=0), strict=True)
    }
