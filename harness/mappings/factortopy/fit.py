"""Fit a FactorTopy from layer tokens to voxel responses, and score it on held-out stimuli."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from harness.config import FactorTopyConfig
from harness.mappings.factortopy.model import FactorTopy
from harness.mappings.factortopy.selectors import SelectorModel
from harness.mappings.mapping import Mapping
from harness.mappings.splits import Split
from harness.mappings.training import (
    FittedModel,
    check_inputs,
    fit_model,
)
from harness.tokens import LayerTokens

# of the layer selector's logits, which start at zero: in a few hundred steps they move little
LAYER_RATE = 4.0


def fit(
    tokens: LayerTokens,
    responses: Float[np.ndarray, "n_images n_voxels"],
    coords: Float[np.ndarray, "n_voxels 3"],
    bounding_box: Float[np.ndarray, "2 3"],
    split: Split,
    config: FactorTopyConfig,
    seed: int,
    bootstrap: bool = False,
    device: str | torch.device = "cpu",
    progress: str | None = None,
    start: Mapping | None = None,
) -> Mapping:
    """Fit FactorTopy on the training stimuli and score it on the held-out ones.

    The published recipe (smooth-L1, decaying regularizer, AdamW) on raw responses, with changes that let it
    converge in a tenth of the steps: biases start at the mean training response; tokens are centred per
    channel and scaled per layer (`harness.tokens.frame`); the learning rate warms up over a tenth of the
    steps, then falls to zero (both cosine); and the voxels' weights learn `n_channels` times faster than
    the rest, which undoes the model's 1/D, and the layer selector's last layer `LAYER_RATE` times faster.

    Parameters
    ----------
    tokens : LayerTokens of all stimuli
        `StandardTokens` where several fits share them.
    responses : float array [n_images, n_voxels]
    coords, bounding_box : float arrays [n_voxels, 3], [2, 3]
        Places of the voxels; minimum and maximum of the subject's, whatever voxels these are.
    split : Split
    config : FactorTopyConfig
    seed : int
        Of everything drawn: initial weights, bootstrap sample, order of the batches. The global random
        state is neither read nor changed.
    bootstrap : bool
        Fit on a sample, drawn with replacement, of the training stimuli.
    device : str or torch.device
    progress : str, optional
        Label of a progress bar; none without.
    start : Mapping, optional
        Begins from what this one, of the same voxels, layers and settings, has learned: a warm start.

    Raises
    ------
    InputError
        If sizes do not agree, tokens or responses are not finite, or `start` does not fit.
    FitDivergedError
        If the loss stops being finite.
    """
    check_inputs(tokens, responses, coords, split)

    def build(layer_widths: list[int]) -> FactorTopy:
        return FactorTopy(
            torch.as_tensor(coords, dtype=torch.float32),
            torch.as_tensor(bounding_box, dtype=torch.float32),
            layer_widths,
            config.n_channels,
        )

    def rates(model: FactorTopy) -> dict[nn.Parameter, float]:
        logits = next(reversed(list(model.layer_selector.parameters())))
        # as the model divides by D what the weights sum; only the selector's last layer, because a faster
        # hidden layer saturates, after which all voxels read the same
        return {model.weight: float(config.n_channels), logits: LAYER_RATE}

    fitted = fit_model(
        build, rates, tokens, responses, split, config, seed, bootstrap, device, progress, start
    )
    return mapping_of(fitted, tokens.layers, "factortopy")


def mapping_of(fitted: FittedModel[SelectorModel], layers: tuple[str, ...], family: str) -> Mapping:
    """The mapping that a fitted model with selectors is."""
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
