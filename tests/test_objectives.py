"""Every method in the loop: its initial state, its files, and resuming."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_training import SMALL, train, train_until, values
from overrides import TINY

from harness.backbones.load import load_backbone
from harness.config.compose import load_config
from harness.finetuning.snapshots import read_manifest
from harness.runs.layout import snapshot_folder
from harness.storage.errors import InputError
from harness.storage.files import read_weights

PROXY = ["method.n_proxy=12"]
METHODS = {
    "lp_ft": [],
    "bitfit": [],
    "l2_sp": ["method.alpha=10", "method.beta=10"],
    "l2_sp_ldifs": ["method.alpha=10"],
    "ldifs": [],
    "ewc": ["method.weight=1e6", *PROXY],
    "lwf": PROXY,
    "flyp": [],
}
PENALISED = ("l2_sp", "l2_sp_ldifs", "ldifs", "ewc", "lwf")
CLIP = ["backbone=mini_clip", "finetune.max_steps=4"]


def overrides(method: str) -> list[str]:
    return [*(CLIP if method == "flyp" else SMALL), f"method={method}", *METHODS[method]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for method in METHODS:
        folders[method] = tmp_path_factory.mktemp(method)
        train(folders[method], *overrides(method))
    return folders


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return read_weights(snapshot_folder(folder, step) / "weights.safetensors")


@pytest.mark.parametrize("method", PENALISED)
def test_a_penalty_is_zero_at_the_start_and_part_of_the_loss(trained: dict[str, Path], method: str) -> None:
    rows = values(trained[method])
    assert rows["train/penalty", 1] == 0
    assert rows["train/loss", 1] == rows["train/task_loss", 1] == pytest.approx(2.302585, abs=1e-6)
    assert rows["train/penalty", 4] > 0
    terms = ("train/task_loss", "train/penalty", "train/head_penalty")
    total = sum(rows.get((name, 4), 0.0) for name in terms)
    assert rows["train/loss", 4] == pytest.approx(total)
    assert (("train/head_penalty", 1) in rows) == (method == "l2_sp")
    assert rows.get(("train/head_penalty", 1), 0) == 0


@pytest.mark.parametrize("method", PENALISED)
def test_the_first_step_leaves_the_backbone(trained: dict[str, Path], method: str) -> None:
    # the head is zero, so the task gives no gradient, nor does a penalty at its minimum
    before, after = weights(trained[method], 0), weights(trained[method], 1)
    for name in before:
        if not name.startswith("head."):
            torch.testing.assert_close(after[name], before[name], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_snapshot_has_what_may_change_and_no_more(trained: dict[str, Path], method: str) -> None:
    config = load_config([*TINY, *overrides(method)])
    backbone = load_backbone(config.backbone)
    encoder = {f"backbone.encoder.{name}" for name in backbone.encoder.state_dict()}
    head = {"head.weight", "head.bias"}
    for step in (0, 4):
        names = set(weights(trained[method], step))
        if method == "bitfit":
            assert names == head | {name for name in encoder if name.endswith(".bias")}
            size = (snapshot_folder(trained[method], step) / "weights.safetensors").stat().st_size
            assert size < 4 * sum(part.numel() for part in backbone.encoder.parameters()) / 10
        elif method == "flyp":
            assert encoder <= names and not names & head
            texts = {name for name in names if name.startswith("texts.encoder.model.")}
            assert names == encoder | texts
            assert "texts.encoder.model.logit_scale" in texts
            assert not any(".visual" in name for name in texts)
        else:
            assert names == encoder | head


@pytest.mark.parametrize("method", METHODS)
def test_stopped_training_ends_with_the_same_weights(
    trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    # a checkpoint at step 2; LP-FT starts its second stage there and must resume without one
    train_until(tmp_path, 4, monkeypatch, *overrides(method))
    assert [path.name for path in tmp_path.glob("checkpoints/*")] == (
        [] if method == "lp_ft" else ["step-00000002"]
    )
    train(tmp_path, *overrides(method))
    hashes = [
        read_manifest(snapshot_folder(folder, 4)).weights_hash for folder in (trained[method], tmp_path)
    ]
    assert hashes[0] == hashes[1]
    assert values(tmp_path) == values(trained[method])


def test_lp_ft_goes_on_in_either_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*SMALL, "method=lp_ft", "snapshots.resume_every=1", "finetune.max_steps=5"]
    train(tmp_path / "whole", *overrides)
    for stop in (2, 5):  # the probe has round(0.5 x 5) = 2 steps
        folder = tmp_path / f"stopped-{stop}"
        train_until(
            folder, stop, monkeypatch, *overrides, "snapshots.ratio=1.2"
        )  # snapshots at 1, 2, 3 and 5
        train(folder, *overrides)
        hashes = [
            read_manifest(snapshot_folder(path, 5)).weights_hash for path in (tmp_path / "whole", folder)
        ]
        assert hashes[0] == hashes[1]


def test_lp_ft_trains_the_head_first_and_then_everything_from_there(trained: dict[str, Path]) -> None:
    before, probed, after = (weights(trained["lp_ft"], step) for step in (0, 2, 4))
    assert {name for name in before if not torch.equal(before[name], probed[name])} == {
        "head.weight",
        "head.bias",
    }
    assert all(not torch.equal(probed[name], after[name]) for name in before)
    rows = values(trained["lp_ft"])
    rates = [rows["train/lr", step] for step in range(1, 5)]
    # two steps each along a cosine: from probe_lr, then from a tenth of finetune.lr
    assert rates == pytest.approx([1e-2, 5e-3, 1e-4, 5e-5])


@pytest.mark.parametrize("method", ["ldifs", "ewc"])
def test_accumulation_does_not_change_the_outcome(
    trained: dict[str, Path], tmp_path: Path, method: str
) -> None:
    train(tmp_path, *overrides(method), "finetune.accumulation=4")
    parts, whole = weights(tmp_path, 2), weights(trained[method], 2)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], atol=2e-4, rtol=1e-3)
    rows = [values(folder) for folder in (tmp_path, trained[method])]
    for name in ("train/loss", "train/penalty"):
        assert rows[0][name, 3] == pytest.approx(rows[1][name, 3], rel=1e-2)


def test_a_stronger_penalty_keeps_closer(trained: dict[str, Path], tmp_path: Path) -> None:
    train(tmp_path, *SMALL, "method=l2_sp", "method.alpha=0")

    def moved(folder: Path) -> float:
        before, after = weights(folder, 0), weights(folder, 4)
        return sum(
            (after[name] - before[name]).square().sum().item() for name in before if "backbone" in name
        )

    assert moved(trained["l2_sp"]) < moved(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=flyp"], "method: found flyp with a backbone without a text tower, expected .*mini_clip"),
        (
            ["method=flyp", "backbone=mini_clip", "finetune.accumulation=2"],
            "finetune.accumulation: found 2, expected 1: method flyp",
        ),
        (["method=ldifs", "method.layers=[0,8]"], "method.layers: found 8, expected 0 to 7"),
        (["method=full", "method.frozen_blocks=8"], "method.frozen_blocks: found 8, expected at most 7"),
        (["method=lwf", "method.proxy=shape"], "unknown task 'shape'.*did you mean 'shapes'"),
    ],
)
def test_what_does_not_go_together_ends_in_one_line(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        train(tmp_path, *overrides)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
