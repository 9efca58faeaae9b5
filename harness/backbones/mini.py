"""The mini architecture: one small ViT, registered with timm. `mini_clip` adds a text tower.

Both mini backbones and the untrained control are this network; they differ only in their objective.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.layers.hybrid_embed import HybridEmbed
from timm.layers.norm import GroupNorm1
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem
from torch import nn

from tasks import IMAGE_SIZE

MODEL_NAME = "palimpsest_mini"
# half grey, half range: close to the statistics of the shapes world
MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)


@register_model
def palimpsest_mini(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT of 8 blocks, width 128, patch 8 on 64×64, with a convolutional stem (Xiao et al. 2021).

    The stem has no batch statistics: a frozen backbone stays bit for bit the same in training mode, and
    data-parallel runs agree with single ones.
    """
    if pretrained:
        raise RuntimeError(f"{MODEL_NAME} has no hub weights; give weights= a local safetensors file")
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        kwargs.pop(name, None)
    stem = ConvStem(channels=(32, 64, 128), norm_layer=GroupNorm1, act_layer=nn.GELU)
    model: Any = VisionTransformer(
        img_size=IMAGE_SIZE,
        embed_layer=partial(HybridEmbed, backbone=stem, proj=False),
        patch_size=1,
        embed_dim=128,
        depth=8,
        num_heads=4,
        **kwargs,
    )
    model.default_cfg = model.pretrained_cfg = {
        "architecture": MODEL_NAME,
        "input_size": (3, IMAGE_SIZE, IMAGE_SIZE),
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "num_classes": model.num_classes,
        "classifier": "head",
    }
    return model
