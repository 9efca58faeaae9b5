"""Backbones from timm: from the hub, or from a safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from harness.backbones import mini  # noqa: F401  # registers the architecture
from harness.backbones.backbone import Backbone, Preprocessing, split_tokens
from harness.backbones.hub import hub_or_message
from harness.errors import InputError, unknown_name
from harness.files import read_weights


class TimmBackbone(Backbone):
    """A timm network without its classifier."""

    encoder: Any  # a timm network: an nn.Module with more to it than its type says

    def __init__(self, encoder: Any) -> None:
        settings = resolve_model_data_config(encoder)
        super().__init__(
            Preprocessing(
                size=int(settings["input_size"][-1]),
                mean=tuple(settings["mean"]),
                std=tuple(settings["std"]),
                interpolation=settings["interpolation"],
                crop_pct=float(settings["crop_pct"]),
            ),
            text=None,
        )
        self.encoder = encoder
        self.layers = tuple(f"blocks.{place}" for place in range(len(encoder.feature_info)))
        # some networks widen their features once more before the classifier
        self.n_features = int(getattr(encoder, "head_hidden_size", encoder.num_features))

    def forward(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> Float[Tensor, "n_images n_channels"]:
        """Features before the classifier."""
        return self.encoder(images)

    def tokens(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]]:
        """Local grid and global token of every block."""
        return timm_tokens(self.encoder, images)

    def features_and_tokens(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> tuple[
        Float[Tensor, "n_images n_channels"],
        tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]],
    ]:
        """Features and tokens of one pass."""
        final, tokens = timm_final_and_tokens(self.encoder, images)
        return self.encoder.forward_head(final), tokens


def timm_tokens(
    encoder: Any, images: Float[Tensor, "n_images 3 height width"]
) -> tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]]:
    """Tokens of a timm network, not normalised (the final norm belongs to the head)."""
    found = encoder.forward_intermediates(images, norm=False, intermediates_only=True, **_prefix(encoder))
    return _split_tokens(encoder, found)


def timm_final_and_tokens(
    encoder: Any, images: Float[Tensor, "n_images 3 height width"]
) -> tuple[Tensor, tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]]]:
    """What a timm network's `forward_head` takes, and its tokens, of one pass."""
    final, found = encoder.forward_intermediates(images, norm=False, **_prefix(encoder))
    return final, _split_tokens(encoder, found)


def _prefix(encoder: Any) -> dict[str, bool]:
    return {"return_prefix_tokens": True} if getattr(encoder, "num_prefix_tokens", 0) > 0 else {}


def _split_tokens(
    encoder: Any, found: list[Any]
) -> tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]]:
    if not _prefix(encoder):
        return split_tokens(found, [None] * len(found))
    grids = [grid for grid, _ in found]
    if getattr(encoder, "cls_token", None) is None:  # registers only: none of them is the image's summary
        return split_tokens(grids, [None] * len(found))
    return split_tokens(grids, [prefix for _, prefix in found])


def load_timm(model: str, weights: Path | str | None, seed: int) -> TimmBackbone:
    """Load a network.

    Parameters
    ----------
    model : str
        Name of the architecture in timm.
    weights : Path, str or None
        Path: a safetensors file. str: pretrained tag at the hub. None: untrained.
    seed : int
        Of the initialisation, where it is untrained.

    Raises
    ------
    InputError
        Where timm has no such model or tag, the file does not fit, or the hub cannot be reached.
    """
    if not timm.is_model(model):
        raise unknown_name("timm model", model, timm.list_models())
    encoder: Any
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(weights, str):
            tags = [name.removeprefix(f"{model}.") for name in timm.list_pretrained(f"{model}.*")]
            if weights not in tags:
                raise unknown_name(f"weights of {model}", weights, tags)
            with hub_or_message(f"{model}.{weights}"):
                encoder = timm.create_model(f"{model}.{weights}", pretrained=True, num_classes=0)
        else:
            encoder = timm.create_model(model, num_classes=0)
    if isinstance(weights, Path):
        found = encoder.pretrained_cfg.get("classifier") or "head"  # distilled networks have two
        heads = tuple(f"{name}." for name in ([found] if isinstance(found, str) else found))
        tensors = {
            name: tensor.float()
            for name, tensor in read_weights(weights).items()
            if not name.startswith(heads)
        }
        load_strictly(encoder, tensors, weights)
    return TimmBackbone(encoder)


def load_strictly(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load weights that must fit name by name and shape by shape, or say which file does not."""
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise InputError(f"{path}: weights do not fit the architecture: {detail}") from None
