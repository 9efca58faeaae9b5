"""Fit FactorTopy, and turn a fitted model with selectors into a mapping."""

from __future__ import annotations

import logging

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness.config import FactorTopyConfig
from harness.mappings.data import (
    FitData,
    FitOptions,
)
from harness.mappings.factortopy.anchor import (
    FEWEST_PICTURES,
    agree_with_neighbours,
    layer_evidence,
)
from harness.mappings.factortopy.closed_form import (
    begin_at,
    choose_places,
    solve_weights,
)
from harness.mappings.factortopy.model import FactorTopy
from harness.mappings.factortopy.selectors import SelectorModel, SelectorTensors
from harness.mappings.mapping import Mapping
from harness.mappings.training import (
    FitSample,
    FittedModel,
    Pull,
    fit_model,
)

log = logging.getLogger(__name__)

LAYER_RATE = 4.0  # learning rate of the layer selector's logits, which start at zero and move slowly
SMALLEST_SHARE = 1e-6  # of a layer in the evidence, so that its logarithm is finite


def fit(data: FitData, config: FactorTopyConfig, options: FitOptions) -> Mapping:
    """Fit FactorTopy on the training stimuli and score it on the held-out ones.

    The published recipe (smooth-L1, decaying regularizer, AdamW) on raw responses, with six changes that
    let it converge in a twentieth of the steps:

    - biases start at the mean training response;
    - tokens are centred per channel and scaled per layer (`harness.tokens.frame`);
    - the learning rate warms up over a tenth of the steps, then falls to zero (both cosine);
    - the voxels' weights learn `n_channels` times faster than the rest, which undoes the model's 1/D, and
      the layer selector's last layer `LAYER_RATE` times faster;
    - voxels begin to read where single layers predict them best (`mapping.start`, `choose_places`);
    - in the end, weights and biases are solved for in closed form (`mapping.readout`, `solve_weights`).

    With fewer than 20 stimuli to fit on there is no evidence for layers or places, and weights are not
    solved for.

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

    def prepare(model: FactorTopy, sample: FitSample) -> Pull | None:
        anchored = config.anchor != "none" and len(sample.tokens.layers) > 1
        placed = config.start == "places" and options.start is None
        if not _has_enough(sample):
            log.warning(
                "warning: fewer than %d stimuli to fit on: layers, places and weights by descent alone",
                FEWEST_PICTURES,
            )
            return None
        if not (anchored or placed):
            return None
        evidence = layer_evidence(sample.tokens, sample.targets, sample.rows, sample.pictures)
        if placed:
            begin_at(model, choose_places(evidence, data.coords, *sample.tokens.local[0].shape[2:]))
        return anchor_layers(model, evidence.layer, data.coords, config) if anchored else None

    def finish(model: FactorTopy, sample: FitSample) -> None:
        if config.readout == "ridge" and _has_enough(sample):
            solve_weights(model, sample, config.voxels_per_pass)

    fitted = fit_model(build, rates, data, config, options, prepare, finish)
    return mapping_of(fitted, data.tokens.layers, config.family)


def _has_enough(sample: FitSample) -> bool:
    """Whether there are stimuli enough for closed forms."""
    return len(np.unique(sample.pictures)) >= FEWEST_PICTURES


@torch.no_grad()
def anchor_layers(
    model: FactorTopy,
    evidence: Float[Tensor, "n_voxels n_layers"],
    coords: Float[np.ndarray, "n_voxels 3"],
    config: FactorTopyConfig,
) -> Pull | None:
    """Anchor a model's layer selectors in log evidence for layers, as `mapping.anchor` says.

    With q the posterior of `agree_with_neighbours` and s the strength:

    - frozen: ω_n ∝ q_n^s throughout; the layer selector's network is not trained;
    - prior: ω_n = softmax(network(p_n) + s log q_n);
    - pull: the loss has the term s · mean over voxels of −Σ_l q_nl log ω_nl.

    Returns
    -------
    A term of the loss, or None
    """
    posterior = agree_with_neighbours(evidence, coords, config.anchor_coupling)
    log_posterior = posterior.clamp(min=SMALLEST_SHARE).log()
    if config.anchor == "pull":

        def pull(selectors: SelectorTensors, voxels: slice) -> Float[Tensor, ""]:
            shares = selectors.layer.clamp(min=torch.finfo(selectors.layer.dtype).tiny)
            cross_entropy = -(posterior[voxels] * shares.log()).sum(dim=1).mean()
            return config.anchor_strength * cross_entropy

        return pull
    model.layer_prior = config.anchor_strength * log_posterior
    if config.anchor == "frozen":
        model.layer_selector.requires_grad_(False)
    return None


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
