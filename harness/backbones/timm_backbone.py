"""Backbones from timm, with weights from the hub or a file."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.data.config import resolve_model_data_config
from timm.models import get_pretrained_cfg_value
from timm.models._hub import check_cached_file
from timm.models._registry import get_deprecated_models
from torch import Tensor

from harness.backbones import mini
from harness.backbones.backbone import (
    Backbone,
    Preprocessing,
    split_tokens,
)
from harness.backbones.weight_files import (
    load_strictly,
    read_weight_file,
)
from harness.storage import (
    InputError,
    explain_hub_errors,
    explain_server_errors,
    unknown_name,
)


class TimmBackbone(Backbone):
    """A timm network without its classifier.

    Parameters
    ----------
    encoder : nn.Module
    image_size : int, optional
        Edge of the input, pixels; by default timm's for the network.
    """

    encoder: Any  # timm networks have more than nn.Module

    def __init__(self, encoder: Any, image_size: int | None = None) -> None:
        settings = resolve_model_data_config(encoder)
        super().__init__(
            Preprocessing(
                size=image_size or int(settings["input_size"][-1]),
                mean=tuple(settings["mean"]),
                std=tuple(settings["std"]),
                interpolation=settings["interpolation"],
                crop_pct=float(settings["crop_pct"]),
                crop_mode=settings["crop_mode"],
            ),
            text=None,
        )
        self.encoder = encoder
        self.layers, self.widths = describe_layers(encoder)
        # some networks widen their features before the classifier
        self.n_features = int(getattr(encoder, "head_hidden_size", None) or encoder.num_features)

    def forward(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> Float[Tensor, "n_images n_channels"]:
        """Features before the classifier."""
        return self.encoder(images)

    def tokens(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]]:
        """Return local grid and global token of every block, or of every stage where the grid shrinks."""
        return timm_tokens(self.encoder, images)

    def features_and_tokens(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> tuple[
        Float[Tensor, "n_images n_channels"],
        tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]],
    ]:
        """Return features and tokens from one pass."""
        final, tokens = timm_final_and_tokens(self.encoder, images)
        return self.encoder.forward_head(final), tokens


def describe_layers(encoder: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return names and widths of the layers that `timm_tokens` reads."""
    info = list(encoder.feature_info)
    return tuple(str(layer["module"]) for layer in info), tuple(int(layer["num_chs"]) for layer in info)


def timm_tokens(
    encoder: Any, images: Float[Tensor, "n_images 3 height width"]
) -> tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]]:
    """Read the tokens of a timm network, before the final norm, which belongs to the head."""
    found = encoder.forward_intermediates(images, norm=False, intermediates_only=True, **_prefix(encoder))
    return _split_tokens(encoder, found)


def timm_final_and_tokens(
    encoder: Any, images: Float[Tensor, "n_images 3 height width"]
) -> tuple[Tensor, tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]]]:
    """Return the input of a timm network's `forward_head`, and its tokens, in one pass."""
    final, found = encoder.forward_intermediates(images, norm=False, **_prefix(encoder))
    return final, _split_tokens(encoder, found)


def _prefix(encoder: Any) -> dict[str, bool]:
    asked = "return_prefix_tokens" in inspect.signature(encoder.forward_intermediates).parameters
    return {"return_prefix_tokens": True} if asked and getattr(encoder, "num_prefix_tokens", 0) > 0 else {}


def _split_tokens(
    encoder: Any, found: list[Any]
) -> tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]]:
    if not _prefix(encoder):
        return split_tokens(found, [None] * len(found))
    grids = [grid for grid, _ in found]
    if getattr(encoder, "cls_token", None) is None:  # registers only: no summary of the image
        return split_tokens(grids, [None] * len(found))
    return split_tokens(grids, [prefix for _, prefix in found])


