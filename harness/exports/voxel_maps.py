"""Every voxelwise map of a snapshot: one number per voxel, with its unit and meaning.

Pure functions. Maps against step 0 are means over all fits of step 0, like the rows of results, so a row of
``rewiring/V1/…`` is the mean of its map over the counted voxels of V1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from harness.brains import (
    Brain,
    Roi,
)
from harness.mappings import (
    MIN_R2,
    Mapping,
)
from harness.measures import (
    MIN_CEILING,
    VERDICTS,
    Verdict,
    confidence,
    describe,
    expected_depth,
    normalise_r2,
    predicted_voxels,
    rewiring_measures,
)

SHIFTS = {
    "wasserstein": "Wasserstein-1 distance of the layer distribution from step 0",
    "depth_shift": "expected depth minus that of step 0; positive: deeper",
    "r2_change": "R² minus that of step 0",
}
"""Maps against step 0, by name in `rewiring_measures`: their meaning."""


@dataclass(frozen=True)
class VoxelMap:
    """One number per voxel.

    Attributes
    ----------
    name : str
        As in file names and tables.
    values : float32 array [n_voxels]
        NaN where there is none.
    unit : str
        That of the metric of this name in the catalogue, if there is one; "" without one.
    meaning : str
        In one line.
    """

    name: str
    values: Float32[np.ndarray, " n_voxels"]
    unit: str
    meaning: str


def list_maps(
    mapping: Mapping, step_0: Sequence[Mapping], brain: Brain, verdict: Verdict | None = None
) -> tuple[VoxelMap, ...]:
    """List the maps of a snapshot; those that the mapping, the brain or the results lack are absent.

    Parameters
    ----------
    mapping : Mapping
        Of the snapshot.
    step_0 : sequence of Mapping
        All fits of step 0, to compare with; empty if the snapshot is step 0 itself.
    brain : Brain
        With the noise ceiling of the held-out rows (`Brain.score_on`).
    verdict : Verdict, optional
        Of the snapshot.
    """
    maps: list[VoxelMap] = []

    def add(name: str, values: Float[np.ndarray, " n_voxels"], unit: str, meaning: str) -> None:
        maps.append(VoxelMap(name, np.asarray(values, dtype=np.float32), unit, meaning))

    n_layers = len(mapping.layers)
    add("layer", mapping.layer.argmax(axis=1) + 1.0, "", f"most selected layer, 1 (first) to {n_layers}")
    depth, sure = describe("selectors/all/expected_depth"), describe("selectors/all/confidence")
    add("depth", expected_depth(mapping.layer), depth.unit, "expected depth: 0 first layer, 1 last")
    add(
        "confidence",
        confidence(mapping.layer),
        sure.unit,
        "of the layer: 0 uniform over layers, 1 a single one",
    )
    meaning = "share of the variance on held-out stimuli, 1 − SSE/SST"
    add("r2", mapping.r2, describe("brain/all/r2").unit, meaning)
    if brain.noise_ceiling is not None:
        share = normalise_r2(mapping.r2, brain.noise_ceiling)
        meaning = f"R² divided by the noise ceiling, where that is {MIN_CEILING:g} or more"
        add("r2_normalised", share, describe("brain/all/r2_normalised").unit, meaning)
    add("correlation", mapping.correlation, "", "Pearson correlation on held-out stimuli")
    if mapping.scale is not None:
        add(
            "scale",
            mapping.scale,
            describe("selectors/all/scale").unit,
            "0 reads local tokens only, 1 the global token only",
        )
    if mapping.space is not None:
        where = "half-widths of the image", "half-heights of the image"
        add("place_x", mapping.space[:, 0], where[0], "place read, −1 left edge to 1 right edge")
        add("place_y", mapping.space[:, 1], where[1], "place read, −1 top edge to 1 bottom edge")
    if step_0:
        _add_changes(maps, mapping, step_0)
    if verdict is not None and verdict.kinds:
        _add_verdict(maps, brain, verdict)
    return tuple(maps)


def _add_changes(maps: list[VoxelMap], mapping: Mapping, step_0: Sequence[Mapping]) -> None:
    """Add the maps against step 0, and which voxels count in them."""
    found = [rewiring_measures(fit, mapping) for fit in step_0]
    for name, meaning in SHIFTS.items():
        mean = np.mean([each[name] for each in found], axis=0)
        unit = describe(f"rewiring/all/{name}").unit
        maps.append(VoxelMap(name, mean.astype(np.float32), unit, meaning))
    if len(step_0) > 1:
        pairs = [
            rewiring_measures(first, second)["wasserstein"]
            for place, first in enumerate(step_0)
            for second in step_0[:place]
        ]
        unit, meaning = describe("rewiring/all/wasserstein_null").unit, "the same between refits of step 0"
        maps.append(VoxelMap("wasserstein_null", np.mean(pairs, axis=0).astype(np.float32), unit, meaning))
    counted = predicted_voxels([fit.r2 for fit in step_0], mapping.r2)
    meaning = f"1 where R² is above {MIN_R2:g} here or at step 0: only these voxels count"
    maps.append(VoxelMap("counted", counted.astype(np.float32), "", meaning))


def _add_verdict(maps: list[VoxelMap], brain: Brain, verdict: Verdict) -> None:
    """Add the verdict on each voxel's region and its p; of several regions, the smallest."""
    codes = {place: float(VERDICTS.index(kind)) for place, kind in verdict.kinds.items()}
    words = ", ".join(f"{code} {kind}" for code, kind in enumerate(VERDICTS))
    for name, values, meaning in (
        ("region_verdict", codes, f"verdict on the voxel's region, not on the voxel: {words}"),
        ("region_p", verdict.p, "p of that verdict, corrected for regions and layers"),
    ):
        maps.append(VoxelMap(name, spread(values, brain), "", meaning))


def spread(values: dict[str, float], brain: Brain) -> Float32[np.ndarray, " n_voxels"]:
    """Give every voxel the value of its region: of several, the smallest; NaN outside all.

    Parameters
    ----------
    values : dict of place to float
        ``all`` counts only where there are no regions.
    brain : Brain
    """
    found = np.full(brain.n_voxels, np.nan, dtype=np.float32)
    regions: list[Roi] = [roi for roi in brain.rois if roi.name in values]
    if not regions and "all" in values:
        found[:] = values["all"]
    for roi in sorted(regions, key=lambda each: len(each.voxels), reverse=True):
        found[roi.voxels] = values[roi.name]
    return found
