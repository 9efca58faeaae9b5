"""LDIFS's protocol: heads that start elsewhere than at zero, smoothing, batch norm, dense snapshots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_backbones import register_small
from made_training import SMALL, load_once, train, values
from overrides import TINY
from torch.nn import functional

from harness.backbones.backbone import Backbone
from harness.backbones.load import load_backbone
from harness.backbones.timm_backbone import load_timm
from harness.config.compose import config_hash, load_config
from harness.config.method import FullConfig, LdifsConfig
from harness.config.run import SnapshotsConfig
from harness.finetuning.devices import build_accelerator
from harness.finetuning.methods.head_start import make_probe, start_heads
from harness.finetuning.methods.ldifs import Ldifs
from harness.finetuning.methods.objectives import build_objective
from harness.finetuning.methods.tuned import tune
from harness.finetuning.snapshot_steps import snapshot_steps
from harness.runs.layout import snapshot_folder
from harness.storage.errors import InputError
from harness.storage.files import read_weights
from harness.studies.costs import PlannedRun, plan_steps
from harness.studies.plan_table import format_runs
from tasks.losses import label_loss


@pytest.fixture(scope="module")
def clip() -> Backbone:
    return load_backbone(load_config(["backbone=mini_clip"]).backbone)


def test_a_zero_shot_head_is_that_of_the_texts(clip: Backbone) -> None:
    tasks = [load_once(name, 24, 10) for name in ("digits", "textures")]
    method = FullConfig(head="zero_shot")
    model = tune(clip, [task.n_classes for task in tasks], method, 0).eval()
    start_heads(model, method, clip, tasks, "cpu")
    features = torch.randn(4, clip.n_features, generator=torch.Generator().manual_seed(0))
    for place, task in enumerate(tasks):
        model.choose_head(place)
        texts = clip.text.embed_classes(task.class_names, task.templates)
        cosines = functional.cosine_similarity(features[:, None], texts[None], dim=2)
        torch.testing.assert_close(model.classify(features), clip.text.logit_scale * cosines)


@pytest.mark.parametrize(("head", "task"), [("zero", "digits"), ("zero_shot", "counts")])
def test_heads_without_texts(clip: Backbone, head: str, task: str) -> None:
    method, found = FullConfig(head=head), load_once(task, 24, 10)
    model = tune(clip, found.n_classes, method, 0)
    if head == "zero":
        start_heads(model, method, clip, [found], "cpu")
        assert not any(part.any() for part in model.current_head.parameters())
    else:
        with pytest.raises(
            InputError, match=r"^method.head: found zero_shot with task counts, which has no pro"
        ):
            start_heads(model, method, clip, [found], "cpu")


class _Pixels(torch.nn.Module):
    """Features are the mean colour, times 50."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = torch.nn.Conv2d(3, 3, 1, bias=False)
        self.kernel.weight.data = 50 * torch.eye(3)[:, :, None, None]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.kernel(images).mean(dim=(2, 3))


def test_a_linear_probe_reads_features_as_they_are() -> None:
    from PIL import Image

    from tasks.task import Task

    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)] * 4
    images = [Image.new("RGB", (8, 8), colour) for colour in colours]
    labels = [0, 1, 2] * 4
    task = Task.from_images((images, labels), (images[:3], labels[:3]), ["red", "green", "blue"])
    backbone = Backbone.from_module(
        _Pixels(), ["kernel"], image_size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    weight, bias = make_probe(backbone, task, "cpu")
    logits = 50 * torch.eye(3) @ weight.T + bias
    assert logits.argmax(dim=1).tolist() == [0, 1, 2]
    # every class is told apart equally well: the diagonal stands out
    assert logits.diagonal().min() > 3 + logits[~torch.eye(3, dtype=torch.bool)].max()


def test_a_run_starts_from_a_linear_probe_and_may_keep_it(tmp_path: Path) -> None:
    few = [*SMALL, "finetune.max_steps=2", "method.head=linear_probe", "method.frozen_head=true"]
    train(tmp_path, *few)
    start, end = (read_weights(snapshot_folder(tmp_path, step) / "weights.safetensors") for step in (0, 2))
    assert start["head.weight"].any()
    assert torch.equal(start["head.weight"], end["head.weight"])
    assert any(not torch.equal(start[name], end[name]) for name in start)
    # far below that of equally likely classes
    assert values(tmp_path)["train/loss", 1] < 0.8 * np.log(10)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["method.frozen_head=true"], "found frozen_head with head zero, which gives no gradient"),
        (
            ["method=linear_probe", "method.head=linear_probe", "method.frozen_head=true"],
            "found frozen_head with linear_probe, which trains the head",
        ),
        (["method=flyp", "method.head=zero_shot"], "method.head: not a setting of the chosen method"),
        (["method.head=ones"], 'method.head: found "ones"'),
        (["finetune.label_smoothing=1"], "finetune.label_smoothing: found 1"),
    ],
)
def test_settings_that_do_not_go_together_are_said(overrides: list[str], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        load_config(overrides)


def test_a_network_without_texts_has_no_zero_shot_head(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^method.head: found zero_shot with a backbone without a text tower"
    ):
        train(tmp_path, *SMALL, "method.head=zero_shot")


def test_defaults_are_no_part_of_a_hash() -> None:
    plain = config_hash(load_config([]))
    for same in ("method.head=zero", "method.batch_norm=train", "finetune.label_smoothing=0.0"):
        assert config_hash(load_config([same])) == plain
    others = ("method.head=zero_shot", "method.batch_norm=frozen", "finetune.label_smoothing=0.1")
    hashes = {config_hash(load_config([other])) for other in (*others, "snapshots.evenly=3")}
    assert len(hashes | {plain}) == 5


# --- label smoothing


def test_smoothed_losses_by_hand() -> None:
    logits, labels = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0])
    log_p = logits.log_softmax(dim=1)[0]
    expected = -(0.7 * log_p[0] + 0.1 * log_p.sum())
    assert label_loss(logits, labels, 0.3).item() == pytest.approx(expected.item())
    several = torch.tensor([[1.0, 0.0]])
    log_p, log_q = functional.logsigmoid(logits[:, :2]), functional.logsigmoid(-logits[:, :2])
    expected = -(0.85 * log_p[0, 0] + 0.15 * log_q[0, 0] + 0.15 * log_p[0, 1] + 0.85 * log_q[0, 1]) / 2
    assert label_loss(logits[:, :2], several, 0.3).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("method", ["full", "ldifs"])
