"""The mini architecture: one small ViT, registered with timm. `mini_clip` adds a text tower.

Both mini backbones and the untrained control are this network; they differ only in their objective.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.layers.hybrid_embed import HybridEmbed
from timm.layers.norm import GroupNorm1
from timm.models import load_pretrained, register_model
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem
from torch import nn

from tasks import IMAGE_SIZE

MODEL_NAME = "palimpsest_mini"
# narrower networks of the same architecture, for families of backbones (benchmarks/claim_mini.py)
WIDTHS = (32, 64, 96, 128)
# half grey, half range: close to the statistics of the shapes world
MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)


def name_mini(width: int) -> str:
    """Return timm's name of the mini network of a width; `WIDTHS` lists the widths."""
    return MODEL_NAME if width == 128 else f"{MODEL_NAME}_{width}"


@register_model
def palimpsest_mini(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT of 8 blocks, width 128, patch 8 on 64×64, with a convolutional stem (Xiao et al. 2021).

    The stem has no batch statistics: a frozen backbone stays bit for bit the same in training mode, and
    data-parallel runs agree with single ones.
    """
    return _build(128, pretrained, **kwargs)


@register_model
def palimpsest_mini_96(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """`palimpsest_mini` of width 96: 1.0 M parameters."""
    return _build(96, pretrained, **kwargs)


@register_model
def palimpsest_mini_64(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """`palimpsest_mini` of width 64: 0.4 M parameters."""
    return _build(64, pretrained, **kwargs)


@register_model
def palimpsest_mini_32(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """`palimpsest_mini` of width 32: 0.1 M parameters."""
    return _build(32, pretrained, **kwargs)


def _build(width: int, pretrained: bool, **kwargs: Any) -> VisionTransformer:
    found, _, cache, _ = (
        kwargs.pop(name, None)
        for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "pretrained_model_args")
    )
    # settings of an exported folder (`palimpsest export --format huggingface`), on disk or at the hub
    exported = found if isinstance(found, dict) and found.get("source") else {}
    if pretrained and not exported:
        raise RuntimeError(f"{MODEL_NAME} has no hub weights; give weights= a local safetensors file")
    if exported:
        kwargs = {"num_classes": exported["num_classes"], **kwargs}
    stem = ConvStem(channels=(width // 4, width // 2, width), norm_layer=GroupNorm1, act_layer=nn.GELU)
    model: Any = VisionTransformer(
        img_size=kwargs.pop("img_size", IMAGE_SIZE),
        embed_layer=partial(HybridEmbed, backbone=stem, proj=False),
        patch_size=1,
        embed_dim=width,
        depth=8,
        num_heads=4,
        **kwargs,
    )
    model.default_cfg = model.pretrained_cfg = {
        # of every width: tells our files of weights from published formats
        "architecture": MODEL_NAME,
        "input_size": (3, IMAGE_SIZE, IMAGE_SIZE),
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "num_classes": model.num_classes,
        "classifier": "head",
        **exported,
    }
    if pretrained:
        load_pretrained(model, exported, num_classes=model.num_classes, cache_dir=cache)
    return model
