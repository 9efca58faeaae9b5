from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_backbones import make_tiny_clip

from harness.backbones.backbone import Backbone
from harness.backbones.clip_backbone import load_clip
from harness.backbones.timm_backbone import load_timm
from harness.config.method import LdifsConfig
from harness.finetuning.methods.ldifs import (
    Ldifs,
    choose_layers,
    feature_distance,
)
from harness.finetuning.methods.tuned import tune
from harness.storage.errors import InputError
from tasks.load import load_task


def test_distance_by_hand() -> None:
    # one image, two tokens, two channels
    student = torch.tensor([[[3.0, 4.0], [0.0, 2.0]]])
    teacher = torch.tensor([[[5.0, 0.0], [0.0, 9.0]]])
    # (0.6, 0.8) against (1, 0), and the second token keeps its direction: (0.16 + 0.64 + 0) / 2
    assert feature_distance([student], [teacher]).item() == pytest.approx(0.4)
    # over tokens: (1, 0) against (1, 0), and (4, 2)/√20 against (0, 1)
    second = (4 / 20**0.5) ** 2 + (2 / 20**0.5 - 1) ** 2
    assert feature_distance([student], [teacher], "tokens").item() == pytest.approx(second / 2)
    # a mean over layers, whatever their size
    other = torch.ones(1, 5, 3)
    assert feature_distance([student, other], [teacher, other]).item() == pytest.approx(0.2)
    opposite = feature_distance([other], [-other]).item()
    assert opposite == pytest.approx(4)


def test_layers_at_each_quarter_are_those_of_the_paper() -> None:
    assert choose_layers(None, 12) == [2, 5, 8, 11]  # the outputs of blocks 3, 6, 9 and 12
    assert choose_layers(None, 24) == [5, 11, 17, 23]
    assert choose_layers(None, 4) == [0, 1, 2, 3]
    assert choose_layers(None, 2) == [0, 1]
    assert choose_layers((3, 0), 4) == [0, 3]
    with pytest.raises(InputError, match=r"method.layers: found 4, expected 0 to 3"):
        choose_layers((0, 4), 4)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backbone]:
    folder: Path = tmp_path_factory.mktemp("open_clip")
    return {
        "mini_clip": load_clip("palimpsest_mini_clip", None, 0).eval(),
        "tiny_clip": make_tiny_clip(folder, image_size=64),
        "vit": load_timm("test_vit", None, 0).eval(),
        "convnext": load_timm("test_convnext", None, 0).eval(),
    }


@pytest.mark.parametrize("name", ["mini_clip", "tiny_clip", "vit", "convnext"])
def test_zero_at_the_start_and_the_distance_of_all_tokens_afterwards(
    backbones: dict[str, Backbone], name: str
) -> None:
    backbone = backbones[name]
    method = LdifsConfig(layers=(1, 2), frozen_blocks=1)
    model = tune(backbone, 3, method, 0).train()
    objective = Ldifs(model, load_task("counts", 3, 1), backbone, method, "cpu").train()
    size = backbone.preprocessing.size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 2])
    terms = objective(images, labels)
    assert terms["penalty"].item() == 0
    sum(terms.values()).backward()
    assert not any(part.grad.abs().max() > 0 for part in model.backbone.parameters() if part.grad is not None)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
        terms = objective(images, labels)
        expected = []
        for layer in (1, 2):
            unit = []
            for network in (model.backbone, backbone):
                local, global_ = network.tokens(images)
                tokens = [
                    local[layer][:, :, y, x]
                    for y in range(local[layer].shape[2])
                    for x in range(local[layer].shape[3])
                ]
                stacked = torch.stack([global_[layer], *tokens])
                unit.append(stacked / stacked.norm(dim=-1, keepdim=True))
            expected.append((unit[0] - unit[1]).square().sum(-1).mean())
    assert terms["penalty"].item() == pytest.approx(10 * float(sum(expected)) / 2, rel=1e-3)
    assert terms["penalty"].item() > 1e-4


@pytest.mark.parametrize("name", ["mini_clip", "tiny_clip", "vit", "convnext"])
def test_features_and_tokens_of_one_pass_are_those_of_two(backbones: dict[str, Backbone], name: str) -> None:
    backbone = backbones[name]
    size = backbone.preprocessing.size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features, (local, global_) = backbone.features_and_tokens(images)
        torch.testing.assert_close(features, backbone(images), rtol=1e-5, atol=1e-5)
        for one, other in zip((local, global_), backbone.tokens(images), strict=True):
            for layer, same in zip(one, other, strict=True):
                torch.testing.assert_close(layer, same, rtol=1e-5, atol=1e-5)
