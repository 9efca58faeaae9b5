from __future__ import annotations

import math

import pytest
import torch

from harness.backbones.timm_backbone import load_timm
from harness.config.method import (
    L2SpConfig,
    L2SpLdifsConfig,
)
from harness.finetuning.methods.l2_sp import (
    L2Sp,
    squared_distance,
)
from harness.finetuning.methods.tuned import tune
from tasks.load import load_task


def test_distance_by_hand() -> None:
    start = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[0.0]]), "fixed": torch.tensor([7.0])}
    weights = {"a": torch.tensor([1.0, 4.0], requires_grad=True), "b": torch.tensor([[3.0]])}
    distance = squared_distance(weights, start)
    assert distance.item() == 4 + 9
    distance.backward()
    assert weights["a"].grad.tolist() == [0, 4]
    assert squared_distance(start, start).item() == 0


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # every backbone weight moved by 0.1, every head parameter by 0.2
        (L2SpConfig(), {"penalty": 0.1 / 2 * 0.01, "head_penalty": 0.01 / 2 * 0.04}),
        (L2SpLdifsConfig(), {"penalty": 0.5 * 0.01}),
    ],
)
def test_both_conventions(method: L2SpConfig | L2SpLdifsConfig, expected: dict[str, float]) -> None:
    backbone = load_timm("test_vit", None, 0).eval()
    model = tune(backbone, 3, method, 0)
    objective = L2Sp(model, load_task("counts", 3, 1), backbone, method, "cpu")
    images, labels = torch.zeros(1, 3, 160, 160), torch.tensor([0])
    terms = objective(images, labels)
    assert {name: terms[name].item() for name in expected} == dict.fromkeys(expected, 0)
    assert terms.keys() == {"task_loss", *expected}
    assert terms["task_loss"].item() == pytest.approx(math.log(3))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += 0.2 if name.startswith("head.") else 0.1
    terms = objective(images, labels)
    n_weights = sum(part.numel() for part in backbone.encoder.parameters())
    n_head = 3 * 64 + 3
    sizes = {"penalty": n_weights, "head_penalty": n_head}
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value * sizes[name], rel=1e-4)
