"""Tests of hierarchy alignment: exact permutations by hand, and levels on smooth maps of a small cortex."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr

from harness.brains.brain import Roi
from harness.measures.alignment_tests import AlignmentTest, permute_ranks, whole_areas

N_ROIS, PER_ROI = 8, 12
HEMISPHERE = np.tile(np.repeat(["L", "R"], PER_ROI // 2), N_ROIS)
ROIS = tuple(
    Roi(f"V{rank}", np.arange(PER_ROI) + PER_ROI * (rank - 1), float(rank)) for rank in range(1, N_ROIS + 1)
)
# regions in a row, 20 mm each; the hemispheres lie apart
COORDS = np.random.default_rng(5).uniform(0, 20, (N_ROIS * PER_ROI, 3))
COORDS[:, 0] += 20 * np.repeat(np.arange(N_ROIS), PER_ROI)
COORDS[HEMISPHERE == "R", 1] += 500
EVERY = np.full(len(COORDS), True)


def test_permutations_by_enumeration() -> None:
    ranks, means = np.array([1.0, 2, 3, 3, 4]), np.array([0.1, 0.3, 0.2, 0.5, 0.6])
    found = abs(spearmanr(ranks, means).statistic)
    # all 120 orders count; each of the 60 distinct ones twice
    orders = [abs(spearmanr(order, means).statistic) for order in permutations(ranks)]
    assert permute_ranks(means, ranks, 0) == pytest.approx(np.mean(np.array(orders) >= found - 1e-12))


def test_the_smallest_exact_p_is_of_two_orders() -> None:
    assert permute_ranks(np.arange(6.0), np.arange(6.0), 0) == pytest.approx(2 / 720)
    assert permute_ranks(-np.arange(6.0), np.arange(6.0), 0) == pytest.approx(2 / 720)


def test_many_regions_are_permuted_at_random_with_the_observed_order() -> None:
    ranks = np.array([1.0, 2, 3, 4, 5, 5, 5, 6, 6, 6, 6])
    assert permute_ranks(ranks, ranks, 0) <= 10 / 10_000
    means = np.random.default_rng(1).random(11)
    assert permute_ranks(means, ranks, 3) == permute_ranks(means, ranks, 3)
    exact = spearmanr(ranks, means).pvalue  # by the t distribution: close
    assert permute_ranks(means, ranks, 3) == pytest.approx(exact, abs=0.03)


def test_parts_of_areas_are_left_out() -> None:
    rois = (
        Roi("V1", np.arange(6), 1.0),
        Roi("V1d", np.arange(3), 1.0),
        Roi("V2", np.arange(2, 9), 2.0),
        Roi("faces", np.arange(3), None),
    )
    assert [roi.name for roi in whole_areas(rois)] == ["V1", "V2"]


def test_rho_over_regions_is_that_of_means() -> None:
    depth = np.random.default_rng(2).random(len(COORDS))
    found = AlignmentTest(ROIS, COORDS, HEMISPHERE, EVERY).test(depth, 0)
    means = [depth[roi.voxels].mean() for roi in ROIS]
    assert found is not None
    assert found.hierarchy == pytest.approx(spearmanr(range(N_ROIS), means).statistic)
    assert found.n_rois == N_ROIS
    assert found.p == max(found.p_moran, found.p_smooth)
    assert min(found.p, found.p_moran, found.p_permutation) > 0


def test_only_the_mask_counts() -> None:
    depth = np.random.default_rng(2).random(len(COORDS))
    mask = EVERY.copy()
    mask[ROIS[0].voxels[:8]] = False  # four left: too few
    mask[ROIS[1].voxels[:4]] = False
    one = AlignmentTest(ROIS, COORDS, HEMISPHERE, mask).test(depth, 0)
    depth[~mask] = 1000
    other = AlignmentTest(ROIS, COORDS, HEMISPHERE, mask).test(depth, 0)
    assert one is not None and one == other and one.n_rois == N_ROIS - 1


def test_too_few_regions_or_equal_depths_have_no_test() -> None:
    depth = np.random.default_rng(2).random(len(COORDS))
    assert AlignmentTest(ROIS[:3], COORDS, HEMISPHERE, EVERY).test(depth, 0) is None
    same = [Roi(roi.name, roi.voxels, 1.0) for roi in ROIS]
    assert AlignmentTest(same, COORDS, HEMISPHERE, EVERY).test(depth, 0) is None
    assert AlignmentTest(ROIS, COORDS, HEMISPHERE, EVERY).test(np.full(len(COORDS), 0.3), 0) is None


def test_a_smooth_map_is_no_hierarchy_but_one_of_ranks_is() -> None:
    """At 5 %, the permutation rejects far more smooth maps than the reported p does."""
    rng = np.random.default_rng(8)
    grid = rng.uniform(-60, 240, (2000, 3)) * [1, 0.2, 0.2]
    kernel = np.zeros((len(COORDS), 2 * len(grid)))
    for number, side in enumerate(("L", "R")):
        own = side == HEMISPHERE
        places = COORDS[own] - [0, 500 * number, 0]
        square = np.square(places[:, None] - grid[None]).sum(axis=2)
        kernel[own, number * len(grid) : (number + 1) * len(grid)] = np.exp(-square / (2 * 20**2))
    kernel /= np.linalg.norm(kernel, axis=1, keepdims=True)
    maps = (kernel @ rng.standard_normal((kernel.shape[1], 120))).T
    test = AlignmentTest(ROIS, COORDS, HEMISPHERE, EVERY)
    found = [test.test(one, 0, 199, 199) for one in maps]
    p = np.array([(one.p, one.slope_p, one.p_permutation) for one in found if one is not None])
    called = (p <= 0.05).mean(axis=0)
    assert max(called[:2]) < 0.12 and called[2] > 0.15
    ranks = np.repeat(np.arange(N_ROIS), PER_ROI)
    planted = ranks / ranks.std() + 0.3 * rng.standard_normal(len(COORDS))
    clear = test.test(planted, 0)
    assert clear is not None and clear.hierarchy > 0.9 and clear.p_permutation < 0.001
