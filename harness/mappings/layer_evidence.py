"""Evidence for every layer: how well each predicts the responses on its own, by leave-one-out ridge.

Closed form, no gradient descent. The same estimator holds all layers against the same responses to the same
stimuli, so their differences are far better determined than the layer selectors of a short fit.
`harness.measures.verdict` decides by them what rewired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import nnls
from torch import Tensor

from harness.storage import InputError
from harness.tokens import LayerTokens

PENALTIES = (0.1, 0.2, 0.4, 0.7, 1.0, 1.4, 2.0, 4.0, 8.0, 16.0)
"""Ridge penalties to choose from. An image's features have mean square 1 in sum, so these suit all widths."""
MIN_R2 = 0.02
"""A voxel is predicted if its R² is above this; others say nothing about layers."""
AT_ONCE = 128  # images pooled at once


@dataclass(frozen=True)
class PooledTokens:
    """The global token and the averaged local tokens of every layer, one feature vector per image.

    Attributes
    ----------
    features : tuple of float tensors [n_images, n_features], one per layer
        As they are: neither centred nor scaled. The global token comes first.
    token_spread : tuple of float tensors [n_features], one per layer
        Standard deviation of the features' noise if every token, local or global, had independent noise with
        the standard deviation of its channel. A place that averages k tokens has 1/√k of it.
    layers : tuple of str
        Names, from input to output.
    """

    features: tuple[Float[Tensor, "n_images _"], ...]
    token_spread: tuple[Float[Tensor, " _"], ...]
    layers: tuple[str, ...]


def pool_tokens(tokens: LayerTokens, rows: Int[np.ndarray, " n_rows"], pool: int) -> PooledTokens:
    """Average the local tokens of some images to `pool` × `pool` places, at most to a layer's own grid.

    Tokens are read in batches, so they may lie on disk; the result lies where `tokens.take` puts it.
    """
    n_layers = len(tokens.layers)
    parts: list[list[Tensor]] = [[] for _ in range(n_layers)]
    sums: list[Float[Tensor, "2 _"] | float] = [0.0] * n_layers
    for batch in torch.as_tensor(rows).split(AT_ONCE):
        taken = tokens.take(batch)
        for place, (local, global_) in enumerate(zip(taken.local, taken.global_, strict=True)):
            side = min(pool, *local.shape[2:])
            averaged = F.adaptive_avg_pool2d(local.float(), side).flatten(1)
            parts[place].append(torch.cat([global_.float(), averaged], dim=1))
            values = local.double().flatten(2)
            sums[place] = sums[place] + torch.stack([values.sum((0, 2)), values.square().sum((0, 2))])
    features = tuple(torch.cat(layer) for layer in parts)
    spreads = []
    for local, pooled, total in zip(tokens.local, features, sums, strict=True):
        assert isinstance(total, Tensor)
        n_tokens, side = local.shape[2] * local.shape[3], min(pool, *local.shape[2:])
        mean, square = total / (n_tokens * len(rows))
        deviation = (square - mean.square()).clamp(min=0).sqrt().float()
        of_places = (deviation * side / n_tokens**0.5).repeat_interleave(side * side)
        of_global = pooled[:, : len(deviation)].std(dim=0, correction=0)
        spreads.append(torch.cat([of_global, of_places]))
    return PooledTokens(features, tuple(spreads), tokens.layers)


@dataclass(frozen=True)
class Region:
    """A place whose voxels are judged together.

    Attributes
    ----------
    name : str
    voxels : int array [n_region_voxels]
    """

    name: str
    voxels: Int[np.ndarray, " n_region_voxels"]


@dataclass(frozen=True)
class Evidence:
    """Squared leave-one-out errors of every layer, with responses at variance 1.

    Attributes
    ----------
    loss : float array [n_stimuli, n_regions, n_layers]
        Mean over a region's voxels of e², e = (y − ŷ)/(1 − h) the leave-one-out residual.
    cross : float array [n_regions, n_layers, n_layers]
        G[l, m] = mean over voxels and stimuli of e_l e_m.
    noise_loss : float array [n_stimuli, n_layers] or None
        What independent response noise of variance 1 adds to every voxel's e², in expectation.
    noise_cross : float array [n_layers, n_layers] or None
        The same for G.
    """

    loss: Float[np.ndarray, "n_stimuli n_regions n_layers"]
    cross: Float[np.ndarray, "n_regions n_layers n_layers"]
    noise_loss: Float[np.ndarray, "n_stimuli n_layers"] | None = None
    noise_cross: Float[np.ndarray, "n_layers n_layers"] | None = None

    @property
    def r2(self) -> Float[np.ndarray, "n_regions n_layers"]:
        """Share of the variance that each layer predicts, at most 1."""
        return 1 - self.loss.mean(axis=0)


def standardise(features: Float[Tensor, "n_images n_features"]) -> Float[Tensor, "n_images n_features"]:
    """Give features mean 0 and variance 1 (constant ones 0), and divide them by the root of their number."""
    centred = features - features.mean(dim=0)
    deviation = centred.square().mean(dim=0).sqrt()
    # constant features differ from their mean by rounding only
    varies = deviation > 1e-6 * features.abs().amax(dim=0)
    return centred * torch.where(varies, 1 / (deviation * features.shape[1] ** 0.5), 0.0)


