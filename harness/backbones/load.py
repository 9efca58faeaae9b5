"""Backbones by configuration."""

from __future__ import annotations

from typing import Any

from harness.backbones.backbone import (
    Backbone,
    Preprocessing,
    TextTower,
)
from harness.backbones.checkpoint_place import locate_checkpoint
from harness.config import (
    AnyBackboneConfig,
    BackboneConfig,
    DiffusionBackboneConfig,
    PythonBackboneConfig,
    check_tunable,
)
from harness.storage import InputError

__all__ = ["Backbone", "Preprocessing", "TextTower", "load_backbone", "load_open_clip"]

WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth", ".tar", ".ckpt", ".npz")


def load_backbone(config: AnyBackboneConfig, pretrained: bool = True) -> Backbone:
    """Load a configuration's backbone, in evaluation mode.

    Parameters
    ----------
    config : BackboneConfig, PythonBackboneConfig or DiffusionBackboneConfig
    pretrained : bool
        False: random weights, to be timed or counted. No file is read, and within ``torch.device("meta")``
        the network takes no memory (open_clip: only with `text` false). A user's own function runs as it is.
        Only plans of fine-tuning need this, so backbones that cannot be fine-tuned refuse it.

    Raises
    ------
    InputError
        For an unknown model or tag, a missing or unfit file, an image size that the network cannot take, an
        unreachable hub, or a library that is not installed; if a weight is NaN or infinite.
    """
    backbone = _load(config, pretrained)
    if pretrained:
        _check_finite(backbone, config)
    return backbone


def _check_finite(backbone: Backbone, config: AnyBackboneConfig) -> None:
    """Refuse weights of any source that no image can be run through; files are checked as they are read."""
    for name, parameter in backbone.named_parameters():
        if parameter.is_floating_point() and not parameter.isfinite().all():
            raise InputError(
                f"backbone: found NaN or infinity in {name} of {config.name} ({config.model}), expected "
                "finite weights"
            )


def _load(config: AnyBackboneConfig, pretrained: bool) -> Backbone:
    if isinstance(config, PythonBackboneConfig):
        from harness.backbones.python import load_python

        backbone = load_python(config)
        backbone.preprocessing = backbone.preprocessing.changed(config.preprocessing)
        return backbone.eval()
    if isinstance(config, DiffusionBackboneConfig):
        if not pretrained:
            check_tunable(config)
        from harness.backbones.diffusion_backbone import load_diffusion

        backbone = load_diffusion(
            config.weights,
            None if config.checkpoint is None else locate_checkpoint(config.checkpoint),
            timestep=config.timestep,
            prompt=config.prompt,
            noise_seed=config.noise_seed,
            image_size=config.image_size,
            precision=config.precision,
        )
        backbone.preprocessing = backbone.preprocessing.changed(config.preprocessing)
        return backbone
    if config.weights is not None and config.weights.lower().endswith(WEIGHT_FILES):
        raise InputError(
            f"backbone.weights: found {config.weights}, expected a hub tag; a file is backbone.checkpoint"
        )
    checkpoint = (
        locate_checkpoint(config.checkpoint) if pretrained and config.checkpoint is not None else None
    )
    # each library takes seconds to import
    if config.library == "timm":
        for name, value, default in (("quick_gelu", config.quick_gelu, None), ("text", config.text, True)):
            if value is not default:
                raise InputError(f"backbone.{name}: found {value}, expected only for library open_clip")
        from harness.backbones.timm_backbone import load_timm

        backbone = load_timm(
            config.model, config.weights, config.seed, checkpoint, config.image_size, pretrained
        )
    else:
        from harness.backbones.clip_backbone import load_clip

        backbone = load_clip(
            config.model,
            config.weights,
            config.seed,
            checkpoint,
            config.image_size,
            quick_gelu=config.quick_gelu,
            text=config.text,
            pretrained=pretrained,
        )
    backbone.preprocessing = backbone.preprocessing.changed(config.preprocessing)
    return backbone.eval()


def load_open_clip(config: BackboneConfig) -> Any:
    """Load both towers of an open_clip backbone, as open_clip builds them (``open_clip.CLIP`` or its like).

    Needs no tokenizer, so ``backbone.text`` does not matter. Errors are those of `load_backbone`.
    """
    from harness.backbones.clip_backbone import load_network

    return load_network(
        config.model,
        config.weights,
        config.seed,
        None if config.checkpoint is None else locate_checkpoint(config.checkpoint),
        config.image_size,
        config.quick_gelu,
    )
