"""Brains, tasks and backbones that users' functions return: ``brain=python`` and similar."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import made_lab
import numpy as np
import pytest
from made_study import make_brain
from overrides import SMALL_TRACKING, TINY

from harness.backbones.backbone import encoder_hash
from harness.backbones.load import load_backbone
from harness.brains.load import load_brain
from harness.commands.finetune import run
from harness.config.compose import (
    config_hash,
    load_config,
    read_config,
    to_yaml,
)
from harness.runs.journal import read_rows
from harness.runs.subjects import (
    Brains,
    label_subjects,
    list_subjects,
)
from harness.storage.errors import InputError
from harness.studies.availability import (
    HERE,
    MISSING,
    list_needs,
)
from harness.studies.grid import expand_grid
from harness.studies.plan import print_plan
from tasks.load import load_task

BRAIN = ["brain=python", "brain.function=made_lab:brain"]
TASK = ["task=python", "task.function=made_lab:task"]
BACKBONE = ["backbone=python", "backbone.function=made_lab:vit"]


def test_names_default_to_the_function_and_can_be_set() -> None:
    config = load_config([*TASK, *BACKBONE])
    assert (config.task.name, config.backbone.name) == ("made_lab.task", "made_lab.vit")
    assert config.backbone.objective == "unstated"
    config = load_config([*TASK, *BACKBONE, "task.name=shade", "backbone.name=mine"])
    assert (config.task.name, config.backbone.name) == ("shade", "mine")
    assert load_brain(load_config(BRAIN).brain).name == "brain"


def test_a_configuration_is_written_read_and_told_apart(tmp_path: Path) -> None:
    config = load_config([*BRAIN, *TASK, *BACKBONE, "brain.arguments={n_images: 30, folder: /data/a b}"])
    assert config.brain.arguments == {"n_images": 30, "folder": "/data/a b"}
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert read_config(tmp_path / "config.yaml") == config
    assert hash(config.brain) == hash(read_config(tmp_path / "config.yaml").brain)
    other = load_config([*BRAIN, *TASK, *BACKBONE, "brain.arguments.n_images=31"])
    assert config_hash(other) != config_hash(config)
    for more in (["task.shifts=[noise]"], ["task.classes_per_stage=2", "task.n_classes=4"]):
        config = load_config([*TASK, *more])
        (tmp_path / "config.yaml").write_text(to_yaml(config))
        assert read_config(tmp_path / "config.yaml") == config


def test_an_argument_can_be_an_axis_of_a_study() -> None:
    grid = "study.grid={brain.arguments.n_voxels: [12, 15]}"
    found = [config.brain.arguments for _, config in expand_grid([*BRAIN, grid])]
    assert found == [{"n_voxels": 12}, {"n_voxels": 15}]
    with pytest.raises(InputError, match=r"study.grid: .*'bran.arguments.n'"):
        load_config(["study.grid={bran.arguments.n: [1]}"])


def test_subjects_are_passed_on() -> None:
    config = load_config([*BRAIN, "brain.subjects=[ann,2]", "brain.arguments.n_voxels=12"])
    assert label_subjects(config.brain) == ("ann", "subj02")
    subjects = list_subjects(config.brain, Path("run"))
    assert [one.brain.arguments for one in subjects] == [
        {"n_voxels": 12, "subject": "ann"},
        {"n_voxels": 12, "subject": 2},
    ]
    brains = Brains(subjects)
    first, second = (brains.load(one) for one in subjects)
    assert (first.name, second.name, first.n_voxels) == ("brain-ann", "brain-2", 12)
    assert first.fingerprint != second.fingerprint
    # a list of one subject equals that subject
    alone = load_config([*BRAIN, "brain.arguments={n_voxels: 12, subject: ann}"])
    assert config_hash(load_config([*BRAIN, "brain.subjects=[ann]", "brain.arguments.n_voxels=12"])) == (
        config_hash(alone)
    )
    with pytest.raises(InputError, match=r"^brain: found arguments.subject b and subjects .*one of the two"):
        load_config([*BRAIN, "brain.subjects=[a]", "brain.arguments.subject=b"])


def test_regions_and_ceiling_select_as_for_any_source() -> None:
    whole = load_brain(load_config(BRAIN).brain)
    front = load_brain(load_config([*BRAIN, "brain.rois=[front]"]).brain)
    assert front.n_voxels == len(whole.rois[0].voxels) < whole.n_voxels


def test_a_brain_is_fingerprinted_whatever_is_left_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_brain(2, 8)
    empty = replace(
        made,
        name="",
        fingerprint="",
        responses=np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32),
        stimuli=[made.stimuli[0]] * 4,
        stimulus_ids=np.arange(4),
    )
    monkeypatch.setattr(made_lab, "brain", lambda: empty)
    config = load_config(BRAIN).brain
    found = load_brain(config)
    assert len(found.fingerprint) == 64 and found.name == "brain"
    changed = replace(empty, responses=empty.responses + np.float32(1))
    monkeypatch.setattr(made_lab, "brain", lambda: changed)
    assert load_brain(config).fingerprint != found.fingerprint
    for name, value, problem in (
        (
            "responses",
            empty.responses.astype(np.float64),
            "found shape .* of float64, expected a float32 array",
        ),
        ("coords", empty.coords[:3], r"found shape \(3, 3\), expected \(16, 3\)"),
        ("stimuli", [], "found 0, expected 4"),
        ("session", np.zeros(3, np.int64), r"found shape \(3,\), expected \(4,\)"),
    ):
        broken = object.__new__(type(empty))
        for key, part in vars(empty).items():
            object.__setattr__(broken, key, value if key == name else part)
        monkeypatch.setattr(made_lab, "brain", lambda broken=broken: broken)
        with pytest.raises(InputError, match=f"^brain.function: made_lab:brain: {name}: {problem}"):
            load_brain(config)


def test_sizes_seed_and_leaks_hold_for_a_task() -> None:
    whole = load_task(**load_config(TASK).task.model_dump())
    assert (len(whole.train), len(whole.test), whole.n_classes) == (30, 12, 2)
    some = load_task(**load_config([*TASK, "task.n_train=10", "task.n_test=6"]).task.model_dump())
    more = load_task(**load_config([*TASK, "task.n_train=20", "task.n_test=6"]).task.model_dump())
    assert (len(some.train), len(some.test)) == (10, 6)
    assert len({whole.fingerprint, some.fingerprint, more.fingerprint}) == 3
    pixels = [{np.asarray(image).tobytes() for image in task.train["image"]} for task in (some, more, whole)]
    assert pixels[0] < pixels[1] < pixels[2]
    few = load_task(**load_config([*TASK, "task.n_per_class=4"]).task.model_dump())
    assert np.bincount(few.train["label"]).tolist() == [4, 4]
    with pytest.raises(InputError, match=r"^task.n_train: found 99, .*30"):
        load_task(**load_config([*TASK, "task.n_train=99"]).task.model_dump())
    with pytest.raises(InputError, match=r"^task.multi_label: found True, expected False"):
        load_task(**load_config([*TASK, "task.multi_label=true"]).task.model_dump())


def test_a_sequence_holds_a_function_for_the_task_that_is_python() -> None:
    config = load_config(["task=[digits,python]", "task.function=made_lab:task", "task.n_train=20"])
    assert config.task.name == "digits+made_lab.task"
    digits, own = config.task.tasks
    assert (digits.source, own.function, own.n_train) == ("embedded", "made_lab:task", 20)
    with pytest.raises(InputError, match=r"^task.function: no task of the sequence is python"):
        load_config(["task=[digits,textures]", "task.function=made_lab:task"])


@pytest.mark.parametrize("group", ["brain", "task", "backbone"])
def test_what_is_no_such_thing_is_one_line(group: str) -> None:
    load = {
        "brain": lambda config: load_brain(config.brain),
        "task": lambda config: load_task(**config.task.model_dump()),
        "backbone": lambda config: load_backbone(config.backbone),
    }[group]
    kind = group.capitalize()
    for function, problem in (
        ("something_else", f"made_lab:something_else returned a int, expected a {kind}"),
        ("nothing", "unknown function of made_lab 'nothing'"),
    ):
        config = load_config([f"{group}=python", f"{group}.function=made_lab:{function}"])
        with pytest.raises(InputError, match=f"^{group}.function: {problem}") as error:
            load(config)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=f"^{group}.function: found nothing, .*package.module:function"):
        load_config([f"{group}=python"])


def test_random_weights_follow_the_seed_and_preprocessing_can_be_set() -> None:
    first, again, other = (
        load_backbone(load_config([*BACKBONE, f"backbone.seed={seed}"]).backbone) for seed in (1, 1, 2)
    )
    assert encoder_hash(first) == encoder_hash(again) != encoder_hash(other)
    shifted = load_config([*BACKBONE, "backbone.preprocessing.mean=[0,0.5,1]"]).backbone
    assert shifted.preprocessing.mean == (0, 0.5, 1)
    squashed = load_backbone(load_config([*BACKBONE, "backbone.preprocessing.crop_mode=squash"]).backbone)
    assert (first.preprocessing.crop_mode, squashed.preprocessing.crop_mode) == ("center", "squash")


def test_a_plan_looks_functions_up_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config([*TINY, *SMALL_TRACKING[2:], *BACKBONE, *TASK, *BRAIN, "task.n_train=24"])
    needs = {need.what: (need.state, need.place) for need in list_needs([config])}
    assert needs["brain python"] == (HERE, "function made_lab:brain")
    assert needs["images of made_lab.task"][0] == needs["weights of made_lab.vit"][0] == HERE
    missing = load_config([*BACKBONE, "brain=python", "brain.function=made_lab:nobody"])
    assert {n.what for n in list_needs([missing]) if n.state == MISSING} == {"brain python"}
    print_plan([config, load_config([*BACKBONE, "method=lora", "method.targets=.*mix"])], measure=False)
    printed = capsys.readouterr().out
    assert "made_lab.vit-made_lab.task-full" in printed and "2 runs" in printed


def test_a_run_from_functions_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*TINY, *SMALL_TRACKING[2:], *BACKBONE, *TASK, *BRAIN, f"runs_dir={tmp_path}"]
    config = load_config([*overrides, "brain.subjects=[ann,bob]", "finetune.max_steps=3"])
    folder = run(config)
    fingerprints = json.loads((folder / "manifest.json").read_text())["fingerprints"]
    task = load_task(**config.task.model_dump())
    assert fingerprints["task"] == task.fingerprint
    assert fingerprints["pretrained_encoder"] == encoder_hash(load_backbone(config.backbone))
    brains = [load_brain(one.brain).fingerprint for one in list_subjects(config.brain, folder)]
    assert list(fingerprints["brain"].values()) == brains
    names = {row["name"] for row in read_rows(folder / "results.jsonl")[0]}
    expected = {"rewiring/all/n_predicted", "selectors/front/bob/expected_depth", "drift/trunk.step1/cka"}
    assert expected <= names
    # a brain of arrays has no surface, but the report draws its voxels all the same
    from harness.reporting.page import write_report

    page = write_report(folder.parent).read_text()
    assert page.count("data:image/png") >= 2 and "no surface" not in page


def test_a_launched_process_finds_a_function_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "own_lab.py").write_text("def load():\n    return 3\n")
    code = """
from harness.brains import load_brain
from harness.config import load_config
from harness.storage import exit_with_one_line
config = load_config(["brain=python", "brain.function=own_lab:load"])
exit_with_one_line(lambda: load_brain(config.brain))
"""
    # -P: like a launched script, which has its own folder on the path instead of the working directory
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        "error: brain.function: own_lab:load returned a int, expected a Brain\n",
    )
