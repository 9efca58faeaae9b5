"""Families of mappings from layer tokens to voxels, to see whether a conclusion is FactorTopy's alone."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from harness.config import (
    AttentionConfig,
    FactorTopyConfig,
    FreeSelectorsConfig,
    LayerRidgeConfig,
    MappingConfig,
    TrainedMappingConfig,
)
from harness.features import LayerTokens
from harness.mapping import Mapping
from harness.splits import Split


def prepare_tokens(
    tokens: LayerTokens, split: Split, config: MappingConfig, device: str | torch.device = "cpu"
) -> LayerTokens:
    """What all fits of a snapshot share, whatever their seeds and bootstrap samples: for `fit_mapping`."""
    if not isinstance(config, TrainedMappingConfig):
        return tokens
    from harness.fitting import standardize_tokens

    return standardize_tokens(tokens, torch.from_numpy(split.train), config.token_size, device)


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
) -> Mapping:
    """Fit a mapping of the family that `config` is of; parameters and errors as of `harness.fitting.fit`.

    Of `coords` and `bounding_box`, families other than FactorTopy only use the number of voxels.
    """
    arguments = (tokens, responses, coords, bounding_box, split)
    # imported here: himalaya and scikit-learn cost a second, which only one family needs
    match config:
        case FactorTopyConfig():
            from harness.fitting import fit

            return fit(*arguments, config, seed, bootstrap, device, progress)
        case FreeSelectorsConfig():
            from harness.families.free_selectors import fit_free_selectors

            return fit_free_selectors(*arguments, config, seed, bootstrap, device, progress)
        case AttentionConfig():
            from harness.families.attention import fit_attention

            return fit_attention(*arguments, config, seed, bootstrap, device, progress)
        case LayerRidgeConfig():
            from harness.families.layer_ridge import fit_layer_ridge

            return fit_layer_ridge(*arguments, config, seed, bootstrap, device, progress)
