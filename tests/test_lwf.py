from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from harness.backbones.clip_backbone import load_clip
from harness.backbones.timm_backbone import load_timm
from harness.config.method import LwfConfig
from harness.finetuning.methods.lwf import (
    Lwf,
    distillation,
)
from harness.finetuning.methods.old_head import build_old_head
from harness.finetuning.methods.tuned import tune
from harness.tokens.extraction import extract_features
from tasks.load import load_task


def test_divergence_by_hand() -> None:
    # at temperature 2, logits 2 log 3 and 0 give 3/4 and 1/4
    before = torch.tensor([[2 * math.log(3), 0.0], [1.0, 1.0]])
    now = torch.tensor([[0.0, 0.0], [5.0, 5.0]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert distillation(now, before, 2.0).item() == pytest.approx(expected / 2)  # none from the second image
    assert distillation(before, before, 2.0).item() == 0


def test_no_gradient_at_the_start_that_adam_would_follow() -> None:
    before = 20 * torch.randn(64, 12, generator=torch.Generator().manual_seed(0))
    now = before.clone().requires_grad_(True)
    distillation(now, before, 2.0).backward()
    assert now.grad.abs().max().item() < 1e-15


def test_a_text_head_stands_for_the_old_one_where_there_is_one() -> None:
    backbone, proxy = load_clip("palimpsest_mini_clip", None, 0).eval(), load_task("shapes", 6, 1, 0)
    head = build_old_head(backbone, backbone.text, proxy, "cpu")
    text = backbone.text
    images = backbone.preprocessing(proxy.train["image"])
    with torch.no_grad():
        features = functional.normalize(backbone(images), dim=1)
        expected = text.logit_scale * features @ text.embed_classes(proxy.class_names, proxy.templates).T
        torch.testing.assert_close(head(3 * backbone(images)), expected, rtol=1e-4, atol=1e-4)


def test_else_a_probe_that_knows_the_proxy() -> None:
    backbone = load_timm("test_vit", None, 0).eval()
    for proxy in (load_task("shapes", 30, 1, 0), load_task("counts", 30, 1, 0)):
        head = build_old_head(backbone, None, proxy, "cpu")
        again = build_old_head(backbone, None, proxy, "cpu")
        assert torch.equal(head.weight, again.weight) and torch.equal(head.bias, again.bias)
        assert head.weight.shape == (proxy.n_classes, 64)
        features = extract_features(backbone, proxy.train["image"], 30)
        labels = np.array(proxy.train["label"])
        accuracy = (head(features).argmax(1).numpy() == labels).mean()
        # random features of thirty images: above the most frequent class
        assert accuracy > np.bincount(labels).max() / 30


def test_the_answers_to_the_new_images_are_compared() -> None:
    backbone, proxy = load_timm("test_vit", None, 0).eval(), load_task("shapes", 12, 1, 0)
    method = LwfConfig(weight=3.0)
    model = tune(backbone, 4, method, 0).train()
    objective = Lwf(model, proxy, backbone, method, proxy, "cpu").train()
    images = torch.randn(5, 3, 160, 160, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(5) % 4
    assert objective(images, labels)["penalty"].item() == 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
        head = build_old_head(backbone, None, proxy, "cpu")
        p, q = (head(network(images)).div(2).softmax(1) for network in (backbone, model.backbone))
        expected = 3 * (p * (p / q).log()).sum(1).mean()
        assert objective(images, labels)["penalty"].item() == pytest.approx(expected.item(), rel=1e-3)
