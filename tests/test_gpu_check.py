"""The check for a GPU runs on a CPU, and FactorTopy's step on CUDA tensors without values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from gpu_check import PARTS, Check, main
from operations import Step, count_step, pretended
from torch import nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException

from harness.mappings.attention import Attention
from harness.mappings.free_selectors import FreeSelectors
from harness.tokens.frame import StandardTokens, TokenFrame, one_array


def run(output: Path, *parts: str, limit: float = 600) -> tuple[int, dict]:
    code = main(
        ["--device", "cpu", "--small", "--limit-s", str(limit), "--output", str(output), "--parts", *parts]
    )
    return code, json.loads(output.read_text())


@pytest.mark.parametrize("parts", [[name for name in PARTS if name != "resume"], ["resume"]], ids=len)
def test_everything_in_it_runs_on_a_cpu(parts: list[str], tmp_path: Path) -> None:
    code, report = run(tmp_path / "found.json", *parts)
    assert [part["failures"] for part in report["parts"].values()] == [[]] * len(parts)
    assert (code, report["failed"], list(report["parts"])) == (0, [], parts)
    assert all(part["compared"] > 0 for name, part in report["parts"].items() if name != "fit")
    shares = sum(part["share_of_limit"] for part in report["parts"].values())
    assert shares == pytest.approx(report["used_share_of_limit"], rel=0.1)


def test_a_part_that_fails_is_recorded_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(check: Check) -> None:
        check.compare("numbers", 1.02, 1.0, 0.01)
        raise ValueError("of no use")

    def passes(check: Check) -> None:
        check.compare("numbers", 1.02, 1.0, 0.03)

    monkeypatch.setitem(PARTS, "step", broken)
    monkeypatch.setitem(PARTS, "families", passes)
    code, report = run(tmp_path / "found.json", "step", "families")
    assert (code, report["failed"]) == (1, ["step"])
    differs, raised = report["parts"]["step"]["failures"]
    assert differs == {"what": "numbers", "difference": pytest.approx(0.02), "allowed": pytest.approx(0.01)}
    assert raised["traceback"].endswith("ValueError: of no use\n")
    assert report["parts"]["families"]["failures"] == []


def test_what_has_no_time_left_is_skipped(tmp_path: Path) -> None:
    _, report = run(tmp_path / "found.json", "step", "fit", limit=1e-9)
    assert {name: part["skipped"] for name, part in report["parts"].items()} == dict.fromkeys(
        ("step", "fit"), "the time limit is used up"
    )


@pytest.mark.parametrize("n_images", [2, 16])  # both orders of products
def test_a_step_in_tiles_stays_on_the_device(n_images: int) -> None:
    step = Step.build(300, 3, 8, 8, 16, n_images)
    with pretended() as move:
        assert step.on(move).loss("in tiles").device.type == "cuda"
    step = Step.build(300, 3, 8, 8, 16, n_images)
    with pretended("cpu") as move:
        step.on(move).loss("in tiles").backward()
    # cell by cell, the host reads how many voxels each cell has
    step = Step.build(300, 3, 8, 8, 16, n_images)
    with pretended() as move, pytest.raises(DynamicOutputShapeException):
        step.on(move).loss("by cell")


def test_a_step_in_tiles_takes_the_same_operations_whatever_the_voxels() -> None:
    few, many = (Step.build(n_voxels, 3, 8, 8, 16, 2) for n_voxels in (20, 2000))
    counts = {way: count_step(many, way).total() for way in ("by cell", "in tiles")}
    assert count_step(few, "in tiles").total() == counts["in tiles"] < counts["by cell"]
    assert count_step(few, "by cell").total() < counts["by cell"]


@pytest.mark.parametrize("family", ["factortopy", "free_selectors", "attention"])
def test_every_familys_step_mixes_no_devices(family: str) -> None:
    models: dict[str, nn.Module] = {
        "factortopy": Step.build(30, 3, 8, 4, 6, 2).model,
        "free_selectors": FreeSelectors(30, [8] * 3, 6),
        "attention": Attention(30, [8] * 3, 6, 16),
    }
    tokens = [torch.randn(3, 5, 8, 4, 4).half(), torch.randn(3, 5, 8).half()]
    rows, unit = torch.tensor([3, 0]), torch.ones(3)
    with pretended() as move:
        model, chosen, scale = move(models[family]), move(rows), move(unit)
        local, global_ = (tuple(move(part).unbind()) for part in tokens)
        centres = tuple(layer[0] for layer in global_)
        frame = TokenFrame(centres, scale, centres, scale)
        stored = StandardTokens(local, global_, ("a", "b", "c"), frame, torch.device("cuda"))
        taken = stored.take(chosen)
        assert one_array(taken.local) is not None
        selectors = model.selectors(slice(0, 20))
        found = model(taken.local, taken.global_, selectors, slice(0, 20))
        loss = found.square().mean() + model.regularizer(selectors)
    assert (found.shape, found.dtype, loss.device.type) == ((2, 20), torch.float32, "cuda")
