"""Backbones: their tokens, their preprocessing, their text tower."""

from __future__ import annotations

import math

import numpy as np
import open_clip
import pytest
import timm
import torch
from made_backbones import MINI, configuration, make_tiny_clip
from PIL import Image
from torch import Tensor, nn

from harness.backbones.backbone import (
    Backbone,
    Preprocessing,
    TextTower,
)
from harness.backbones.load import load_backbone
from harness.backbones.mini import (
    MEAN,
    STD,
)
from harness.backbones.timm_backbone import (
    TimmBackbone,
    load_timm,
)


def noise(size: int, n_images: int = 2) -> Tensor:
    return torch.randn(n_images, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def mini() -> Backbone:
    return load_timm(MINI, None, 0).eval()


@pytest.fixture(scope="module")
def mini_clip() -> Backbone:
    return load_backbone(configuration("open_clip", f"{MINI}_clip"))


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return make_tiny_clip(tmp_path_factory.mktemp("open_clip"), image_size=32)


def as_grid(tokens: Tensor) -> Tensor:
    """Reshape [n_images, places, n_channels] to [n_images, n_channels, height, width], row by row."""
    edge = math.isqrt(tokens.shape[1])
    return torch.stack([tokens[:, place] for place in range(edge * edge)], dim=-1).unflatten(-1, (edge, edge))


# tokens, against blocks applied by hand


def assert_tokens_of_vit(backbone: Backbone, vit: nn.Module, images: Tensor, global_is: str) -> None:
    local, global_ = backbone.tokens(images)
    assert len(local) == len(global_) == len(backbone.layers) == len(vit.blocks)
    x = vit.patch_embed(images)
    x = x.flatten(1, 2) if x.ndim == 4 else x
    edge, position = math.isqrt(x.shape[1]), vit.pos_embed
    prefix = [token.expand(len(x), -1, -1) for token in (vit.cls_token, vit.reg_token) if token is not None]
    if position.shape[1] == edge**2:
        x = torch.cat([*prefix, x + position], dim=1)
    else:
        x = torch.cat([*prefix, x], dim=1) + position
    n_prefix = x.shape[1] - edge**2
    x = vit.norm_pre(x)
    for block, grid, token in zip(vit.blocks, local, global_, strict=True):
        x = block(x)
        torch.testing.assert_close(grid, as_grid(x[:, n_prefix:]), rtol=1e-5, atol=1e-6)
        expected = x[:, 0] if global_is == "class token" else x[:, n_prefix:].mean(dim=1)
        torch.testing.assert_close(token, expected, rtol=1e-5, atol=1e-6)


def test_tokens_of_the_mini_vit(mini: Backbone) -> None:
    with torch.no_grad():
        assert_tokens_of_vit(mini, mini.encoder, noise(64), "class token")


def test_tokens_of_the_mini_vit_under_open_clip(mini_clip: Backbone) -> None:
    with torch.no_grad():
        assert_tokens_of_vit(mini_clip, mini_clip.encoder.trunk, noise(64), "class token")


VITS = {
    "test_vit": ({}, "class token"),
    "test_vit with registers": ({"class_token": True, "reg_tokens": 3}, "class token"),
    "test_vit without prefix": ({"class_token": False, "global_pool": "avg"}, "mean"),
    "test_vit2, one register and no class token": ({}, "mean"),
}


@pytest.mark.parametrize("name", VITS)
@torch.no_grad()
def test_tokens_of_timm_vits(name: str) -> None:
    options, global_is = VITS[name]
    torch.manual_seed(3)
    vit = timm.create_model(name.split()[0].rstrip(","), num_classes=0, **options).eval()
    for token in (vit.cls_token, vit.reg_token):
        if token is not None:
            nn.init.normal_(token)
    size = vit.pretrained_cfg["input_size"][-1]
    assert_tokens_of_vit(TimmBackbone(vit), vit, noise(size), global_is)


@torch.no_grad()
def test_tokens_of_open_clips_own_vit(tiny_clip: Backbone) -> None:
    images, vit = noise(32), tiny_clip.encoder
    local, global_ = tiny_clip.tokens(images)
    x = vit.conv1(images).flatten(2).mT
    x = torch.cat([vit.class_embedding.expand(2, 1, -1), x], dim=1) + vit.positional_embedding
    x = vit.ln_pre(x)
    assert len(local) == len(tiny_clip.layers) == 3
    for block, grid, token in zip(vit.transformer.resblocks, local, global_, strict=True):
        x = block(x)
        torch.testing.assert_close(grid, as_grid(x[:, 1:]), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(token, x[:, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tiny_clip(images), vit.ln_post(x)[:, 0] @ vit.proj, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet", "test_mambaout"])
@torch.no_grad()
def test_networks_without_tokens(name: str) -> None:
    backbone = load_timm(name, None, 0).eval()
    images = noise(96, 1)
    local, global_ = backbone.tokens(images)
    assert len(local) == len(global_) == len(backbone.layers)
    for grid, token in zip(local, global_, strict=True):
        torch.testing.assert_close(token, grid.mean(dim=(2, 3)))
    assert backbone(images).shape == (1, backbone.n_features)


def test_features_wider_than_the_last_layer() -> None:
    backbone = load_timm("mobilenetv4_conv_small_035", None, 0).eval()
    with torch.no_grad():
        assert backbone(noise(64, 1)).shape == (1, backbone.n_features)


# preprocessing


def test_preprocessing_by_hand() -> None:
    grey = Image.new("L", (20, 20), 51)
    colour = Image.new("RGB", (40, 20), (255, 0, 51))
    seen = Preprocessing(8, (0.5, 0.5, 0.0), (0.25, 0.5, 0.1))([grey, colour])
    assert seen.shape == (2, 3, 8, 8) and seen.dtype == torch.float32
    torch.testing.assert_close(seen[0, :, 3, 4], torch.tensor([-1.2, -0.6, 2.0]))
    torch.testing.assert_close(seen[1, :, 0, 7], torch.tensor([2.0, -1.0, 2.0]))


def test_the_crop_is_central() -> None:
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[16:48, 16:48] = 255
    seen = Preprocessing(32, (0.0,) * 3, (1.0,) * 3, "bilinear", crop_pct=0.5)([Image.fromarray(pixels)])
    assert seen.mean() > 0.95
    whole = Preprocessing(32, (0.0,) * 3, (1.0,) * 3, "bilinear", crop_pct=1.0)([Image.fromarray(pixels)])
    assert whole.mean() == pytest.approx(0.25, abs=0.02)


def test_every_backbone_remembers_its_own_preprocessing(
    mini: Backbone, mini_clip: Backbone, tiny_clip: Backbone
) -> None:
    assert mini.preprocessing == mini_clip.preprocessing == Preprocessing(64, MEAN, STD)
    assert tiny_clip.preprocessing.size == 32
    assert tiny_clip.preprocessing.mean == open_clip.OPENAI_DATASET_MEAN
    resnet = load_timm("test_resnet", None, 0).preprocessing
    assert (resnet.size, resnet.crop_pct) == (160, 0.95)


# the text tower


def test_text_embeddings_have_unit_length(mini_clip: Backbone) -> None:
    found = mini_clip.text.embed(["a red circle", "a blue star", "a red circle"])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(found[0], found[2])
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    assert not found.requires_grad
    assert found.shape[1] == mini_clip.n_features
    assert mini_clip.text.logit_scale == pytest.approx(1 / 0.07, rel=1e-4)


def test_the_zero_shot_head_is_the_mean_over_templates() -> None:
    class Angles(TextTower):
        logit_scale = 1.0

        def embed(self, texts: list[str]) -> Tensor:
            angle = torch.tensor([math.radians(float(text)) for text in texts])
            return torch.stack([angle.cos(), angle.sin()], dim=1)

    head = Angles().embed_classes(["1", "9"], ["{}0", "{}0", "{}30"])
    for row, angles in zip(head, ((10, 10, 130), (90, 90, 930)), strict=True):
        mean = np.exp(1j * np.radians(angles)).mean()
        torch.testing.assert_close(
            torch.view_as_complex(row), torch.tensor(mean / abs(mean)).to(torch.cfloat)
        )


def test_text_is_kept_while_the_encoder_changes(mini_clip: Backbone) -> None:
    names = [name for name, _ in mini_clip.named_parameters()]
    assert names and all(name.startswith("encoder.") for name in names)  # none from the text tower
    torch.testing.assert_close(mini_clip.text.embed(["a ring"]), mini_clip.text.embed(["a ring"]))
