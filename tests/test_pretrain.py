from __future__ import annotations

import json
import math
import re
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from harness.backbones.load import load_backbone
from harness.commands import pretrain as command
from harness.config.backbone import BackboneConfig
from harness.finetuning import pretraining as pretrain
from harness.finetuning.pretraining import (
    FACTORS,
    Muon,
    PretrainConfig,
    batches,
    factor_loss,
    learning_rate,
    open_images,
    sample_world,
    score,
    to_input,
)
from harness.storage.errors import (
    InputError,
    exit_with_one_line,
)
from harness.storage.files import (
    content_hash,
    read_json,
    read_weights,
)
from tasks.shapes import (
    is_novel,
    label_scenes,
    render_scenes,
    sample_scenes,
)


def tiny(folder: Path, **changes: object) -> PretrainConfig:
    settings = {
        "objective": "supervised",
        "images_seen": 64,
        "n_scenes": 32,
        "n_validation": 4,
        "batch_size": 8,
        "warmup_images": 8,
        "validate_every": 4,
        "checkpoint_every": 3,
        "folder": folder,
    }
    return PretrainConfig(**(settings | changes))


# order of images


def test_every_scene_is_seen_once_an_epoch(tmp_path: Path) -> None:
    steps = list(batches(tiny(tmp_path, images_seen=96), 0))
    assert [epoch for epoch, _ in steps] == [0] * 4 + [1] * 4 + [2] * 4
    epochs = [np.concatenate([indices for _, indices in steps[start : start + 4]]) for start in (0, 4, 8)]
    for seen in epochs:
        np.testing.assert_array_equal(np.sort(seen), np.arange(32))
    assert not np.array_equal(epochs[0], epochs[1])


def test_an_incomplete_batch_is_left_out(tmp_path: Path) -> None:
    steps = list(batches(tiny(tmp_path, n_scenes=30, images_seen=52), 0))
    assert [epoch for epoch, _ in steps] == [0, 0, 0, 1, 1, 1]
    assert {len(indices) for _, indices in steps} == {8}


def test_batches_are_a_function_of_the_seed(tmp_path: Path) -> None:
    def indices(start: int, seed: int = 0) -> list[list[int]]:
        return [part.tolist() for _, part in batches(tiny(tmp_path, seed=seed), start)]

    assert indices(0) == indices(0) != indices(0, seed=1)
    assert indices(5) == indices(0)[5:]
    objectives = [tiny(tmp_path, objective=name) for name in ("supervised", "contrastive")]
    first, second = ([part.tolist() for _, part in islice(batches(each, 0), 3)] for each in objectives)
    assert first == second


def test_the_world_holds_no_novel_combination() -> None:
    scenes = sample_world(0, 80)
    assert not any(is_novel(item.shape, item.colour, item.texture) for s in scenes for item in s.objects)
    assert np.bincount([len(scene.objects) for scene in scenes]).tolist() == [0, 40, 20, 20]


def test_images_are_rendered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = sample_scenes(0, range(5))
    path = tmp_path / "world.npy"
    first = open_images(scenes, path, show=False)
    np.testing.assert_array_equal(first, render_scenes(scenes))
    monkeypatch.setattr(pretrain, "render_scenes", None)
    np.testing.assert_array_equal(open_images(scenes, path, show=False), first)
    assert [part.name for part in tmp_path.iterdir()] == ["world.npy"]


# optimization


def test_inputs_are_what_the_backbone_was_given() -> None:
    scenes = sample_scenes(0, range(3))
    pixels = render_scenes(scenes)
    config = BackboneConfig(name="mini", library="timm", model="palimpsest_mini", objective="none")
    seen = load_backbone(config).preprocessing([Image.fromarray(image) for image in pixels])
    torch.testing.assert_close(to_input(pixels), seen)


def test_the_loss_is_the_sum_over_factors() -> None:
    labels = label_scenes(sample_scenes(0, range(6)))
    n_logits = sum(FACTORS.values())
    untrained = factor_loss(torch.zeros(6, n_logits), labels)
    assert untrained.item() == pytest.approx(sum(math.log(size) for size in FACTORS.values()), rel=1e-6)
    perfect = torch.cat(
        [50.0 * torch.eye(size)[torch.from_numpy(labels[name])] for name, size in FACTORS.items()], dim=1
    )
    assert factor_loss(perfect, labels).item() == pytest.approx(0, abs=1e-5)


def test_the_learning_rate_warms_up_stays_and_cools_down(tmp_path: Path) -> None:
    config = tiny(tmp_path, images_seen=800, batch_size=8, warmup_images=40, cooldown_fraction=0.25)
    rates = [learning_rate(config, step) for step in range(101)]
    assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    assert set(rates[5:76]) == {1.0}
    assert rates[76:] == pytest.approx([1 - place / 25 for place in range(1, 26)])


@pytest.mark.parametrize("shape", [(6, 6), (4, 12), (12, 4)])
def test_muon_takes_steps_of_one_size_in_all_directions(shape: tuple[int, int]) -> None:
    weight = nn.Parameter(torch.zeros(shape))
    generator = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    stretch = torch.linspace(0.5, 2, min(shape))
    weight.grad = u @ torch.diag(stretch) @ v
    Muon([weight], lr=0.1, weight_decay=0.0).step()
    taken = -weight.detach() / (0.1 * 0.2 * max(shape) ** 0.5)
    along = torch.diag(u.mT @ taken @ v.mT)
    torch.testing.assert_close(taken, u @ torch.diag(along) @ v, rtol=0, atol=1e-3)
    assert along.min() > 0.6 and along.max() < 1.3  # the iteration's accuracy, see Jordan et al.


