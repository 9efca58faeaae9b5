"""Backbones from open_clip: an image tower to study and a text tower kept for zero-shot."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Float, Int
from timm.models import group_parameters
from torch import Tensor, nn

from harness.backbones.backbone import Backbone, Preprocessing, TextEncoder, TextTower, split_tokens
from harness.backbones.hub import hub_or_message
from harness.backbones.mini_clip import (
    CLIP_NAME,
    CLIP_OPTIONS,
    build_tokenizer,
    register_clip_config,
    tokenize,
)
from harness.backbones.timm_backbone import load_strictly, timm_final_and_tokens, timm_tokens
from harness.errors import unknown_name
from harness.files import read_weights

# stem and blocks of open_clip's own towers, as timm's `group_parameters` takes them
VIT_BLOCKS = {
    "stem": r"^(?:class_embedding|positional_embedding|conv1|ln_pre)",
    "blocks": [(r"^transformer\.resblocks\.(\d+)", None), (r"^ln_post", (99999,))],
}
RESNET_BLOCKS = {"stem": r"^(?:conv|bn)\d", "blocks": r"^layer(\d+)\.(\d+)"}
# CLIP's own bound of the factor that is trained
LARGEST_SCALE = math.log(100)


class ClipTextTower(TextTower):
    """The text tower of an open_clip model, on the CPU and without gradients."""

    def __init__(self, model: Any, tokenizer: Callable[[list[str]], Tensor]) -> None:
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self.logit_scale = float(model.logit_scale.exp())

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Float[Tensor, "n_texts n_channels"]:
        """Unit-length embeddings of texts."""
        return self._model.encode_text(self._tokenizer(list(texts)), normalize=True)

    def copy_to_train(self) -> ClipTextEncoder:
        """A copy of the network, opened to training."""
        # all but the image tower: it is the backbone's
        model = copy.deepcopy(self._model, {id(self._model.visual): nn.Identity()})
        return ClipTextEncoder(model, self._tokenizer)


class ClipTextEncoder(TextEncoder):
    """The text tower of an open_clip model, in training."""

    def __init__(self, model: Any, tokenizer: Callable[[list[str]], Tensor]) -> None:
        super().__init__()
        self.model = model.requires_grad_(True)
        if getattr(model, "logit_bias", None) is not None:
            model.logit_bias.requires_grad_(False)  # SigLIP's; a softmax does not see it
        self._tokenizer = tokenizer

    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "n_texts context"]:
        """Token ids of texts."""
        return self._tokenizer(list(texts))

    def forward(self, ids: Int[Tensor, "n_texts context"]) -> Float[Tensor, "n_texts n_channels"]:
        """Unit-length embeddings."""
        return self.model.encode_text(ids, normalize=True)

    def scale(self) -> Float[Tensor, ""]:
        """Factor of the cosine similarities, at most 100 as in CLIP."""
        # a scale pretrained at the bound may be above it by rounding
        return self.model.logit_scale.clamp(max=LARGEST_SCALE + 1e-3).exp().squeeze()


class ClipBackbone(Backbone):
    """The image tower of an open_clip model, its projection to the shared space included."""

    encoder: Any  # an nn.Module of open_clip, with more to it than its type says

    def __init__(self, model: Any, tokenizer: Callable[[list[str]], Tensor]) -> None:
        settings = open_clip.get_model_preprocess_cfg(model)
        size = settings["size"]
        super().__init__(
            Preprocessing(
                size=size if isinstance(size, int) else int(size[0]),
                mean=tuple(settings["mean"]),
                std=tuple(settings["std"]),
                interpolation=settings["interpolation"],
            ),
            ClipTextTower(model, tokenizer),
        )
        self.encoder = model.visual
        with torch.no_grad():
            probe = torch.zeros(1, 3, self.preprocessing.size, self.preprocessing.size)
            self.n_features = int(self.encoder.eval()(probe).shape[1])
            self.layers = tuple(f"blocks.{place}" for place in range(len(self.tokens(probe)[0])))

    def forward(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> Float[Tensor, "n_images n_channels"]:
        """Embeddings in the shared space, not normalised."""
        return self.encoder(images)

    def tokens(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]]:
        """Local grid and global token of every block."""
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
        """Features and tokens of one pass."""
        if hasattr(self.encoder, "trunk"):
            final, tokens = timm_final_and_tokens(self.encoder.trunk, images)
            return self.encoder.head(self.encoder.trunk.forward_head(final)), tokens
        found = self.encoder.forward_intermediates(images, output_extra_tokens=True)
        return found["image_features"], _tokens_in(found)

    def depths(self) -> dict[str, int]:
        """How deep every parameter of the encoder stands, by name: 0 the stem, then block by block."""
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


def load_clip(model: str, weights: Path | str | None, seed: int) -> ClipBackbone:
    """Load a model; arguments and errors as for `harness.backbones.timm_backbone.load_timm`."""
    register_clip_config()
    if model not in open_clip.list_models():
        raise unknown_name("open_clip model", model, open_clip.list_models())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(weights, str):
            tags = open_clip.list_pretrained_tags_by_model(model)
            if weights not in tags:
                raise unknown_name(f"weights of {model}", weights, tags)
            # OpenAI's weights were trained with another GELU than the architecture's name says
            quick_gelu = bool(open_clip.get_pretrained_cfg(model, weights).get("quick_gelu"))
            with hub_or_message(f"{model} ({weights})"):
                network = open_clip.create_model(model, pretrained=weights, force_quick_gelu=quick_gelu)
        else:
            options = CLIP_OPTIONS if model == CLIP_NAME else {}
            with _without_remark_on_random_weights():
                network = open_clip.create_model(model, load_weights=False, **options)
    if isinstance(weights, Path):
        load_strictly(network, {name: part.float() for name, part in read_weights(weights).items()}, weights)
    return ClipBackbone(network, _tokenizer_of(model))


@contextmanager
def _without_remark_on_random_weights() -> Iterator[None]:
    """Keep back open_clip's warning, which misleads: the weights are read next, or meant to be random."""

    def keep(record: logging.LogRecord) -> bool:
        return "No pretrained weights loaded" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)


def _tokenizer_of(model: str) -> Callable[[list[str]], Tensor]:
    if model != CLIP_NAME:
        return open_clip.get_tokenizer(model)
    own = build_tokenizer()
    return lambda texts: tokenize(own, texts)
