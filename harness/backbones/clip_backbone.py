"""Backbones from open_clip: an image tower to study, and a text tower for zero-shot."""

from __future__ import annotations

import copy
import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Float, Int
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from open_clip.transformer import QuickGELU
from timm.models import group_parameters
from torch import Tensor, nn

from harness.backbones.backbone import (
    Backbone,
    Preprocessing,
    TextEncoder,
    TextTower,
    split_tokens,
)
from harness.backbones.mini_clip import (
    CLIP_NAME,
    CLIP_OPTIONS,
    build_tokenizer,
    register_clip_config,
    tokenize,
)
from harness.backbones.timm_backbone import (
    describe_layers,
    set_image_size,
    timm_final_and_tokens,
    timm_tokens,
)
from harness.backbones.weight_files import (
    load_strictly,
    read_weight_file,
)
from harness.storage import (
    InputError,
    content_hash,
    explain_hub_errors,
    unknown_name,
)

Tokenizer = Callable[[list[str]], Tensor]
# open_clip's names of timm's crop modes
CROP_MODES = {"shortest": "center", "squash": "squash", "longest": "border"}
WITHOUT_TEXT = "download it on a machine with a network, or set backbone.text=false (no zero-shot)"

# stem and blocks of open_clip's own towers, for timm's `group_parameters`
VIT_BLOCKS = {
    "stem": r"^(?:class_embedding|positional_embedding|conv1|ln_pre)",
    "blocks": [(r"^transformer\.resblocks\.(\d+)", None), (r"^ln_post", (99999,))],
}
RESNET_BLOCKS = {"stem": r"^(?:conv|bn)\d", "blocks": r"^layer(\d+)\.(\d+)"}
# CLIP's bound of the trained factor
LARGEST_SCALE = math.log(100)