def test_objectives_smooth_labels(method: str) -> None:
    config = load_config([*TINY, *SMALL, f"method={method}", "finetune.label_smoothing=0.3"])
    backbone, task = load_backbone(config.backbone), load_once("digits", 24, 10)
    model = tune(backbone, 10, config.method, 0)
    torch.nn.init.normal_(model.head.weight)
    objective = build_objective(config, model, [task], backbone, build_accelerator(config.finetune)).eval()
    images, labels = torch.zeros(2, 3, 160, 160), torch.tensor([3, 4])
    with torch.no_grad():
        expected = functional.cross_entropy(model(images), labels, label_smoothing=0.3)
        assert objective(images, labels)["task_loss"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_contrastive_loss_has_no_labels_to_smooth(clip: Backbone) -> None:
    config = load_config(["backbone=mini_clip", "method=flyp", "finetune.label_smoothing=0.3"])
    task = load_once("digits", 24, 10)
    model = tune(clip, 10, config.method, 0, task)
    with pytest.raises(InputError, match=r"^finetune.label_smoothing: found 0.3, expected 0: method flyp"):
        build_objective(config, model, [task], clip, build_accelerator(config.finetune))


# --- batch norm


def test_frozen_statistics_stay_as_pretrained_and_a_penalty_starts_at_0() -> None:
    backbone = load_timm(register_small("resnet"), None, 0)
    size = backbone.preprocessing.size
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    for kind in ("train", "frozen"):
        method = LdifsConfig(batch_norm=kind)
        model = tune(backbone, 3, method, 0)
        objective = Ldifs(model, load_once("digits", 24, 10), backbone, method, "cpu").train()
        before = {name: part.clone() for name, part in model.named_buffers()}
        penalty = objective(images, torch.tensor([0, 1, 2, 0]))["penalty"].item()
        changed = [name for name, part in model.named_buffers() if not torch.equal(part, before[name])]
        assert bool(changed) == (penalty > 0) == (kind == "train")
        # scales and shifts are trained either way
        assert any("bn" in name for name in model.trained_weights())


# --- dense snapshots


def test_snapshots_evenly_spaced() -> None:
    config = SnapshotsConfig(evenly=4)
    assert snapshot_steps(config, 20, 3) == [0, 5, 10, 15, 20]
    assert snapshot_steps(config, 10, 3) == [0, 2, 5, 8, 10]
    # no more than there are steps
    assert snapshot_steps(SnapshotsConfig(evenly=100), 3, 3) == [0, 1, 2, 3]
    # steps are known although those of an epoch are not
    known = load_config(["task=eurosat", "finetune.epochs=10", "finetune.max_steps=10", "snapshots.evenly=5"])
    assert plan_steps(known) == (10, [0, 2, 4, 6, 8, 10])


def test_a_plan_shows_the_disk_of_snapshots() -> None:
    run = PlannedRun("one", False, 10, 101, 5, 0, 0, 3 * 2**30, snapshots=2 * 2**30)
    assert "disk for snapshots alone: 2.1 GB" in format_runs([run])
