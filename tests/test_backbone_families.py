"""Every family of networks: tokens against blocks applied by hand, image sizes, fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from made_backbones import FAMILIES, add_tiny_resnet, add_tiny_vit, make_tiny_siglip, register_small
from made_weights import perturb
from torch import Tensor, nn
from torch.nn import functional

from harness.backbones.backbone import (
    Backbone,
    encoder_hash,
)
from harness.backbones.clip_backbone import load_clip
from harness.backbones.timm_backbone import load_timm
from harness.config.method import FullConfig
from harness.finetuning.methods.tuned import tune
from harness.finetuning.snapshots import (
    describe,
    read_snapshot,
    write_snapshot,
)
from harness.storage.errors import InputError

# two resolutions per family, both different from the native one
SIZES = {
    "vit": (32, 64),
    "vit_gap": (28, 56),
    "dinov2": (28, 56),
    "dinov2_reg": (28, 56),
    "dinov3": (32, 64),
    "siglip": (32, 64),
    "sam": (48, 96),
    "convnext": (64, 96),
    "resnet": (64, 96),
    "clip": (24, 60),
    "clip_resnet": (64, 96),
}
STAGED = {"convnext": (4, 8, 16, 32), "resnet": (2, 4, 8, 16, 32), "clip_resnet": (4, 4, 8, 16, 32)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("open_clip")


def make(family: str, size: int, folder: Path) -> Backbone:
    if family == "siglip":
        backbone = make_tiny_siglip(folder, image_size=size, text=False)
    elif family == "clip":
        backbone = load_clip(add_tiny_vit(folder, 48), None, 0, image_size=size, text=False)
    elif family == "clip_resnet":
        backbone = load_clip(add_tiny_resnet(folder), None, 0, image_size=size, text=False)
    else:
        backbone = load_timm(register_small(family), None, 0, image_size=size)
    perturb(backbone)
    return backbone.eval()


def images_of(backbone: Backbone, n_images: int = 2) -> Tensor:
    size = backbone.preprocessing.size
    return torch.randn(n_images, 3, size, size, generator=torch.Generator().manual_seed(1))


# forward pass of each family: every layer's places [n, height, width, c] and class token


def patches(images: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Map every patch linearly, [n, height, width, c]."""
    edge = convolution.kernel_size[0]
    cut = images.unfold(2, edge, edge).unfold(3, edge, edge).permute(0, 2, 3, 1, 4, 5).flatten(3)
    return functional.linear(cut, convolution.weight.flatten(1), convolution.bias)


def run_blocks(places: Tensor, prefix: list[Tensor], blocks: Any, **options: Any) -> list[Any]:
    n_images, height, width, _ = places.shape
    x = torch.cat([*(token.expand(n_images, -1, -1) for token in prefix), places.flatten(1, 2)], dim=1)
    layers, n_prefix = [], sum(token.shape[1] for token in prefix)
    for block in blocks:
        x = block(x, **options)
        layers.append((x[:, n_prefix:].unflatten(1, (height, width)), x[:, 0] if prefix else None))
    return layers


def by_hand_vit(vit: Any, images: Tensor) -> list[Any]:
    places = patches(images, vit.patch_embed.proj)
    height, width = places.shape[1:3]
    own = vit.pos_embed[:, 1:].unflatten(1, (height, width))
    return run_blocks(places + own, [vit.cls_token + vit.pos_embed[:, :1]], vit.blocks)


def by_hand_vit_gap(vit: Any, images: Tensor) -> list[Any]:
    places = patches(images, vit.patch_embed.proj)
    return run_blocks(places + vit.pos_embed.unflatten(1, places.shape[1:3]), [], vit.blocks)


def by_hand_dinov2_reg(vit: Any, images: Tensor) -> list[Any]:
    places = patches(images, vit.patch_embed.proj)
    own = vit.pos_embed.unflatten(1, places.shape[1:3])
    return run_blocks(places + own, [vit.cls_token, vit.reg_token], vit.blocks)


def by_hand_dinov3(vit: Any, images: Tensor) -> list[Any]:
    places = patches(images, vit.patch_embed.proj)
    rope = vit.rope.get_embed(tuple(places.shape[1:3]))
    return run_blocks(places, [vit.cls_token, vit.reg_token], vit.blocks, rope=rope)


def by_hand_siglip(tower: Any, images: Tensor) -> list[Any]:
    return by_hand_vit_gap(tower.trunk, images)


def by_hand_sam(vit: Any, images: Tensor) -> list[Any]:
    x = patches(images, vit.patch_embed.proj)
    own = functional.interpolate(
        vit.pos_embed.permute(0, 3, 1, 2), tuple(x.shape[1:3]), mode="bicubic", antialias=True
    )
    x = x + own.permute(0, 2, 3, 1)
    layers = []
    for block in vit.blocks:
        x = block(x)
        layers.append((x, None))
    return layers


def by_hand_clip(vit: Any, images: Tensor) -> list[Any]:
    places = patches(images, vit.conv1)
    own = vit.positional_embedding
    places = vit.ln_pre(places + own[1:].unflatten(0, places.shape[1:3]))
    class_token = vit.ln_pre(vit.class_embedding + own[0])[None, None]
    return run_blocks(places, [class_token], vit.transformer.resblocks)


def by_hand_stages(x: Tensor, stages: list[Any]) -> list[Any]:
    layers = []
    for stage in stages:
        x = stage(x)
        layers.append((x.permute(0, 2, 3, 1), None))
    return layers


def by_hand_convnext(network: Any, images: Tensor) -> list[Any]:
    return by_hand_stages(network.stem(images), list(network.stages))


