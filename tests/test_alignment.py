import numpy as np
import pytest

from harness.brains.brain import Roi
from harness.measures.alignment import (
    Hierarchy,
    hierarchy_alignment,
    voxel_ranks,
)

ROIS = (
    Roi("V1", np.array([0, 1]), 1.0),
    Roi("V2", np.array([2]), 2.0),
    Roi("V2v", np.array([2, 3]), 3.0),
    Roi("floc", np.array([0, 5]), None),
)


def test_voxel_ranks():
    np.testing.assert_array_equal(voxel_ranks(ROIS, 6), [1, 1, 2.5, 3, np.nan, np.nan])


def test_by_hand():
    ranks = np.array([1.0, 2, 3, np.nan])
    found = hierarchy_alignment(np.array([0.2, 0.8, 0.6, 0.0]), ranks)
    # order of depth 1 3 2 against 1 2 3: 1 - 6·2/(3·8) = .5; x = 0 .5 1, slope = .2/.5, mean .5333
    assert found.hierarchy == pytest.approx(0.5)
    assert found.slope == pytest.approx(0.4)
    assert found.intercept_low == pytest.approx(1.6 / 3 - 0.2)
    assert found.intercept_high == pytest.approx(1.6 / 3 + 0.2)


def test_monotone_is_one_and_reversed_is_minus_one():
    ranks = np.array([1.0, 2, 4, 9])
    depth = np.array([0, 0.1, 0.11, 0.9], np.float32)
    assert hierarchy_alignment(depth, ranks).hierarchy == pytest.approx(1)
    assert hierarchy_alignment(1 - depth, ranks).hierarchy == pytest.approx(-1)


def test_a_perfect_line_is_recovered():
    ranks = np.array([2.0, 2, 4, 6])
    found = hierarchy_alignment(0.1 + 0.6 * (ranks - 2) / 4, ranks)
    assert (found.slope, found.intercept_low, found.intercept_high) == pytest.approx((0.6, 0.1, 0.7))


def test_mask_takes_voxels_but_leaves_the_ends():
    ranks = np.array([1.0, 2, 3])
    depth = np.array([0.0, 0.25, 1.0])
    found = hierarchy_alignment(depth, ranks, np.array([True, True, False]))
    # the line through (0, 0) and (.5, .25): b1 still stands for rank 3
    assert (found.slope, found.intercept_low, found.intercept_high) == pytest.approx((0.5, 0, 0.5))


def test_constant_depth_is_undefined_and_given_as_zero():
    # equal up to float32 rounding, like the depths of an unfitted mapping
    depth = np.float32(0.5) + np.array([0, 6e-8, 0, 6e-8], np.float32)
    found = hierarchy_alignment(depth, np.array([1.0, 2, 3, 4]))
    assert found.hierarchy == 0
    assert found.slope == pytest.approx(0, abs=1e-6)
    assert found.intercept_high == pytest.approx(0.5)


def test_fewer_than_two_ranks():
    depth = np.array([0.2, 0.4, 0.9])
    one = hierarchy_alignment(depth, np.array([3.0, 3, np.nan]))
    assert (one.hierarchy, one.slope) == (0, 0)
    assert one.intercept_low == one.intercept_high == pytest.approx(0.3)
    nothing = Hierarchy(0.0, 0.0, 0.0, 0.0)
    assert hierarchy_alignment(depth, np.full(3, np.nan)) == nothing
    assert hierarchy_alignment(depth, np.arange(3.0), np.zeros(3, bool)) == nothing


def test_a_rank_of_0_is_a_rank():
    rois = (Roi("retina", np.array([0]), 0.0), Roi("V1", np.array([1, 2]), 1.0))
    np.testing.assert_array_equal(voxel_ranks(rois, 4), [0, 1, 1, np.nan])


def test_small_differences_of_depth_are_ordered():
    # 1e-5 of the depth is far above float32 rounding
    depth = 0.5 + np.array([0, 1e-5, 2e-5])
    assert hierarchy_alignment(depth, np.array([1.0, 2, 3])).hierarchy == pytest.approx(1)


def test_a_mask_takes_no_voxels_without_a_rank():
    depth, ranks = np.array([0.2, 0.8, 0.6, 0.0]), np.array([1.0, 2, 3, np.nan])
    assert hierarchy_alignment(depth, ranks, np.ones(4, bool)) == hierarchy_alignment(depth, ranks)


def test_a_mask_that_leaves_one_rank_leaves_no_line():
    depth = np.array([0.1, 0.2, 0.9, 0.5])
    found = hierarchy_alignment(depth, np.array([1.0, 1, 1, 2]), np.array([True, True, True, False]))
    assert (found.hierarchy, found.slope) == (0, 0)
    # the mean of the three depths, not their median
    assert found.intercept_low == found.intercept_high == pytest.approx(0.4)


def test_a_mask_without_the_lowest_area_leaves_the_ends():
    found = hierarchy_alignment(
        np.array([0.9, 0.25, 1.0]), np.array([1.0, 2, 3]), np.array([False, True, True])
    )
    # the line through (.5, .25) and (1, 1): b0 still stands for rank 1
    assert (found.slope, found.intercept_low, found.intercept_high) == pytest.approx((1.5, -0.5, 1.0))


def test_depth_that_is_constant_within_the_mask_is_undefined():
    found = hierarchy_alignment(
        np.array([0.5, 0.5, 0.5, 0.9]), np.array([1.0, 2, 3, 4]), np.array([True, True, True, False])
    )
    assert (found.hierarchy, found.slope) == (0, 0)
    assert found.intercept_low == found.intercept_high == pytest.approx(0.5)


def test_precision_of_the_depths_does_not_matter():
    rng = np.random.default_rng(0)
    depth = rng.random(1000).astype(np.float32)
    for ranks in (np.repeat(np.arange(4.0), 250), np.ones(1000)):
        assert hierarchy_alignment(depth, ranks) == hierarchy_alignment(depth.astype(np.float64), ranks)
