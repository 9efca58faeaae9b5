"""ROI names that are valid inside metric names."""

from __future__ import annotations

import pytest

from harness.brains.roi_names import check_roi_names
from harness.storage.errors import InputError


def test_names_of_areas_are_accepted() -> None:
    check_roi_names(["V1", "FFA-1", "mTL-bodies", "3a", "area_47.12", "x" * 60], "here")


@pytest.mark.parametrize("name", ["", "all", "a/b", "V1 v", "-V1", "V1\n", "x" * 61, "V１"])
def test_names_that_results_cannot_have_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="here: found a region named") as raised:
        check_roi_names(["V1", name], "here")
    assert "\n" not in str(raised.value)


def test_names_are_given_once() -> None:
    with pytest.raises(InputError, match="here: found two regions named 'V1'"):
        check_roi_names(["V1", "V2", "V1"], "here")
