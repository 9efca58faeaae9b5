"""Fit FactorTopy, and turn a fitted model with selectors into a mapping."""

from __future__ import annotations

import torch
from torch import nn

from harness.config import FactorTopyConfig
from harness.mappings.data import (
    FitData,
    FitOptions,
)
from harness.mappings.factortopy.model import FactorTopy
from harness.mappings.factortopy.selectors import SelectorModel
from harness.mappings.mapping import Mapping
from harness.mappings.training import (
    FittedModel,
    fit_model,
)

LAYER_RATE = 4.0  # learning rate of the layer selector's logits, which start at zero and move slowly


def fit(data: FitData, config: FactorTopyConfig, options: FitOptions) -> Mapping:
    """Fit FactorTopy on the training stimuli and score it on the held-out ones.

    The published recipe (smooth-L1, decaying regularizer, AdamW) on raw responses, with four changes that
    let it converge in a tenth of the steps:

    - biases start at the mean training response;
    - tokens are centred per channel and scaled per layer (`harness.tokens.frame`);
    - the learning rate warms up over a tenth of the steps, then falls to zero (both cosine);
    - the voxels' weights learn `n_channels` times faster than the rest, which undoes the model's 1/D, and
      the layer selector's last layer `LAYER_RATE` times faster.

    Raises
    ------
    InputError
        If `options.start` has other voxels, layers or channels, or `validation` leaves too few stimuli.
    FitDivergedError
        If the loss is no longer finite.
    """

    def build(layer_widths: list[int]) -> FactorTopy:
        return FactorTopy(
            torch.as_tensor(data.coords, dtype=torch.float32),
            torch.as_tensor(data.bounding_box, dtype=torch.float32),
            layer_widths,
            config.n_channels,
        )

    def rates(model: FactorTopy) -> dict[nn.Parameter, float]:
        logits = next(reversed(list(model.layer_selector.parameters())))
        # weights: the model divides their sum by D. Only the selector's last layer: a faster hidden layer
        # saturates, and then all voxels have the same selectors
        return {model.weight: float(config.n_channels), logits: LAYER_RATE}

    fitted = fit_model(build, rates, data, config, options)
    return mapping_of(fitted, data.tokens.layers, config.family)


def mapping_of(fitted: FittedModel[SelectorModel], layers: tuple[str, ...], family: str) -> Mapping:
    """Convert a fitted model with selectors to a mapping."""
    model = fitted.model
    with torch.no_grad():
        selectors = model.selectors()
    return Mapping(
        layers=layers,
        space=selectors.space.cpu().numpy(),
        layer=selectors.layer.cpu().numpy(),
        scale=selectors.scale.cpu().numpy(),
        weights=model.weight.detach().cpu().numpy(),
        bias=model.bias.detach().cpu().numpy(),
        r2=fitted.r2,
        correlation=fitted.correlation,
        steps=fitted.steps,
        family=family,
        learned=fitted.learned(),
    )
