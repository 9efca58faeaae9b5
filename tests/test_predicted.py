"""Voxels that count: predicted at either end, one mask per comparison."""

import numpy as np
import pytest

from harness.brains import Roi
from harness.measures.predicted import MIN_R2, MIN_VOXELS, counted_places, predicted_voxels
from harness.storage import InputError


def test_a_voxel_counts_if_it_is_predicted_at_either_end() -> None:
    before = np.array([0.5, 0.5, 0.0, MIN_R2, -1.0], dtype=np.float32)
    after = np.array([0.5, 0.0, 0.5, MIN_R2, 0.03], dtype=np.float32)
    np.testing.assert_array_equal(
        predicted_voxels(before.astype(np.float64), after), [True, True, True, False, True]
    )


def test_fits_of_step_0_are_averaged_first() -> None:
    fits = [np.array([0.03, 0.06]), np.array([-0.03, 0.06]), np.array([0.03, -0.03])]
    np.testing.assert_array_equal(predicted_voxels(fits, np.zeros(2)), [False, True])


def test_places_with_few_predicted_voxels_are_absent() -> None:
    predicted = np.array([False, *[True] * 9])
    rois = (
        Roi("V1", np.arange(MIN_VOXELS), 1.0),
        Roi("V2", np.array([9, 1, 3, 5, 7, 0]), None),
    )
    places = counted_places(rois, predicted)
    assert list(places) == ["all", "V2"]
    np.testing.assert_array_equal(places["all"], np.arange(1, 10))
    np.testing.assert_array_equal(places["V2"], [9, 1, 3, 5, 7])


def test_ends_must_share_voxels() -> None:
    with pytest.raises(InputError, match="must share voxels: found 3 and 2"):
        predicted_voxels(np.zeros(3), np.zeros(2))
