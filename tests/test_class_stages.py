"""Class-incremental splits: settings, images and labels of stages, and heads that answer together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_training import SMALL
from overrides import TINY
from PIL import Image

from harness.backbones.load import load_backbone
from harness.config.compose import config_hash, load_config, probe_tasks, read_config, to_yaml
from harness.config.task import ClassPart, SequenceConfig, tasks_in_order
from harness.finetuning.methods.tuned import tune
from harness.measures.sequences import name_sequence, score_joint
from harness.runs.inputs import Inputs
from harness.runs.layout import run_name
from harness.runs.subjects import Brains
from harness.storage.errors import InputError
from harness.studies.costs import plan_steps
from harness.tracking.probing import Prober
from tasks import digits
from tasks.class_stages import take_classes
from tasks.load import load_task, load_tasks
from tasks.task import Task


def classes_of(*overrides: str) -> list[tuple[int, ...]]:
    return [task.part.classes for task in tasks_in_order(load_config(list(overrides)).task) if task.part]


def test_a_task_becomes_stages_with_disjoint_classes(tmp_path: Path) -> None:
    assert classes_of("task.classes_per_stage=4") == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]
    config = load_config(["task.classes_per_stage=4", "task.n_train=50"])
    assert isinstance(config.task, SequenceConfig)
    assert [task.name for task in config.task.tasks] == ["digits-1of3", "digits-2of3", "digits-3of3"]
    assert run_name(config).startswith("mini_clip-digits-3stages-full-seed0-")
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert read_config(tmp_path / "config.yaml") == config
    # a probe of the whole task would measure learning
    probed = load_config(["task.classes_per_stage=4", "probes.tasks=[digits,shapes]"])
    assert [task.name for task in probe_tasks(probed)] == ["shapes"]


def test_the_order_of_classes_has_a_seed() -> None:
    first, again, other = (
        classes_of("task.classes_per_stage=5", f"task.class_order_seed={seed}") for seed in (1, 1, 2)
    )
    assert first == again != other
    assert sorted(first[0] + first[1]) == list(range(10)) and first != [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)]


def test_a_plan_knows_sizes_where_the_settings_say_them() -> None:
    few = [*TINY, "task.n_train=null", "task.n_per_class=8", "snapshots.at_epoch_ends=false"]
    # two stages of 40 images in batches of 8, three epochs
    n_steps, _ = plan_steps(load_config([*few, "task.classes_per_stage=5"]))
    assert n_steps == 30
    assert plan_steps(load_config([*TINY, "task.classes_per_stage=5"])) == (None, None)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["task.classes_per_stage=1"], "found 1, expected greater than or equal to 2"),
        (["task.classes_per_stage=3"], "found 3, which makes a last stage of one class of the 10 classes"),
        (["task.classes_per_stage=10"], "found 10, which makes one stage of the 10 classes of digits"),
        (["task=[digits,shapes]", "task.classes_per_stage=2"], r"found with the sequence digits\+shapes"),
        (["task=chestmnist", "task.classes_per_stage=2"], "found with the multi-label task chestmnist"),
        (["task.shifts=[noise]", "task.classes_per_stage=2"], "found with shifts of digits"),
        (["task=eurosat", "task.classes_per_stage=2"], r".* no setting says; expected task\.n_classes"),
    ],
)
def test_what_cannot_be_split_is_said(overrides: list[str], problem: str) -> None:
    with pytest.raises(InputError, match=f"^task.classes_per_stage: {problem}"):
        load_config(overrides)


def test_where_the_classes_are_not_known_a_setting_counts_them() -> None:
    assert len(classes_of("task=eurosat", "task.n_classes=10", "task.classes_per_stage=2")) == 5


def test_tasks_without_stages_keep_their_hash() -> None:
    plain = config_hash(load_config(["task=[digits,textures]"]))
    assert plain == config_hash(load_config(["task=[digits,textures]", "task.class_order_seed=null"]))
    assert plain != config_hash(load_config(["task=[digits,textures]", "task.class_order_seed=1"]))


def make_task(labels: list[int], test: list[int]) -> Task:
    """Make images whose colour is their number."""
    images = [Image.new("RGB", (2, 2), (number, label, 9)) for number, label in enumerate(labels + test)]
    parts = (images[: len(labels)], labels), (images[len(labels) :], test)
    return Task.from_images(*parts, ["a", "b", "c", "d"], templates=["a {}"], name="letters")


def test_a_stage_has_its_own_images_and_counts_its_classes_from_0() -> None:
    whole = make_task([3, 0, 1, 2, 3, 1], [1, 3, 0, 2])
    stage = take_classes(whole, "letters-1of2", ClassPart(of="letters", n_classes=4, classes=(3, 1)))
    assert (stage.name, stage.class_names, stage.templates) == ("letters-1of2", ("d", "b"), ("a {}",))
    assert stage.train["label"][:] == [0, 1, 0, 1] and stage.test["label"][:] == [1, 0]
    assert [image.getpixel((0, 0))[0] for image in stage.train["image"]] == [0, 2, 4, 5]
    other = take_classes(whole, "letters-2of2", ClassPart(of="letters", n_classes=4, classes=(0, 2)))
    assert len({whole.fingerprint, stage.fingerprint, other.fingerprint}) == 3
    assert len({*whole.image_hashes, *stage.image_hashes, *other.image_hashes}) == 6


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        (ClassPart(of="letters", n_classes=5, classes=(0, 1)), "task.n_classes: found 5, expected 4"),
        (
            ClassPart(of="letters", n_classes=4, classes=(2, 3)),
            "found no test image of c, d, the classes of x",
        ),
    ],
)
def test_a_stage_without_its_classes_is_an_error(part: ClassPart, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        take_classes(make_task([0, 1, 2, 3], [0, 1]), "x", part)


def test_the_whole_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, build = [], digits.build

    def count(*arguments: object) -> Task:
        loaded.append(arguments)
        return build(*arguments)

    monkeypatch.setattr(digits, "build", count)
    stages = tasks_in_order(load_config([*TINY, "task.classes_per_stage=5"]).task)
    found = load_tasks(stages)
    assert len(loaded) == 1
    assert sum(len(task.train) for task in found) == 24
    # one by one they are the same
    assert [load_task(**stage.model_dump()).fingerprint for stage in stages] == [
        task.fingerprint for task in found
    ]
    with pytest.raises(InputError, match=r"^task.classes_per_stage: found 2 with the single task digits"):
        load_task("digits", 24, 10, classes_per_stage=2)


# --- heads that answer together

# two images of each of two stages, of two classes each
LOGITS = [
    # stage 0: head 0 is right twice; head 1 takes the second image
    [np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([[0.0, 1.0], [3.0, 0.0]])],
    # stage 1: right, and the other class of its own head
    [np.array([[0.0, 0.5], [0.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])],
]
LABELS = [np.array([0, 1]), np.array([1, 1])]


def test_heads_together_by_hand() -> None:
    assert score_joint(LOGITS, LABELS) == [[1.0], [0.5, 0.5]]


def test_measures_of_heads_together() -> None:
    probes = {
        step: {
            "heads": {"a": {"accuracy": 1.0}, "b": {"accuracy": 0.5}},
            "probe": {"a": {}, "b": {}},
            "multi_label": [],
            "joint": [[1.0], [0.5, 0.25]],
        }
        for step in (0, 4, 8)
    }
    rows = dict(name_sequence(probes, ["a", "b"], [4, 8], False))
    assert rows[4]["sequence/joint/average_accuracy"] == 1.0
    joint = {name: value for name, value in rows[8].items() if "/joint/" in name}
    assert joint == {
        "sequence/joint/average_accuracy": 0.375,
        "sequence/joint/backward_transfer": -0.5,
        "sequence/joint/forgetting_chaudhry": 0.5,
        "sequence/joint/forgetting_max_all": 0.5,
        "sequence/joint/relative_forgetting": 0.5,
    }
    assert rows[8]["sequence/head/average_accuracy"] == 0.75


def test_snapshots_score_heads_together() -> None:
    config = load_config([*TINY, *SMALL, "task.n_test=40", "task.classes_per_stage=5"])
    tasks, backbone = load_tasks(tasks_in_order(config.task)), load_backbone(config.backbone)
    model = tune(backbone, [task.n_classes for task in tasks], config.method, 0, tasks)
    # features that are classes: the first head knows its own, the second answers for all with its first
    model.heads[0].weight.data[:, :5] = torch.eye(5)
    model.heads[1].bias.data[0] = 0.5
    features = {
        task.name: np.zeros((len(task.test), backbone.n_features), dtype=np.float32) for task in tasks
    }
    labels = [np.array(task.test["label"]) for task in tasks]
    features[tasks[0].name][np.arange(len(labels[0])), labels[0]] = 1
    found = {"images": {task.name: {"right": {}} for task in tasks}}
    prober = Prober(Inputs(tasks, (), backbone, Brains([])), config, torch.device("cpu"), True)
    assert prober.add_heads(found, features, model)["joint"] == [[1.0], [1.0, np.mean(labels[1] == 0)]]
