"""Experience replay: the buffer, what is drawn from it, the loss, and training that can be stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_training import SMALL, interrupted, load_once, values
from overrides import TINY
from test_sequences import BOTH, state, train
from torch.nn import functional

from harness.backbones.backbone import Backbone
from harness.backbones.load import load_backbone
from harness.config.compose import load_config
from harness.config.method import ReplayConfig
from harness.finetuning.batches import TaskImages
from harness.finetuning.methods.replay import (
    Replay,
    choose_buffer,
    count_replayed,
)
from harness.finetuning.methods.tuned import TunedModel, tune
from harness.runs.layout import list_snapshots
from harness.storage.errors import InputError
from harness.studies.costs import count_images_per_step

REPLAY = [BOTH, "method=replay", "method.per_class=2"]


def test_a_buffer_holds_as_many_images_of_every_class() -> None:
    labels = np.array([0, 1, 2, 0, 1, 0, 1, 0, 1, 0])
    for place in range(3):
        kept = choose_buffer(labels, 2, 5, place)
        # class 2 has one image only
        assert np.bincount(labels[kept]).tolist() == [2, 2, 1]
        assert set(kept) <= set(choose_buffer(labels, 3, 5, place))
        assert kept.tolist() == choose_buffer(labels, 2, 5, place).tolist()
    assert choose_buffer(labels, 9, 5, 0).tolist() == list(range(10))
    choices = {tuple(choose_buffer(labels, 2, seed, place)) for seed in range(4) for place in range(4)}
    assert len(choices) > 8


def test_a_buffer_of_several_labels() -> None:
    labels = np.array([[1, 0], [1, 0], [0, 0], [0, 0], [1, 1]])
    kept = labels[choose_buffer(labels, 1, 0, 0)]
    # an image with both labels may stand for both
    assert kept.any(axis=0).all() and (~kept.any(axis=1)).sum() == 1 and 2 <= len(kept) <= 3


@pytest.mark.parametrize(
    ("n_new", "share", "expected"), [(8, 0.5, 8), (8, 0.2, 2), (30, 0.75, 90), (1, 0.1, 1)]
)
def test_the_share_of_replayed_images(n_new: int, share: float, expected: int) -> None:
    assert count_replayed(n_new, share) == expected


def test_a_plan_counts_replayed_images() -> None:
    config = load_config([*TINY, *REPLAY, "method.share=0.75"])
    # none in the first task, 24 beside 8 in the second
    assert count_images_per_step(config) == (8 + 32) / 2
    assert count_images_per_step(load_config([*TINY, BOTH])) == 8


@pytest.fixture
def backbone() -> Backbone:
    return load_backbone(load_config([*TINY, *SMALL]).backbone)


def make_objective(backbone: Backbone, method: ReplayConfig) -> tuple[TunedModel, Replay]:
    """Make a model with heads of three tasks, at the third, whose weights are random."""
    tasks = [load_once(name, 24, 10) for name in ("digits", "textures", "counts")]
    model = tune(backbone, [task.n_classes for task in tasks], method, 0, tasks)
    torch.manual_seed(1)
    for head in model.heads:
        torch.nn.init.normal_(head.weight)
    model.choose_head(2)
    model.open()
    objective = Replay(model, tasks, backbone.preprocessing, method, 0)
    objective.task = tasks[2]
    return model, objective.eval()


def test_the_loss_is_the_mean_over_new_and_replayed_images(backbone: Backbone) -> None:
    method = ReplayConfig(per_class=1, share=0.6)
    model, objective = make_objective(backbone, method)
    tasks = objective._tasks
    new = TaskImages(tasks[2].train, backbone.preprocessing)
    images, labels = map(torch.stack, zip(*(new[row] for row in range(4)), strict=True))
    torch.manual_seed(3)
    terms = objective(images, labels)
    # six of the 16 images kept: at most one of ten digits and six textures
    rows = [choose_buffer(np.array(task.train["label"]), 1, 0, place) for place, task in enumerate(tasks[:2])]
    torch.manual_seed(3)
    drawn = sorted(torch.randperm(sum(map(len, rows)))[:6].tolist())
    losses = []
    for number in drawn:
        place, own = (0, number) if number < len(rows[0]) else (1, number - len(rows[0]))
        image, label = TaskImages(tasks[place].train, backbone.preprocessing)[int(rows[place][own])]
        logits = model.heads[place](model.backbone(image[None]))
        losses.append(functional.cross_entropy(logits, label[None]))
    assert len(losses) == 6
    replayed = torch.stack(losses).mean()
    assert terms["replay_loss"].item() == pytest.approx(0.6 * replayed.item(), rel=1e-4)
    own = functional.cross_entropy(model(images), labels)
    assert terms["task_loss"].item() == pytest.approx(0.4 * own.item(), rel=1e-4)
    # earlier heads learn too
    sum(terms.values()).backward()
    assert all(head.weight.grad.any() for head in model.heads)


def test_a_head_without_drawn_images_has_a_gradient_of_zero(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, objective = make_objective(backbone, ReplayConfig(per_class=1, share=0.5))
    monkeypatch.setattr(torch, "randperm", torch.arange)  # the first images are all digits
    size = backbone.preprocessing.size
    images, labels = torch.zeros(2, 3, size, size), torch.zeros(2, dtype=torch.long)
    sum(objective(images, labels).values()).backward()
    assert model.heads[0].weight.grad.any()
    assert model.heads[1].weight.grad is not None and not model.heads[1].weight.grad.any()


def test_a_run_replays_from_the_second_task_on_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "full", "task=digits")
    train(tmp_path / "whole", *REPLAY)
    with interrupted(7, monkeypatch):
        train(tmp_path / "stopped", *REPLAY)
    train(tmp_path / "stopped", *REPLAY)
    assert values(tmp_path / "stopped") == values(tmp_path / "whole")
    for step in list_snapshots(tmp_path / "whole"):
        whole, stopped = state(tmp_path / "whole", step), state(tmp_path / "stopped", step)
        assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    # the first task is trained as if it were alone
    rows, alone = values(tmp_path / "whole"), values(tmp_path / "full")
    assert {key: value for key, value in rows.items() if key[1] <= 4} == alone
    assert ("train/replay_loss", 4) not in rows and ("train/replay_loss", 5) in rows
    half, end = state(tmp_path / "whole", 4), state(tmp_path / "whole", 8)
    assert not torch.equal(half["head.0.weight"], end["head.0.weight"])
    # half of the loss is that of six equally likely textures: their head is zero
    assert rows["train/task_loss", 5] == pytest.approx(np.log(6) / 2)


def test_a_single_task_leaves_nothing_to_replay(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^method: found replay with the single task digits, .*expected a seq"
    ):
        train(tmp_path, "method=replay")
