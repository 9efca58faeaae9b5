"""Every method, family and source of brains has one record, whose functions can be imported."""

from __future__ import annotations

import pytest

from harness.brains.sources import SOURCES, BrainSource
from harness.config.compose import group_options
from harness.finetuning.methods.records import METHODS
from harness.mappings.families import ARRAYS, FAMILIES
from harness.studies.costs import mapping_bytes, numbers_kept


def test_every_option_has_a_record() -> None:
    assert set(METHODS) == set(group_options("method"))
    assert set(FAMILIES) == set(group_options("mapping"))
    assert {source.name for source in SOURCES.values()} == set(group_options("brain"))


@pytest.mark.parametrize("source", SOURCES.values(), ids=lambda source: source.name)
def test_a_sources_loader_can_be_imported(source: BrainSource) -> None:
    assert callable(source.load_loader())


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_functions_can_be_imported(name: str) -> None:
    method = METHODS[name]
    for what in ("opens", "objective", "stages"):
        assert callable(method.load(what))
    assert method.fingerprints is None or callable(method.load("fingerprints"))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_fit_can_be_imported(name: str) -> None:
    assert callable(FAMILIES[name].load_fit())
    assert {"layer", "r2", "correlation"} <= set(FAMILIES[name].arrays) <= set(ARRAYS)


def test_what_the_records_say_of_methods() -> None:
    assert {name for name, method in METHODS.items() if method.teacher} == {"ldifs", "lwf"}
    assert {name for name, method in METHODS.items() if method.needs_texts} == {"flyp"}
    assert {name for name, method in METHODS.items() if not method.accumulates} == {"flyp"}
    kept = {name: numbers_kept(name, 9, 5) for name in METHODS}
    penalties = {"l2_sp": 5, "l2_sp_ldifs": 5, "ldifs": 9, "lwf": 9, "ewc": 10}
    assert kept == dict.fromkeys(METHODS, 0) | penalties


def test_what_the_records_say_of_families() -> None:
    assert {name for name, family in FAMILIES.items() if not family.trained} == {"layer_ridge"}
    bottlenecks = {name: family.bottleneck for name, family in FAMILIES.items()}
    assert bottlenecks == {
        "factortopy": "local_bottleneck",
        "free_selectors": "local_bottleneck",
        "through_time": "local_bottleneck",
        "attention": "local_value",
        "layer_ridge": None,
    }
    # 2 voxels, 1 layer of width 5, 3 channels: layer, place, scale, weights, bias, scores; then projections
    sizes = {
        name: mapping_bytes(2, (5,), family.config(**({"n_channels": 3} if family.trained else {})))
        for name, family in FAMILIES.items()
    }
    trained = 2 * (1 + 2 + 1 + 3 + 1 + 2)
    assert sizes == {
        "factortopy": 4 * (trained + 2 * 5 * 3),
        "free_selectors": 4 * (trained + 2 * (1 + 2 + 1) + 2 * 5 * 3),
        "through_time": 4 * (trained + 2 * 5 * 3),
        "attention": 4 * (trained + 2 * (1 + 3) + 4 * 5 * 3),
        "layer_ridge": 4 * 2 * 3,
    }


def test_an_unknown_method_has_no_cost() -> None:
    with pytest.raises(KeyError):
        numbers_kept("no_such_method", 9, 5)