def test_muon_decays_weights_and_keeps_an_average() -> None:
    weight = nn.Parameter(torch.eye(3))
    optimizer = Muon([weight], lr=0.1, weight_decay=0.5)
    weight.grad = torch.zeros(3, 3)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), 0.95 * torch.eye(3))
    weight.grad = torch.ones(3, 3)
    optimizer.step()
    torch.testing.assert_close(optimizer.state[weight]["average"], torch.full((3, 3), 0.05))


def test_scores_are_shares_of_right_answers(tmp_path: Path) -> None:
    scenes = sample_scenes(0, range(8))
    labels = label_scenes(scenes)

    class Oracle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = nn.Parameter(torch.zeros(()))

        def forward(self, images: Tensor) -> Tensor:
            parts = [torch.eye(size)[torch.from_numpy(labels[name])] for name, size in FACTORS.items()]
            return torch.cat(parts, dim=1)

    wrong = {name: part.copy() for name, part in labels.items()}
    wrong["shape"][:2] = (wrong["shape"][:2] + 1) % 12
    oracle = Oracle().train()
    assert score(oracle, tiny(tmp_path), render_scenes(scenes), labels) == dict.fromkeys(FACTORS, 1.0)
    assert score(oracle, tiny(tmp_path), render_scenes(scenes), wrong)["shape"] == 0.75
    assert oracle.training


# whole runs


@pytest.mark.parametrize(
    ("objective", "name", "loss"),
    [("supervised", "mini_supervised", "factor_loss"), ("contrastive", "mini_clip", "caption_scene")],
)
def test_a_resumed_pretraining_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str, name: str, loss: str
) -> None:
    shipped = sorted(path.stat().st_mtime_ns for path in pretrain.WEIGHTS.iterdir())
    config = tiny(tmp_path / "straight", objective=objective)
    pretrain.pretrain(config, "the command", tmp_path / "straight")

    original, calls = getattr(pretrain, loss), []

    def stop(*arguments: object) -> object:
        calls.append(None)
        if len(calls) > {"factor_loss": 5, "caption_scene": 5 * 8}[loss]:
            raise KeyboardInterrupt
        return original(*arguments)

    config = tiny(tmp_path / "stopped", objective=objective)
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, loss, stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain.pretrain(config, "the command", tmp_path / "stopped")
    (checkpoint,) = (tmp_path / "stopped").glob("*/checkpoints/*")
    assert checkpoint.name == "step-00000003"
    assert {path.suffix for path in checkpoint.iterdir()} == {".safetensors", ".json"}  # no pickles
    torch.manual_seed(99)  # the earlier random state must not matter
    pretrain.pretrain(config, "the command", tmp_path / "stopped")

    straight, resumed = (tmp_path / folder / f"{name}.safetensors" for folder in ("straight", "stopped"))
    expected, found = read_weights(straight), read_weights(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    one, other = (read_json(path.with_suffix(".json")) for path in (straight, resumed))
    assert one == other
    assert one["weights_hash"] == content_hash(expected)
    assert one["images_seen"] == 64 and one["command"] == "the command"
    assert one["scores"].keys() == {"novel", "seen"}
    assert shipped == sorted(path.stat().st_mtime_ns for path in pretrain.WEIGHTS.iterdir())

    # a study can read the written weights
    library, model = ("timm", "") if objective == "supervised" else ("open_clip", "_clip")
    settings = BackboneConfig(
        name=name,
        library=library,
        model=f"palimpsest_mini{model}",
        checkpoint=str(resumed),
        objective=objective,
    )
    encoder = load_backbone(settings).encoder.state_dict()
    prefix = "" if objective == "supervised" else "visual."
    assert all(torch.equal(part, found[prefix + key].float()) for key, part in encoder.items())
    lines = (tmp_path / "straight").glob("*/validation.jsonl")
    (log,) = [path.read_text().splitlines() for path in lines]
    assert [json.loads(line)["images_seen"] for line in log] == [32, 64]


def test_pretraining_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    original = pretrain.factor_loss

    def watch(logits: Tensor, labels: dict[str, np.ndarray]) -> Tensor:
        loss = original(logits, labels)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(pretrain, "factor_loss", watch)
    pretrain.pretrain(tiny(tmp_path, n_scenes=8, images_seen=96), "the command", tmp_path)
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < 0.75 * np.mean(losses[:2])


def test_a_loss_that_is_not_finite_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(logits: Tensor, labels: dict[str, np.ndarray]) -> Tensor:
        return logits.sum() * math.inf

    monkeypatch.setattr(pretrain, "factor_loss", explode)
    with pytest.raises(InputError, match=r"diverged at step 0: the loss is .*; lower lr=0.002"):
        pretrain.pretrain(tiny(tmp_path), "the command", tmp_path)


# the command line


def test_arguments_become_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    # on the package, whose interface keeps what it has resolved
    monkeypatch.setattr("harness.finetuning.pretrain", lambda *arguments: seen.append(arguments))
    monkeypatch.setattr(sys, "argv", ["pretrain.py", "objective=contrastive", "lr=1e-3", "seed=4"])
    command.main()
    ((config, written),) = seen
    assert (config.objective, config.lr, config.seed) == ("contrastive", 1e-3, 4)
    assert written == "palimpsest pretrain objective=contrastive lr=1e-3 seed=4"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "error: objective: Field required"),
        (["objective=guess"], "error: objective: .*'supervised'.*got 'guess'"),
        (["objective=supervised", "lr=-1"], "error: lr: .*greater than 0, got -1"),
        (["objective=supervised", "colour=red"], "error: colour: Extra inputs are not permitted, got 'red'"),
    ],
)
def test_a_wrong_setting_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["pretrain.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        exit_with_one_line(command.main)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(problem, line)
