"""Rows of layer distributions: means over predicted voxels, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from harness.brains.brain import Roi
from harness.measures.catalogue import describe, is_headline, split_name
from harness.measures.layer_rows import name_layers, places_of_layers
from harness.runs.subjects import name_of_subject
from harness.tracking.across_subjects import combine_subjects

ROIS = (
    Roi("V1", np.arange(6), 1.0),
    Roi("V2", np.arange(6, 12), 2.0),
    Roi("V3", np.arange(12, 18), 3.0),
)


def test_shares_are_means_over_predicted_voxels() -> None:
    predicted = np.full(18, True)
    predicted[0] = False
    layer = np.zeros((18, 2))
    layer[:, 0] = np.linspace(0, 1, 18)
    layer[:, 1] = 1 - layer[:, 0]
    layer[0] = [1, 0]  # not predicted: does not count
    found = name_layers(layer, ("a.0", "b"), places_of_layers(ROIS, predicted))
    assert found["selectors/V1/layer/a.0"] == pytest.approx(np.mean([1, 2, 3, 4, 5]) / 17)
    assert found["selectors/all/layer/b"] == pytest.approx(1 - np.arange(1, 18).mean() / 17)
    for place in ("all", "V1", "V2", "V3", "early_areas", "middle_areas", "high_areas"):
        assert found[f"selectors/{place}/layer/a.0"] + found[f"selectors/{place}/layer/b"] == pytest.approx(1)
    assert found["selectors/early_areas/layer/b"] == found["selectors/V1/layer/b"]


def test_places_with_few_predicted_voxels_are_absent() -> None:
    predicted = np.full(18, True)
    predicted[:2] = False
    places = places_of_layers(ROIS, predicted)
    assert set(places) == {"all", "V2", "V3", "middle_areas", "high_areas"}
    assert places_of_layers(ROIS, np.full(18, False)) == {}


def test_a_voxel_in_two_regions_of_a_group_counts_once() -> None:
    rois = (*ROIS, Roi("V1d", np.arange(3, 6), 1.0))
    assert places_of_layers(rois, np.full(18, True))["early_areas"].tolist() == list(range(6))


def test_names_with_a_layer() -> None:
    name = "selectors/V1/layer/block-1"
    assert split_name(name) == ("selectors", "V1", "layer/block-1", None, False, None)
    own = name_of_subject(name, "subj01")
    assert own == "selectors/V1/subj01/layer/block-1"
    assert split_name(f"wise_ft.{own}") == ("selectors", "V1", "layer/block-1", "subj01", True, None)
    assert describe(name) is describe(own) is describe("wise_ft.selectors/all/layer/stages.0.blocks_1")
    assert describe(name).pattern == "selectors/<place>/layer/<layer>"
    assert describe(f"{name}_subjects_low").ending == "_subjects_low"


def test_headlines_are_the_whole_brain() -> None:
    assert is_headline("selectors/all/layer/block-1")
    assert not is_headline("selectors/high_areas/layer/block-1")
    assert not is_headline("selectors/V1/layer/block-1")
    assert not is_headline("selectors/all/subj01/layer/block-1")
    assert not is_headline("wise_ft.selectors/high_areas/layer/block-1")


def test_subjects_combine_like_other_rows() -> None:
    rows = {"a": {"selectors/V1/layer/b 1": 0.2}, "b": {"selectors/V1/layer/b 1": 0.4}}
    found = combine_subjects(rows)
    assert found["selectors/V1/layer/b 1"] == pytest.approx(0.3)
    assert found["selectors/V1/layer/b 1_subjects"] == 2
    assert found["selectors/V1/a/layer/b 1"] == 0.2
    assert found["selectors/V1/layer/b 1_subjects_low"] < 0.2
    for name in found:
        assert describe(name)
