"""Rows of hierarchy alignment: over voxels, over regions, and their tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from harness.brains import Brain
from harness.mappings import Mapping
from harness.measures.alignment import (
    hierarchy_alignment,
    voxel_ranks,
)
from harness.measures.alignment_tests import AlignmentTest
from harness.measures.predicted import MIN_VOXELS
from harness.measures.rewiring import expected_depth


class AlignmentRows:
    """Name the alignment of the fits of one brain; whatever depends on the predicted voxels is kept.

    Parameters
    ----------
    brain : Brain
    seed : int
        Seed of the surrogates.
    """

    def __init__(self, brain: Brain, seed: int) -> None:
        self._brain, self._seed = brain, seed
        self._ranks = voxel_ranks(brain.rois, brain.n_voxels)
        self._test: tuple[bytes, AlignmentTest] | None = None

    def name(self, mapping: Mapping, predicted: Bool[np.ndarray, " n_voxels"]) -> dict[str, float]:
        """Name ρ, slope, p values and counts of a mapping, over its predicted voxels.

        Empty with fewer than `MIN_VOXELS` predicted voxels of known rank, or only one rank among them. ρ over
        regions and all p are absent with fewer than `alignment_tests.MIN_ROIS` regions.
        """
        counted = predicted & np.isfinite(self._ranks)
        if counted.sum() < MIN_VOXELS or np.ptp(self._ranks[counted]) == 0:
            return {}
        depth = expected_depth(mapping.layer)
        values = vars(hierarchy_alignment(depth, self._ranks, counted)) | {"n_predicted": counted.sum()}
        tested = self._open(predicted).test(depth, self._seed)
        if tested is not None:
            values |= {
                "hierarchy_rois": tested.hierarchy,
                "hierarchy_rois_p": tested.p,
                "hierarchy_rois_p_permutation": tested.p_permutation,
                "hierarchy_rois_p_moran": tested.p_moran,
                "hierarchy_rois_p_smooth": tested.p_smooth,
                "slope_p": tested.slope_p,
                "n_rois": tested.n_rois,
            }
        return {f"alignment/all/{name}": float(value) for name, value in values.items()}

    def name_floor(
        self, fits: Sequence[Mapping], predicted: Bool[np.ndarray, " n_voxels"]
    ) -> dict[str, float]:
        """Name mean and standard deviation of ρ and slope over the fits of step 0."""
        depths = [expected_depth(fit.layer) for fit in fits]
        found = [hierarchy_alignment(depth, self._ranks, predicted) for depth in depths]
        spread: dict[str, list[float]] = {
            "hierarchy": [one.hierarchy for one in found],
            "slope": [one.slope for one in found],
        }
        over_rois = [self._open(predicted).correlate(depth) for depth in depths]
        known = [value for value in over_rois if value is not None]
        if len(known) == len(fits):
            spread["hierarchy_rois"] = known
        return {
            f"alignment/all/{name}_null_{what}": float(value)
            for name, values in spread.items()
            for what, value in (("mean", np.mean(values)), ("sd", np.std(values, ddof=1)))
        }

    def _open(self, predicted: Bool[np.ndarray, " n_voxels"]) -> AlignmentTest:
        key = predicted.tobytes()
        if self._test is None or self._test[0] != key:
            brain = self._brain
            self._test = key, AlignmentTest(brain.rois, brain.coords, brain.hemisphere, predicted)
        return self._test[1]
