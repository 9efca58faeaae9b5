"""Where a backbone's pretrained weights come from: their repository on the hub, and their license."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.backbones.checkpoint_place import locate_checkpoint
from harness.config import BackboneConfig

SHIPPED = Path(__file__).parent / "weights"
"""Weights of the mini backbones, under the license of the code."""


@dataclass(frozen=True)
class Origin:
    """Source of a backbone's weights, as far as its settings tell.

    Attributes
    ----------
    text : str
        In words.
    hub_id : str or None
        ``owner/name`` of the weights on the hub. None for a file, whatever it was downloaded from.
    license : str or None
        The library's name for the license, such as ``apache-2.0``; None if it names none.
    shipped : bool
        Whether the weights come with Palimpsest.
    """

    text: str
    hub_id: str | None = None
    license: str | None = None
    shipped: bool = False


def describe_origin(config: BackboneConfig) -> Origin:
    """Describe the weights that a configuration starts from; nothing is downloaded."""
    if config.checkpoint is not None:
        path = locate_checkpoint(config.checkpoint)
        if path.resolve().parent == SHIPPED.resolve():
            return Origin(f"the weights {path.stem}, which come with Palimpsest", license="mit", shipped=True)
        return Origin(f"the weights in a file, {path.name}")
    if config.weights is None:
        return Origin(f"random weights (seed {config.seed})")
    if config.library == "timm":
        return _describe_timm(config.model, config.weights)
    return _describe_open_clip(config.model, config.weights)


def _describe_timm(model: str, weights: str) -> Origin:
    from timm.models import get_pretrained_cfg

    found = get_pretrained_cfg(f"{model}.{weights}")
    text = f"timm's weights {model}.{weights}"
    if found is None:
        return Origin(text)
    known = found.license if found.license != "unknown" else None
    return Origin(text, found.hf_hub_id or None, known or None)


def _describe_open_clip(model: str, weights: str) -> Origin:
    import open_clip

    # owner/name/ or owner/name/file
    owner, _, rest = str(open_clip.get_pretrained_cfg(model, weights).get("hf_hub") or "").partition("/")
    name = rest.partition("/")[0]
    return Origin(f"open_clip's weights {model} ({weights})", f"{owner}/{name}" if name else None)
