"""Options and values merged without Hydra: the same as with it, and left to it where that is not certain."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from harness.config.folders import CONFIGS, VARIABLE, group_options
from harness.config.option_files import (
    OptionFiles,
    compose_by_hydra,
    compose_plainly,
    set_plainly,
    set_values,
)

CHOSEN = [{"study": name} for name in group_options("study")] + [
    {},
    {"method": "lora", "backbone": "dinov2_s14"},
    {"task": "eurosat", "brain": "nsd", "mapping": "layer_ridge", "study": "demo"},
]


@pytest.mark.parametrize("chosen", CHOSEN, ids=str)
def test_options_are_composed_as_hydra_does(chosen: dict[str, str]) -> None:
    plain = compose_plainly(chosen)
    expected = compose_by_hydra(CONFIGS, (), list(chosen.items()))
    assert plain == expected
    # an order that runs are written in
    assert plain is not None and list(plain) == list(expected)


# with interpolations
HYDRAS = ("backbone=mocov3_b16", "backbone=open_clip", "backbone=timm")


def test_other_options_of_ours_are_plain() -> None:
    for group in ("backbone", "task", "method", "brain", "mapping"):
        for option in group_options(group):
            composed = compose_plainly({group: option})
            assert (composed is None) == (f"{group}={option}" in HYDRAS), f"{group}={option}"
    # a number, unlike in plain YAML
    assert compose_plainly({"study": "demo"})["finetune"]["lr"] == 1e-3  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 3),
        ("task.n_train", None),
        ("study.grid", {"seed": [0, 1], "backbone": ["mini_clip"]}),
        ("study.slurm.extra", {"mail-type": "END"}),
        ("study.slurm.extra.mail-type", "END"),
        ("probes.tasks", [{"name": "mine", "source": "hub"}, "shapes"]),
        ("brain", {"seed": 4}),
        ("snapshots", {}),
    ],
)
def test_values_are_set_as_omegaconf_does(name: str, value: object) -> None:
    composed = OptionFiles().compose({"study": "demo"})
    expected = OmegaConf.create(composed)
    OmegaConf.update(expected, name, value, merge=True, force_add=True)
    plain = copy.deepcopy(composed)
    assert set_plainly(plain, name, value)
    assert plain == OmegaConf.to_container(expected) == set_values(composed, {name: value})
    assert composed == OptionFiles().compose({"study": "demo"})  # as it was


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", "${finetune.epochs}"),
        ("study.name", "???"),
        ("study.grid.backbone.0", "mini_clip"),  # in a list
        ("study.name.x", 1),
        ("task", 3),  # for a mapping
        ("task", {3: 1}),
        ("a..b", 1),
    ],
)
def test_what_is_not_certain_is_left_to_omegaconf(name: str, value: object) -> None:
    assert not set_plainly(OptionFiles().compose({"study": "demo"}), name, value)


def test_interpolations_are_resolved() -> None:
    composed = OptionFiles().compose({})
    found = set_values(composed, {"seed": "${finetune.epochs}", "finetune.epochs": 7})
    assert (found["seed"], found["finetune"]["epochs"]) == (7, 7)


@pytest.mark.parametrize(
    "text",
    [
        "defaults: [mini_clip]\nname: mine\n",
        "# @package _global_.x\nname: mine\n",
        "name: ${seed}\n",
        "3\n",
        "[\n",
    ],
)
def test_files_that_ask_something_of_hydra_are_left_to_it(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "mine.yaml").write_text(text)
    monkeypatch.setenv(VARIABLE, os.fspath(tmp_path))
    assert compose_plainly({"backbone": "mine"}) is None
    (tmp_path / "backbone" / "mine.yaml").write_text("name: mine\nlibrary: timm\n")
    assert compose_plainly({"backbone": "mine"})["backbone"] == {"name": "mine", "library": "timm"}  # type: ignore[index]


def test_equal_things_are_checked_once() -> None:
    files, seen = OptionFiles(), list[object]()
    for grid in ({"seed": [1]}, {"seed": [1]}, {"seed": [2]}):
        files.check_once(grid, seen.append)
    assert seen == [{"seed": [1]}, {"seed": [2]}]
