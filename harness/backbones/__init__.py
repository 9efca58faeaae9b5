"""Backbones by configuration."""

from __future__ import annotations

from pathlib import Path

from harness.backbones.backbone import Backbone, Preprocessing, TextTower
from harness.config import REPOSITORY
from harness.errors import InputError
from harness.sections import BackboneConfig

__all__ = ["Backbone", "Preprocessing", "TextTower", "load_backbone"]


def load_backbone(config: BackboneConfig) -> Backbone:
    """Load the pretrained backbone that a configuration names, in evaluation mode.

    Raises
    ------
    InputError
        For an unknown model or tag, a file that is missing or does not fit, or an unreachable hub.
    """
    weights: Path | str | None = config.weights
    if config.weights is not None and config.weights.endswith((".safetensors", ".bin", ".pt", ".pth")):
        weights = REPOSITORY / config.weights
        if weights.suffix != ".safetensors":
            raise InputError(
                f"backbone.weights: found {config.weights}, accepted: a .safetensors file or a hub tag"
            )
    # each library takes seconds to import
    if config.library == "timm":
        from harness.backbones.timm_backbone import load_timm

        return load_timm(config.model, weights, config.seed).eval()
    from harness.backbones.clip_backbone import load_clip

    return load_clip(config.model, weights, config.seed).eval()