def by_hand_resnet(network: Any, images: Tensor) -> list[Any]:
    def stem(x: Tensor) -> Tensor:
        return functional.relu(network.bn1(network.conv1(x)))

    def first(x: Tensor) -> Tensor:
        return network.layer1(functional.max_pool2d(x, 3, 2, 1))

    return by_hand_stages(images, [stem, first, network.layer2, network.layer3, network.layer4])


def by_hand_clip_resnet(network: Any, images: Tensor) -> list[Any]:
    def stem(x: Tensor) -> Tensor:
        for number in (1, 2, 3):
            convolution, norm = getattr(network, f"conv{number}"), getattr(network, f"bn{number}")
            x = functional.relu(norm(convolution(x)))
        return functional.avg_pool2d(x, 2)

    return by_hand_stages(images, [stem, network.layer1, network.layer2, network.layer3, network.layer4])


BY_HAND = {
    "vit": by_hand_vit,
    "vit_gap": by_hand_vit_gap,
    "dinov2": by_hand_vit,
    "dinov2_reg": by_hand_dinov2_reg,
    "dinov3": by_hand_dinov3,
    "siglip": by_hand_siglip,
    "sam": by_hand_sam,
    "convnext": by_hand_convnext,
    "resnet": by_hand_resnet,
    "clip": by_hand_clip,
    "clip_resnet": by_hand_clip_resnet,
}


def test_every_family_is_tried() -> None:
    assert BY_HAND.keys() == SIZES.keys() == FAMILIES.keys() | {"clip", "clip_resnet"}


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("family", SIZES)
@torch.no_grad()
def test_tokens(family: str, which: int, folder: Path) -> None:
    backbone = make(family, SIZES[family][which], folder)
    images = images_of(backbone)
    local, global_ = backbone.tokens(images)
    expected = BY_HAND[family](backbone.encoder, images)
    assert len(local) == len(global_) == len(backbone.layers) == len(backbone.widths) == len(expected)
    for grid, token, (places, class_token) in zip(local, global_, expected, strict=True):
        torch.testing.assert_close(grid, places.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5)
        mean = places.mean(dim=(1, 2))
        torch.testing.assert_close(token, mean if class_token is None else class_token, rtol=1e-4, atol=1e-5)
        if class_token is not None:
            assert (token - mean).abs().max() > 1e-3  # a mix-up would be noticed
    assert tuple(grid.shape[1] for grid in local) == backbone.widths
    strides = STAGED.get(family)
    if strides is not None:
        assert [grid.shape[2] for grid in local] == [images.shape[2] // stride for stride in strides]


@pytest.mark.parametrize("family", SIZES)
def test_fine_tuning_and_snapshots(family: str, folder: Path, tmp_path: Path) -> None:
    backbone = make(family, SIZES[family][0], folder)
    images = images_of(backbone, 3)
    assert backbone(images).shape == (3, backbone.n_features)
    pretrained = encoder_hash(backbone)
    model = tune(backbone, 4, FullConfig(), 0).train()
    nn.init.normal_(model.head.weight)  # zero-initialised, it would pass no gradient back
    loss = functional.cross_entropy(model(images), torch.tensor([0, 1, 2]))
    loss.backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not idle  # in distributed training, processes would wait for their gradients for ever
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    write_snapshot(tmp_path / "step", model, describe(model, 1, "full", pretrained, {**backbone.flags}))
    read = tune(backbone, 4, FullConfig(), 0)
    read_snapshot(tmp_path / "step", read, pretrained)
    one, other = model.merged_backbone(), read.merged_backbone()
    with torch.no_grad():
        assert torch.equal(one(images), other(images))
        assert not torch.allclose(one(images), backbone(images), atol=1e-4)
        assert all(map(torch.equal, one.tokens(images)[0], other.tokens(images)[0]))


# image sizes


def test_layers_are_named_as_the_library_names_them(folder: Path) -> None:
    named = {
        family: make(family, SIZES[family][0], folder).layers for family in ("vit", "resnet", "clip_resnet")
    }
    assert named["vit"] == ("blocks.0", "blocks.1")
    assert named["resnet"] == ("act1", "layer1", "layer2", "layer3", "layer4")
    assert named["clip_resnet"] == ("stem", "layer1", "layer2", "layer3", "layer4")


@pytest.mark.parametrize(("family", "multiple"), [("vit", 16), ("dinov2", 14), ("sam", 16), ("siglip", 16)])
def test_an_image_size_that_patches_do_not_fill(family: str, multiple: int, folder: Path) -> None:
    with pytest.raises(
        InputError, match=rf"^backbone.image_size: found 50, expected a multiple of {multiple}"
    ):
        make(family, 50, folder)
    with pytest.raises(InputError, match=r"^backbone.image_size: found 50, expected a multiple of 12"):
        make("clip", 50, folder)


def test_an_image_size_that_a_network_cannot_take() -> None:
    with pytest.raises(InputError, match=r"^backbone.image_size: found 256, expected 224"):
        load_timm("mixer_s32_224", None, 0, image_size=256)


def test_position_embeddings_are_resampled_not_drawn_anew() -> None:
    name = register_small("vit")
    whole, half = load_timm(name, None, 0), load_timm(name, None, 0, image_size=112)
    assert (whole.preprocessing.size, half.preprocessing.size) == (224, 112)
    own = whole.encoder.pos_embed[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    expected = functional.interpolate(own, (7, 7), mode="bicubic", antialias=True)
    torch.testing.assert_close(half.encoder.pos_embed[:, 1:], expected.flatten(2).mT)
    torch.testing.assert_close(half.encoder.pos_embed[:, :1], whole.encoder.pos_embed[:, :1])