def loo_operator(
    features: Float[Tensor, "n_images n_features"], penalty: float
) -> Float[Tensor, "n_images n_images"]:
    """Matrix M for which M y are the leave-one-out residuals of ridge regression with an intercept.

    With K = XXᵀ of centred features, A = (K + λI)⁻¹ and centred y: e_i = (Ay)_i / (A_ii − 1/(λn)). This is
    the usual (y − ŷ)/(1 − h), with the intercept in the leverage h.

    Parameters
    ----------
    features : float tensor [n_images, n_features]
        Centred (`standardise`).
    penalty : float
        λ, on the squared weights; the intercept is free.
    """
    n_images = len(features)
    kernel = features @ features.T
    kernel.diagonal().add_(penalty)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(kernel))
    return inverse / (inverse.diagonal() - 1 / (n_images * penalty))[:, None]


def choose_penalties(
    pooled: PooledTokens, responses: Float[Tensor, "n_images n_voxels"]
) -> tuple[list[float], Float[np.ndarray, " n_voxels"]]:
    """Choose each layer's penalty by leave-one-out R², averaged over the voxels that some layer predicts.

    Returns
    -------
    penalties : list of float, one per layer
    r2 : float array [n_voxels]
        Leave-one-out R² of each voxel's best layer at these penalties; 0 for constant voxels.
    """
    targets = _unit_variance(responses)
    scores = []
    for layer in pooled.features:
        features = standardise(layer)
        errors = [(loo_operator(features, penalty) @ targets).square().mean(dim=0) for penalty in PENALTIES]
        scores.append(1 - torch.stack(errors))
    r2 = torch.stack(scores).cpu().numpy()  # layers, penalties, voxels
    r2[:, :, (targets == 0).all(dim=0).cpu().numpy()] = 0
    predicted = r2.max(axis=(0, 1)) > MIN_R2
    chosen = r2[:, :, predicted if predicted.any() else slice(None)].mean(axis=2).argmax(axis=1)
    best = r2[np.arange(len(r2)), chosen].max(axis=0)
    return [PENALTIES[place] for place in chosen], best


def measure_evidence(
    features: Sequence[Float[Tensor, "n_images _"]],
    responses: Float[Tensor, "n_images n_voxels"],
    regions: Sequence[Region],
    penalties: Sequence[float],
    with_noise: bool = False,
) -> Evidence:
    """Compute the leave-one-out errors of every layer in every region.

    Parameters
    ----------
    features : sequence of float tensors [n_images, n_features], one per layer
        `PooledTokens.features`, or others in their place; standardised here.
    responses : float tensor [n_images, n_voxels]
        Brought to variance 1 here. Constant voxels have no error.
    regions : sequence of Region
    penalties : sequence of float, one per layer
    with_noise : bool
        Whether to compute what response noise would add.
    """
    targets = _unit_variance(responses)
    needed = np.unique(np.concatenate([region.voxels for region in regions]))
    places = [torch.from_numpy(np.searchsorted(needed, region.voxels)) for region in regions]
    targets = targets[:, torch.from_numpy(needed).to(targets.device)]
    operators, residuals = [], []
    for layer, penalty in zip(features, penalties, strict=True):
        operator = loo_operator(standardise(layer), penalty)
        residuals.append(operator @ targets)
        if with_noise:
            operators.append(operator - operator.mean(dim=1, keepdim=True))  # noise is centred as well
    errors = torch.stack(residuals)
    loss, cross = [], []
    for place in places:
        here = errors[:, :, place.to(errors.device)]
        loss.append(here.square().mean(dim=2).T)
        flat = here.flatten(1)
        cross.append(flat @ flat.T / flat.shape[1])
    noise_loss = noise_cross = None
    if with_noise:
        noise_loss = torch.stack([each.square().sum(dim=1) for each in operators], dim=1).cpu().numpy()
        flat = torch.stack(operators).flatten(1)
        noise_cross = (flat @ flat.T / len(targets)).cpu().numpy()
    return Evidence(
        torch.stack(loss, dim=1).cpu().numpy(), torch.stack(cross).cpu().numpy(), noise_loss, noise_cross
    )


def stacked_weights(cross: Float[np.ndarray, "n_layers n_layers"]) -> Float[np.ndarray, " n_layers"]:
    """Weights of the layers' predictions that predict best together: argmin ω′Gω over ω ≥ 0, Σω = 1.

    Stacking (Breiman, Machine Learning 1996). Solved as non-negative least squares with the sum as one more,
    heavily weighted row.
    """
    n_layers = len(cross)
    scale = float(np.trace(cross)) / n_layers
    # a trace of ridge decides between layers that are copies of each other
    root = np.linalg.cholesky(cross / scale + 1e-6 * np.eye(n_layers)).T
    heavy = 1e4
    weights, _ = nnls(np.vstack([root, np.full(n_layers, heavy)]), np.append(np.zeros(n_layers), heavy))
    return weights / weights.sum()


def _unit_variance(responses: Float[Tensor, "n_images n_voxels"]) -> Float[Tensor, "n_images n_voxels"]:
    if len(responses) < 10:
        raise InputError(f"evidence per layer: found {len(responses)} stimuli, expected at least 10")
    return standardise(responses) * responses.shape[1] ** 0.5
