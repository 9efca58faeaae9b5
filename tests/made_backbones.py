"""Backbones that tests ask for by configuration, or that are made small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip

from harness.backbones import Backbone
from harness.backbones.clip_backbone import load_clip
from harness.sections import BackboneConfig

MINI = "palimpsest_mini"


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


def make_tiny_clip(folder: Path, image_size: int) -> Backbone:
    """open_clip's own ViT, very small: three blocks over 4 x 4 places.

    `folder` is where open_clip looks for the architecture from then on.
    """
    name = f"palimpsest_tiny_clip_{image_size}"
    vision = {
        "image_size": image_size,
        "patch_size": image_size // 4,
        "layers": 3,
        "width": 64,
        "head_width": 32,
    }
    text = {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    settings = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    (folder / f"{name}.json").write_text(json.dumps(settings))
    open_clip.add_model_config(folder)
    return load_clip(name, None, 0).eval()
