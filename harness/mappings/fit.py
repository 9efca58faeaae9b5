"""Families of mappings from layer tokens to voxels, to see whether a conclusion is FactorTopy's alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from harness.backbones import Backbone
from harness.config import (
    AttentionConfig,
    FactorTopyConfig,
    FreeSelectorsConfig,
    LayerRidgeConfig,
    MappingConfig,
    TrainedMappingConfig,
)
from harness.mappings.mapping import Mapping
from harness.mappings.splits import Split
from harness.tokens import (
    LayerTokens,
    extract_tokens,
    store_tokens,
)


def prepare_tokens(
    backbone: Backbone,
    images: Sequence[Image.Image],
    split: Split,
    config: MappingConfig,
    batch_size: int,
    device: str | torch.device,
    folder: Path,
    progress: str | None = None,
) -> LayerTokens:
    """The tokens of a snapshot, for `fit_mapping`: all its fits share them, whatever their seeds and samples.

    Parameters
    ----------
    backbone : Backbone
    images : sequence of PIL images
    split : Split
    config : MappingConfig
    batch_size : int
        Images per forward pass.
    device : torch.device or str
    folder : Path
        For a file of tokens that fit nowhere else; gone with the process.
    progress : str, optional
        Label of a progress bar; none without.
    """
    if not isinstance(config, TrainedMappingConfig):
        return extract_tokens(backbone, images, config.token_size, batch_size, device, progress)
    return store_tokens(
        backbone,
        images,
        split.train,
        config.token_size,
        config.token_precision,
        config.token_place,
        batch_size,
        device,
        folder,
        progress,
    )


def fit_mapping(
    tokens: LayerTokens,
    responses: Float[np.ndarray, "n_images n_voxels"],
    coords: Float[np.ndarray, "n_voxels 3"],
    bounding_box: Float[np.ndarray, "2 3"],
    split: Split,
    config: MappingConfig,
    seed: int,
    bootstrap: bool = False,
    device: str | torch.device = "cpu",
    progress: str | None = None,
    start: Mapping | None = None,
) -> Mapping:
    """Fit a mapping of the family that `config` is of; parameters and errors as of `factortopy.fit.fit`.

    Of `coords` and `bounding_box`, families other than FactorTopy only use the number of voxels. One that is
    solved, not trained, has no use for `start`.
    """
    arguments = (tokens, responses, coords, bounding_box, split)
    # imported here: himalaya and scikit-learn cost a second, which only one family needs
    match config:
        case FactorTopyConfig():
            from harness.mappings.factortopy.fit import fit

            return fit(*arguments, config, seed, bootstrap, device, progress, start)
        case FreeSelectorsConfig():
            from harness.mappings.free_selectors import fit_free_selectors

            return fit_free_selectors(*arguments, config, seed, bootstrap, device, progress, start)
        case AttentionConfig():
            from harness.mappings.attention import fit_attention

            return fit_attention(*arguments, config, seed, bootstrap, device, progress, start)
        case LayerRidgeConfig():
            from harness.mappings.layer_ridge import fit_layer_ridge

            return fit_layer_ridge(*arguments, config, seed, bootstrap, device, progress)
