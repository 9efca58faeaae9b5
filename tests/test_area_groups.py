"""Early, middle and high areas are thirds of the ranks."""

from __future__ import annotations

import numpy as np
import pytest

from harness.brains.area_groups import AREA_GROUPS, group_areas
from harness.brains.brain import Roi
from harness.brains.cortex import REGIONS


def names(ranks: list[float | None]) -> list[list[float | None]]:
    known = [None if rank is None else float(rank) for rank in ranks]
    rois = [Roi(f"R{index}", np.array([index]), rank) for index, rank in enumerate(known)]
    return [[roi.rank for roi in group] for group in group_areas(rois).values()]


def test_areas_of_the_simulated_subject() -> None:
    groups = group_areas([Roi(region.name, np.arange(5), region.rank) for region in REGIONS])
    assert {name: [roi.name for roi in rois] for name, rois in groups.items()} == {
        "early_areas": ["V1", "V2"],
        "middle_areas": ["V3", "V4"],
        "high_areas": ["V8", "LO", "PIT", "FFC", "VVC", "VMV", "PHA"],
    }
    assert tuple(groups) == AREA_GROUPS


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([1, 2, 3], [[1], [2], [3]]),
        ([3, 1, 2, None], [[1], [2], [3]]),
        # many regions of one rank empty no group
        ([1, 2, 3, 5, 5, 5, 5, 5], [[1], [2, 3], [5, 5, 5, 5, 5]]),
        ([1, 2, 3, 4, 5], [[1, 2], [3], [4, 5]]),
        ([1, 1, 2, 2], []),
        ([None, None], []),
    ],
)
def test_thirds_of_distinct_ranks(ranks: list[float | None], expected: list[list[float | None]]) -> None:
    assert names(ranks) == expected
