"""Compare two mappings of one brain, voxel by voxel and region by region."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.brains import Brain
from harness.mappings import Mapping
from harness.measures import (
    expected_depth,
    rewiring_measures,
)
from harness.storage import InputError


@dataclass(frozen=True)
class Comparison:
    """How far two mappings are apart.

    Attributes
    ----------
    voxels : DataFrame, a row per voxel
        ``depth_a`` and ``depth_b``, 0 (first layer) to 1 (last); ``r2_a`` and ``r2_b``; and the measures of
        `compare`.
    rois : DataFrame, a row per region, ``all`` first
        ``n_voxels``, and means of the columns of `voxels`. Without a brain, ``all`` only.
    """

    voxels: pd.DataFrame
    rois: pd.DataFrame


def compare(mapping_a: Mapping, mapping_b: Mapping, brain: Brain | None = None) -> Comparison:
    """Compare what the same voxels read in two mappings; signs are those of b − a.

    These are distances, not evidence. Two fits of one network are apart too, and a loss of signal moves what
    is read: look at ``r2_change`` and ``confidence_change`` beside them. A run's verdict says what is rewired
    (``docs/definitions.md``).

    Parameters
    ----------
    mapping_a, mapping_b : Mapping
        Of the same voxels and the same layers, such as before and after fine-tuning.
    brain : Brain, optional
        For the table of its regions.

    Returns
    -------
    Comparison
        With, per voxel: ``wasserstein`` (Wasserstein-1 distance of the layer distributions on depth, 0 to 1);
        ``depth_shift`` (−1 to 1, positive towards deeper layers); ``jensen_shannon`` (0 to 1);
        ``top_layer_changed`` (0 or 1); ``confidence_change`` (−1 to 1); ``space_displacement`` (half-widths
        of the image, 0 to 2√2); ``scale_change`` (−1 to 1, positive to more global); ``r2_change``.

    Raises
    ------
    InputError
        If layers or numbers of voxels differ.

    Examples
    --------
    >>> found = harness.compare(before, after, brain)
    >>> found.rois[["n_voxels", "wasserstein", "depth_shift"]]
    """
    measures = rewiring_measures(mapping_a, mapping_b)
    voxels = pd.DataFrame(
        {
            "depth_a": expected_depth(mapping_a.layer),
            "depth_b": expected_depth(mapping_b.layer),
            "r2_a": mapping_a.r2.astype(np.float64),
            "r2_b": mapping_b.r2.astype(np.float64),
            **measures,
        }
    )
    voxels.index.name = "voxel"
    if brain is not None and brain.n_voxels != len(voxels):
        raise InputError(f"brain {brain.name}: found {brain.n_voxels} voxels, expected {len(voxels)}")
    places = {"all": np.arange(len(voxels))}
    places |= {roi.name: roi.voxels for roi in (brain.rois if brain is not None else ())}
    rows = {
        place: {"n_voxels": len(chosen), **voxels.iloc[chosen].mean().to_dict()}
        for place, chosen in places.items()
    }
    rois = pd.DataFrame.from_dict(rows, orient="index").astype({"n_voxels": int})
    rois.index.name = "roi"
    return Comparison(voxels, rois)
