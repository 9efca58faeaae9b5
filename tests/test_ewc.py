from __future__ import annotations

import math

import pytest
import torch
from made_backbones import make_tiny_clip
from torch.nn import functional

from harness.backbones.backbone import Backbone
from harness.backbones.timm_backbone import load_timm
from harness.config.method import EwcConfig
from harness.finetuning.methods import ewc
from harness.finetuning.methods.ewc import (
    Ewc,
    ewc_penalty,
    fisher_diagonal,
    fisher_of,
)
from harness.finetuning.methods.old_head import build_old_head
from harness.finetuning.methods.tuned import tune
from tasks.load import load_task


def test_penalty_by_hand() -> None:
    start = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([5.0])}
    weights = {"a": torch.tensor([3.0, 1.0], requires_grad=True), "b": torch.tensor([5.5])}
    fisher = {"a": torch.tensor([0.5, 4.0]), "b": torch.tensor([8.0])}
    penalty = ewc_penalty(weights, start, fisher)
    assert penalty.item() == (0.5 * 4 + 4 * 1 + 8 * 0.25) / 2
    penalty.backward()
    assert weights["a"].grad.tolist() == [0.5 * 2, 4 * -1]
    assert ewc_penalty(start, start, fisher).item() == 0


def test_fisher_of_a_logistic_model_by_hand() -> None:
    # logits (w x, 0): ∂ log p(0)/∂w = (1 − p) x, ∂ log p(1)/∂w = −p x
    w, images = torch.tensor([0.7]), torch.tensor([[2.0], [-1.0], [0.5]])

    def answer(weights, x):
        return torch.stack([x[:, 0] * weights["w"], torch.zeros(len(x))], dim=1)

    generator = torch.Generator().manual_seed(3)
    n_copies = 4000
    found = fisher_diagonal(answer, {"w": w}, images.repeat(n_copies, 1), 500, generator)
    # averaged over classes drawn from the model itself: Σ p (1 − p) x² / n
    expected = 0.0
    for x in images[:, 0].tolist():
        p = 1 / (1 + math.exp(-0.7 * x))
        expected += p * (1 - p) * x * x / 3
    assert found["w"].item() == pytest.approx(expected, rel=0.03)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backbone]:
    return {
        "vit": load_timm("test_vit", None, 0).eval(),
        "tiny_clip": make_tiny_clip(tmp_path_factory.mktemp("open_clip"), image_size=64),
        "batch_norm": load_timm("test_resnet", None, 0).eval(),
    }


@pytest.mark.parametrize("name", ["vit", "tiny_clip", "batch_norm"])
def test_gradients_are_those_of_one_image_after_the_other(backbones: dict[str, Backbone], name: str) -> None:
    backbone, proxy = backbones[name], load_task("shapes", 6, 1, 0)
    before = {key: part.clone() for key, part in backbone.state_dict().items()}
    names = {key for key, _ in backbone.encoder.named_parameters()}
    found = fisher_of(backbone, names, proxy, EwcConfig(fisher_batch=4), "cpu", seed=5)
    again = fisher_of(backbone, names, proxy, EwcConfig(fisher_batch=4), "cpu", seed=5)
    assert found.keys() == names
    assert all(torch.equal(found[key], again[key]) for key in names)
    old_head = build_old_head(backbone, backbone.text, proxy, "cpu")
    generator = torch.Generator().manual_seed(5)
    images = backbone.preprocessing(proxy.train["image"])
    expected = {key: torch.zeros_like(part) for key, part in backbone.encoder.named_parameters()}
    backbone.requires_grad_(True)
    for start in (0, 4):
        batch = images[start : start + 4]
        with torch.no_grad():
            labels = torch.multinomial(old_head(backbone(batch)).softmax(1), 1, generator=generator)[:, 0]
        for image, label in zip(batch, labels, strict=True):
            backbone.zero_grad()
            functional.cross_entropy(old_head(backbone(image[None])), label[None]).backward()
            for key, part in backbone.encoder.named_parameters():
                expected[key] += part.grad.square() / 6
    backbone.requires_grad_(False)
    backbone.zero_grad()
    for key, part in expected.items():
        torch.testing.assert_close(found[key], part, rtol=2e-3, atol=1e-6 + 1e-4 * part.max().item())
    assert max(part.max().item() for part in found.values()) > 0
    assert all(torch.equal(before[key], part) for key, part in backbone.state_dict().items())


def test_only_what_is_trained_has_a_fisher_information(
    backbones: dict[str, Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def note(*arguments):
        made.append(fisher_of(*arguments))
        return made[-1]

    monkeypatch.setattr(ewc, "fisher_of", note)
    backbone, task = backbones["vit"], load_task("shapes", 4, 1, 0)
    method = EwcConfig(frozen_blocks=4, weight=2.0)
    model = tune(backbone, 3, method, 0)
    objective = Ewc(model, task, backbone, method, task, "cpu", 0)
    (fisher,) = made
    assert {name.split(".")[1] for name in fisher if name.startswith("blocks")} == {"4", "5"}
    images, labels = torch.zeros(2, 3, 160, 160), torch.tensor([0, 1])
    assert objective(images, labels)["penalty"].item() == 0
    with torch.no_grad():
        for weight in model.trained_weights().values():
            weight += 0.5
    expected = sum(part.sum().item() for part in fisher.values()) * 0.25
    assert objective(images, labels)["penalty"].item() == pytest.approx(expected, rel=1e-4)