def load_timm(
    model: str,
    weights: str | None,
    seed: int,
    checkpoint: Path | None = None,
    image_size: int | None = None,
    pretrained: bool = True,
) -> TimmBackbone:
    """Load a network.

    Parameters
    ----------
    model : str
        Name of the architecture in timm.
    weights : str or None
        Pretrained tag, which also sets the preprocessing; None: the preprocessing of the model's first tag.
    seed : int
        Of the initialisation of an untrained network.
    checkpoint : Path, optional
        File of weights, used instead of the hub. Without tag and file, the network is untrained.
    image_size : int, optional
        Edge of the input, pixels; position embeddings are resampled to it. None: as trained.
    pretrained : bool
        Whether to load the tag's weights; the tag sets the preprocessing in any case.

    Raises
    ------
    InputError
        If timm has no such model or tag, the file does not fit, the network cannot take the image size, or
        the hub is unreachable.
    """
    _check_name(model)
    if weights is not None:
        tags = [name.removeprefix(f"{model}.") for name in timm.list_pretrained(f"{model}.*")]
        if weights not in tags:
            raise InputError(f"backbone.weights: {unknown_name(f'weights of {model}', weights, tags)}")
    name = model if weights is None else f"{model}.{weights}"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if weights is None or checkpoint is not None or not pretrained:
            encoder: Any = timm.create_model(name, num_classes=0)
        else:
            encoder = _from_the_network(name)
    if not hasattr(encoder, "forward_intermediates") or not hasattr(encoder, "feature_info"):
        raise InputError(f"backbone.model: found {model}, expected a network whose layers timm can read")
    if checkpoint is not None:
        _load_file(encoder, checkpoint)
    if image_size is not None:
        set_image_size(encoder, image_size)
    return TimmBackbone(encoder, image_size)


def _check_name(model: str) -> None:
    """Refuse what is no architecture of timm's, with a hint at a tag, an old name or a repository."""
    repository = re.fullmatch(r"(?:hf[-_]hub:)?(?:([\w.-]+)/)?([\w.-]+)", model)
    owner, name = (repository[1], str(repository[2])) if repository else (None, model)
    found = get_deprecated_models().get(name) or name
    architecture, _, tag = found.partition(".")
    if timm.is_model(architecture) and owner in (None, "timm"):
        if model == architecture:
            return
        raise InputError(
            f"backbone.model: found {model:.100}, expected an architecture and a tag apart: "
            f"backbone.model={architecture}{f' backbone.weights={tag}' if tag else ''}"
        )
    if owner is not None:
        raise InputError(
            f"backbone.model: found {model:.100}, a repository that is not timm's, expected the architecture "
            "as backbone.model and the downloaded file of weights as backbone.checkpoint"
        )
    raise InputError(f"backbone.model: {unknown_name('timm model', model, timm.list_models())}")


def _from_the_network(name: str) -> Any:
    if get_pretrained_cfg_value(name, "hf_hub_id"):
        with explain_hub_errors(name):
            return timm.create_model(name, pretrained=True, num_classes=0)
    url = str(get_pretrained_cfg_value(name, "url"))
    with explain_server_errors(name, url, check_cached_file(url, check_hash=False)):
        return timm.create_model(name, pretrained=True, num_classes=0)


def _load_file(encoder: Any, path: Path) -> None:
    """Load weights named as timm or their authors name them, without any classifier."""
    tensors = read_weight_file(path)
    # timm's modules convert published formats and resample position embeddings
    convert = getattr(sys.modules[type(encoder).__module__], "checkpoint_filter_fn", None)
    if convert is not None and encoder.pretrained_cfg.get("architecture") != mini.MODEL_NAME:
        try:
            tensors = convert(tensors, encoder)
        except (RuntimeError, LookupError, AttributeError, TypeError, ValueError, AssertionError) as error:
            detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise InputError(f"{path}: weights do not fit the architecture ({detail})") from None
    found = encoder.pretrained_cfg.get("classifier") or "head"  # distilled networks have two heads
    heads = tuple(f"{name}." for name in ([found] if isinstance(found, str) else found))
    load_strictly(encoder, {name: part for name, part in tensors.items() if not name.startswith(heads)}, path)


def set_image_size(encoder: Any, image_size: int) -> None:
    """Prepare a timm network for another image size; an `InputError` if it cannot take it."""
    found = getattr(getattr(encoder, "patch_embed", None), "patch_size", 1)
    patch = max(found) if isinstance(found, tuple) else int(found)
    if image_size % patch:
        raise InputError(f"backbone.image_size: found {image_size}, expected a multiple of {patch}")
    settings = encoder.pretrained_cfg
    native = settings["input_size"][-1]
    try:
        if hasattr(encoder, "set_input_size"):
            encoder.set_input_size((image_size, image_size))
        elif settings.get("fixed_input_size") and image_size != native:
            # SAM resamples its embeddings as it runs; other networks fail here
            with torch.no_grad():
                timm_tokens(encoder.eval(), torch.zeros(1, 3, image_size, image_size))
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        detail = " ".join(str(error).split())[:150]
        raise InputError(f"backbone.image_size: found {image_size}, expected {native} ({detail})") from None