class ClipTextTower(TextTower):
    """The text tower of an open_clip model, on the CPU and without gradients."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self.logit_scale = float(model.logit_scale.exp())

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Float[Tensor, "n_texts n_channels"]:
        """Unit-length embeddings of texts."""
        return self._model.encode_text(self._tokenizer(list(texts)), normalize=True)

    def fingerprint(self) -> str:
        """Hash the weights of the text side, and what its tokenizer makes of some words."""
        state = self._model.state_dict()
        weights = {name: part for name, part in state.items() if not name.startswith("visual.")}
        return content_hash(weights, self._tokenizer(["a photo of a 12 dog, zebra, ü"]).tolist())

    def copy_to_train(self) -> ClipTextEncoder:
        """Return a trainable copy of the network."""
        # without the image tower, which belongs to the backbone
        model = copy.deepcopy(self._model, {id(self._model.visual): nn.Identity()})
        return ClipTextEncoder(model, self._tokenizer)


class ClipTextEncoder(TextEncoder):
    """A trainable text tower of an open_clip model."""

    def __init__(self, model: Any, tokenizer: Callable[[list[str]], Tensor]) -> None:
        super().__init__()
        self.model = model.requires_grad_(True)
        if getattr(model, "logit_bias", None) is not None:
            model.logit_bias.requires_grad_(False)  # SigLIP's; a softmax is blind to it
        self._tokenizer = tokenizer

    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "n_texts context"]:
        """Token ids of texts."""
        return self._tokenizer(list(texts))

    def forward(self, ids: Int[Tensor, "n_texts context"]) -> Float[Tensor, "n_texts n_channels"]:
        """Unit-length embeddings."""
        return self.model.encode_text(ids, normalize=True)

    def scale(self) -> Float[Tensor, ""]:
        """Trainable factor of the cosine similarities, at most 100 as in CLIP."""
        # a scale pretrained at the bound may exceed it by rounding
        return self.model.logit_scale.clamp(max=LARGEST_SCALE + 1e-3).exp().squeeze()


class ClipBackbone(Backbone):
    """The image tower of an open_clip model, its projection to the shared space included.

    Parameters
    ----------
    model : nn.Module
    n_features : int
        Width of the shared space.
    tokenizer : callable or None
        None: no text tower.
    """

    encoder: Any  # open_clip's towers have more than nn.Module

    def __init__(self, model: Any, n_features: int, tokenizer: Tokenizer | None) -> None:
        settings = open_clip.get_model_preprocess_cfg(model)
        size = settings["size"]
        super().__init__(
            Preprocessing(
                size=size if isinstance(size, int) else int(size[0]),
                mean=tuple(settings["mean"]),
                std=tuple(settings["std"]),
                interpolation=settings["interpolation"],
                crop_mode=CROP_MODES[settings["resize_mode"]],
            ),
            None if tokenizer is None else ClipTextTower(model, tokenizer),
        )
        self.encoder = model.visual
        self.n_features = n_features
        self.layers, self.widths = _describe_layers(self.encoder)
        self.flags["quick_gelu"] = any(isinstance(part, QuickGELU) for part in self.encoder.modules())

    def forward(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> Float[Tensor, "n_images n_channels"]:
        """Embeddings in the shared space, not normalised."""
        found = self.encoder(images)
        return found[0] if isinstance(found, tuple) else found  # CoCa also returns its tokens

    def tokens(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]]:
        """Return local grid and global token of every block, or of every stage where the grid shrinks."""
        if hasattr(self.encoder, "trunk"):  # open_clip's wrapper around timm
            return timm_tokens(self.encoder.trunk, images)
        found = self.encoder.forward_intermediates(images, intermediates_only=True, output_extra_tokens=True)
        return _tokens_in(found)

    def features_and_tokens(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> tuple[
        Float[Tensor, "n_images n_channels"],
        tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]],
    ]:
        """Return features and tokens from one pass."""
        if hasattr(self.encoder, "trunk"):
            final, tokens = timm_final_and_tokens(self.encoder.trunk, images)
            return self.encoder.head(self.encoder.trunk.forward_head(final)), tokens
        found = self.encoder.forward_intermediates(images, output_extra_tokens=True)
        return found["image_features"], _tokens_in(found)

    def depths(self) -> dict[str, int]:
        """Return the depth of every encoder parameter by name: 0 for the stem, then block by block."""
        if not hasattr(self.encoder, "trunk"):
            matcher = RESNET_BLOCKS if hasattr(self.encoder, "layer1") else VIT_BLOCKS
            return group_parameters(self.encoder, matcher, reverse=True)
        trunk = self.encoder.trunk
        found = group_parameters(trunk, trunk.group_matcher(coarse=False), reverse=True)
        depths = {f"trunk.{name}": depth for name, depth in found.items()}
        above = max(depths.values()) + 1
        return {name: depths.get(name, above) for name, _ in self.encoder.named_parameters()}


def _tokens_in(
    found: dict[str, Any],
) -> tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]]:
    grids = found["image_intermediates"]
    return split_tokens(grids, found.get("image_intermediates_prefix", [None] * len(grids)))


def _describe_layers(encoder: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    if hasattr(encoder, "trunk"):
        return describe_layers(encoder.trunk)
    if hasattr(encoder, "transformer"):
        blocks = encoder.transformer.resblocks
        return tuple(f"blocks.{place}" for place in range(len(blocks))), (encoder.conv1.out_channels,) * len(
            blocks
        )
    stages = [f"layer{number}" for number in range(1, 5)]  # open_clip's ResNets
    widths = [getattr(encoder, stage)[-1].conv3.out_channels for stage in stages]
    return ("stem", *stages), (encoder.conv3.out_channels, *widths)


def load_clip(
    model: str,
    weights: str | None,
    seed: int,
    checkpoint: Path | None = None,
    image_size: int | None = None,
    quick_gelu: bool | None = None,
    text: bool = True,
    pretrained: bool = True,
) -> ClipBackbone:
    """Load a model; arguments and errors as for `harness.backbones.timm_backbone.load_timm`.

    Parameters
    ----------
    model, weights, seed, checkpoint, image_size, pretrained
        As there; the tag also sets the activation.
    quick_gelu : bool, optional
        Whether the network has OpenAI's GELU, x · sigmoid(1.702 x); None: by tag and name.
    text : bool
        Whether to keep the text tower.
    """
    network = load_network(model, weights, seed, checkpoint, image_size, quick_gelu, pretrained)
    n_features = int(open_clip.get_model_config(model)["embed_dim"])
    return ClipBackbone(network, n_features, _tokenizer_of(model) if text else None)


def load_network(
    model: str,
    weights: str | None,
    seed: int,
    checkpoint: Path | None = None,
    image_size: int | None = None,
    quick_gelu: bool | None = None,
    pretrained: bool = True,
) -> Any:
    """Load both towers as open_clip builds them; arguments and errors as for `load_clip`."""
    register_clip_config()
    settings = open_clip.get_model_config(model) if model in open_clip.list_models() else None
    if settings is None:
        raise _unknown_model(model)
    if quick_gelu is False and settings.get("quick_gelu"):
        raise InputError(f"backbone.quick_gelu: found False, expected True or null for {model}")
    options: dict[str, Any] = dict(CLIP_OPTIONS) if model == CLIP_NAME else {}
    if weights is not None:
        tags = open_clip.list_pretrained_tags_by_model(model)
        if weights not in tags:
            raise InputError(f"backbone.weights: {unknown_name(f'weights of {model}', weights, tags)}")
        tag = open_clip.get_pretrained_cfg(model, weights)
        # OpenAI trained with another GELU than the architecture's name implies
        quick_gelu = bool(tag.get("quick_gelu")) if quick_gelu is None else quick_gelu
        names = ("mean", "std", "interpolation", "resize_mode")
        options["force_preprocess_cfg"] = {name: tag[name] for name in names if name in tag}
    if quick_gelu:
        options["force_quick_gelu"] = True
    is_timm = "timm_model_name" in settings["vision_cfg"]
    patch = settings["vision_cfg"].get("patch_size") or 1
    if image_size is not None and image_size % patch:
        raise InputError(f"backbone.image_size: found {image_size}, expected a multiple of {patch}")
    if image_size is not None and not is_timm:  # open_clip resamples position embeddings as it loads
        options["force_image_size"] = image_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if weights is None or checkpoint is not None or not pretrained:
            with without_remark_on_random_weights():
                network = open_clip.create_model(
                    model, load_weights=False, device=torch.get_default_device(), **options
                )
        else:
            with explain_hub_errors(f"{model} ({weights})"):
                network = open_clip.create_model(model, pretrained=weights, **options)
    if checkpoint is not None:
        _load_file(network, checkpoint)
    if image_size is not None and is_timm:
        set_image_size(network.visual.trunk, image_size)
        open_clip.set_model_preprocess_cfg(
            network, {**open_clip.get_model_preprocess_cfg(network), "size": image_size}
        )
    return network


def _unknown_model(model: str) -> InputError:
    """Build the error for what is no model of open_clip's; OpenAI's names and repositories get a hint."""
    repository = re.sub(r"^hf[-_]hub:", "", model)
    for name, tag in open_clip.list_pretrained():
        hub = str(open_clip.get_pretrained_cfg(name, tag).get("hf_hub") or "")
        if hub.split("/")[:2] == repository.split("/"):
            return InputError(
                f"backbone.model: found {model:.100}, a repository, expected the model and a tag apart: "
                f"backbone.model={name} backbone.weights={tag}"
            )
    name = model.replace("/", "-")  # as OpenAI writes it: ViT-B/32
    if name in open_clip.list_models():
        return InputError(f"backbone.model: found {model}, expected open_clip's name: backbone.model={name}")
    return InputError(f"backbone.model: {unknown_name('open_clip model', model, open_clip.list_models())}")


def _load_file(network: nn.Module, path: Path) -> None:
    """Load weights of both towers, converted to open_clip's current names and the network's sizes."""
    tensors = convert_state_dict(network, read_weight_file(path))
    if "positional_embedding" in tensors and not hasattr(network, "positional_embedding"):
        tensors = convert_to_custom_text_state_dict(tensors)
    for name in ("logit_scale", "logit_bias"):  # stored as a scalar or as an array of one
        own = getattr(network, name, None)
        if own is not None and name in tensors and tensors[name].numel() == own.numel():
            tensors[name] = tensors[name].reshape(own.shape)
    try:
        resize_pos_embed(tensors, network)
        resize_text_pos_embed(tensors, network)
    except (RuntimeError, LookupError, ValueError, AttributeError, AssertionError) as error:
        detail = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: weights do not fit the architecture ({detail})") from None
    load_strictly(network, tensors, path)


@contextmanager
def without_remark_on_random_weights() -> Iterator[None]:
    """Suppress open_clip's warning: the weights are loaded next, or random on purpose."""

    def keep(record: logging.LogRecord) -> bool:
        return "No pretrained weights loaded" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)


def _tokenizer_of(model: str) -> Tokenizer:
    if model == CLIP_NAME:
        own = build_tokenizer()
        return lambda texts: tokenize(own, texts)
    if "hf_tokenizer_name" not in open_clip.get_model_config(model)["text_cfg"]:
        return open_clip.get_tokenizer(model)
    with explain_hub_errors(f"tokenizer of {model}", WITHOUT_TEXT):
        return open_clip.get_tokenizer(model)
