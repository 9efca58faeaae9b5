"""Backbones from open_clip: an image tower to study and a text tower kept for zero-shot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Float
from torch import Tensor

from harness.backbones.backbone import Backbone, Preprocessing, TextTower, split_tokens
from harness.backbones.hub import hub_or_message
from harness.backbones.mini_clip import (
    CLIP_NAME,
    CLIP_OPTIONS,
    build_tokenizer,
    register_clip_config,
    tokenize,
)
from harness.backbones.timm_backbone import load_strictly, timm_tokens
from harness.errors import unknown_name
from harness.files import read_weights


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
