"""Small backbones, loaded by configuration or built directly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import timm
from timm.models import register_model

from harness.backbones.backbone import Backbone
from harness.backbones.clip_backbone import load_clip
from harness.config.backbone import BackboneConfig

MINI = "palimpsest_mini"

# one small network per timm family: two blocks, or one per stage
SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_base_patch16_224", SMALL),
    "vit_gap": ("vit_huge_patch14_gap_224", SMALL),
    "dinov2": ("vit_base_patch14_dinov2", SMALL),
    "dinov2_reg": ("vit_base_patch14_reg4_dinov2", SMALL),
    "dinov3": ("vit_base_patch16_dinov3", SMALL),
    "siglip": ("vit_base_patch16_siglip_224", SMALL),
    "sam": ("samvit_base_patch16", {**SMALL, "window_size": 2, "global_attn_indexes": (1,), "img_size": 64}),
    "convnext": ("convnext_tiny", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}),
    "resnet": ("resnet50", {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)}),
}


def configuration(
    library: str, model: str, weights: str | None = None, checkpoint: Path | None = None, **others: Any
) -> BackboneConfig:
    return BackboneConfig(
        name="tried",
        library=library,
        model=model,
        weights=weights,
        checkpoint=None if checkpoint is None else str(checkpoint),
        objective="none",
        **others,
    )


def register_small(family: str) -> str:
    """Register a family's small network with timm and return its name."""
    architecture, settings = FAMILIES[family]

    def make(pretrained: bool = False, **kwargs: Any) -> Any:
        for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
            kwargs.pop(name, None)
        return timm.create_model(architecture, **settings, **kwargs)

    make.__name__ = f"palimpsest_small_{family}"
    if not timm.is_model(make.__name__):
        register_model(make)
    return make.__name__


def make_tiny_clip(folder: Path, image_size: int, **options: Any) -> Backbone:
    """Make open_clip's own ViT, very small; options are those of `load_clip`."""
    return load_clip(add_tiny_vit(folder, image_size), None, 0, **options).eval()


def make_tiny_siglip(folder: Path, **options: Any) -> Backbone:
    """Make SigLIP as open_clip builds it: timm's network with attention pooling inside its wrapper."""
    return load_clip(add_tiny_siglip(folder), None, 0, **options).eval()


def add_tiny_vit(folder: Path, image_size: int) -> str:
    """Register a ViT of three blocks over 4 x 4 places with open_clip."""
    vision = {
        "image_size": image_size,
        "patch_size": image_size // 4,
        "layers": 3,
        "width": 64,
        "head_width": 32,
    }
    return add_tiny_clip(folder, f"palimpsest_tiny_clip_{image_size}", vision)


def add_tiny_resnet(folder: Path) -> str:
    """Register a ResNet with one block per stage with open_clip."""
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    return add_tiny_clip(folder, "palimpsest_tiny_rn", vision)


def add_tiny_siglip(folder: Path) -> str:
    """Register timm's small network with attention pooling with open_clip."""
    vision = {
        "image_size": 224,
        "timm_model_name": register_small("siglip"),
        "timm_pool": "map",
        "timm_proj": "none",
    }
    # with SigLIP in its name, open_clip would look for a tokenizer on the network
    return add_tiny_clip(folder, "palimpsest_tiny_sigmoid", vision, embed_dim=48, custom_text=True)


def add_tiny_clip(
    folder: Path,
    name: str,
    vision: dict[str, Any],
    embed_dim: int = 16,
    tokenizer: str | None = None,
    **more: Any,
) -> str:
    """Register an architecture with open_clip, which then looks for it in `folder`."""
    text: dict[str, Any] = {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    if tokenizer is not None:
        text["hf_tokenizer_name"] = tokenizer
    settings = {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text, **more}
    (folder / f"{name}.json").write_text(json.dumps(settings))
    open_clip.add_model_config(folder)
    return name
