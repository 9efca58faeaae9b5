"""Evidence for every layer at every voxel's own place, in closed form, to anchor layer selectors in.

A ridge regression from one layer at one place waits for no other layers, bottlenecks or neighbours, so it
tells layers apart from fewer stimuli than gradient descent on all of them. Features pooled over quadrants of
the image do not: where voxels read small places, the wrong layer often predicts them best.

Generalised cross-validation: Golub, Heath and Wahba, Technometrics 21 (1979). Agreement of neighbours: mean
field of a Potts model (Geman and Geman, IEEE PAMI 6, 1984), which smooths within areas and keeps borders.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from torch import Tensor

from harness.storage import InputError
from harness.tokens import StandardTokens

MOST_PICTURES = 2000  # more cost time and memory, and add little
FEWEST_PICTURES = 20
COARSE, FINE = 16, 64  # principal components of tokens: to find places, and to compare layers
PENALTIES = (
    3e-4,
    1e-3,
    3e-3,
    1e-2,
    3e-2,
    1e-1,
    1.0,
)  # of ridge; an image's features have mean square 1 in sum
N_NEIGHBOURS = 6
ITERATIONS = 30  # of the mean field, which settles within ten
PICTURES_AT_ONCE = 256
VOXELS_AT_ONCE = 8192


@dataclass(frozen=True)
class LayerEvidence:
    """How well single layers at single places predict voxels.

    Attributes
    ----------
    layer : float tensor [n_voxels, n_layers]
        Log evidence for each layer at the voxel's best place; 0 for its best layer, all 0 for constant
        voxels.
    place : float tensor [n_voxels, n_places]
        Log cross-validated error of the best layer at each place, row by row of the image; 0: as large as
        the voxel's variance.
    n_effective : float
        Effective number of pictures.
    """

    layer: Float[Tensor, "n_voxels n_layers"]
    place: Float[Tensor, "n_voxels n_places"]
    n_effective: float


def layer_evidence(
    tokens: StandardTokens,
    targets: Float[Tensor, "n_images n_voxels"],
    rows: Int[np.ndarray, " n_rows"],
    pictures: Int[np.ndarray, " n_rows"],
) -> LayerEvidence:
    """Log evidence for each layer: how well it predicts a voxel from the voxel's best place, alone.

    For layer l and place p (a token), x_lp has the leading principal components of the local token at p and
    of the global token; each of the two parts has mean square ½ in sum. Ridge regressions to responses of
    variance 1 give

        E_nlp = min over λ of log [ mean squared error / (1 − df/m)² ]

    with m pictures and df the trace of the hat matrix, intercept included. With 16 components per part,
    E_np = min over l of E_nlp and p_n = argmin over p of E_np. With 64 at p_n, the evidence is
    −m_e/2 · E_nl p_n.

    A picture counts as one observation, with the mean of its rows and their number c as its weight: rows that
    a bootstrap sample drew twice are not held against each other. m_e = (Σc)²/Σc² is the effective number of
    pictures.

    Memory: at most 2,000 pictures (evenly spaced among more) and 8,192 voxels at a time. With 8 × 8 tokens,
    that is 33 MB per layer, 66 MB of responses, and one number per voxel and layer, and per voxel and place.

    Parameters
    ----------
    tokens : StandardTokens
        Read in batches, so they may lie on disk.
    targets : float tensor [n_images, n_voxels]
    rows : int array [n_rows]
        Rows to fit on, with repeats.
    pictures : int array [n_rows]
        Number of the picture that each of `rows` shows.

    Returns
    -------
    LayerEvidence
        On the tokens' device.

    Raises
    ------
    InputError
        If there are fewer than 20 pictures.
    """
    sample = _Sample.of(rows, pictures)
    device = tokens.device
    weights = sample.weights.to(device)
    layers = [_LayerTokens.of(layer, weights) for layer in _reduce(tokens, sample)]
    found, at_places = [], []
    for voxels in torch.arange(targets.shape[1]).split(VOXELS_AT_ONCE):
        responses = sample.average(targets, voxels).to(device)
        at_places.append(_compare_places(layers, responses))
        place = at_places[-1].argmin(dim=1)
        errors = torch.empty(len(voxels), len(layers), device=device)
        for cell in place.unique().tolist():
            there = (place == cell).nonzero().squeeze(1)
            for number, layer in enumerate(layers):
                errors[there, number] = layer.errors(cell, FINE, responses[:, there])
        evidence = -sample.n_effective / 2 * errors
        evidence = torch.where((responses == 0).all(dim=0)[:, None], 0.0, evidence)
        found.append(evidence - evidence.amax(dim=1, keepdim=True))
    return LayerEvidence(torch.cat(found), torch.cat(at_places), sample.n_effective)


def agree_with_neighbours(
    evidence: Float[Tensor, "n_voxels n_layers"],
    coords: Float[np.ndarray, "n_voxels 3"],
    coupling: float,
) -> Float[Tensor, "n_voxels n_layers"]:
    """Posterior of each voxel's layer if neighbours tend to read from the same one.

    Mean field of a Potts model: q_n ∝ exp(evidence_n + coupling · J · Σ over the 6 nearest voxels m of q_m),
    iterated from coupling 0. A voxel with clear evidence keeps its layer whatever its neighbours say, so
    borders between areas stay. J is the critical coupling (`critical_coupling`): from there on, voxels
    without evidence would agree on some layer by themselves.

    Parameters
    ----------
    evidence : float tensor [n_voxels, n_layers]
        Log evidence (`layer_evidence`).
    coords : float array [n_voxels, 3]
    coupling : float
        Share of the critical coupling. 0: every voxel for itself.
    """
    posterior = evidence.softmax(dim=1)
    n_near = min(N_NEIGHBOURS, len(coords) - 1)
    if not coupling or not n_near:
        return posterior
    _, near = KDTree(coords).query(coords, n_near + 1)
    others = torch.from_numpy(near[:, 1:]).to(evidence.device)
    log_odds = coupling * critical_coupling(evidence.shape[1], n_near)
    for _ in range(ITERATIONS):
        support = sum(posterior[others[:, number]] for number in range(n_near))
        posterior = (evidence + log_odds * support).softmax(dim=1)
    return posterior


def critical_coupling(n_layers: int, n_neighbours: int) -> float:
    """Log odds per certain neighbour at which a Potts model without evidence orders, in mean field.

    2 (q − 1) ln(q − 1) / ((q − 2) n) for q layers and n neighbours; 2/n for two layers (Wu, "The Potts
    model", Reviews of Modern Physics 54, 1982).
    """
    if n_layers <= 2:
        return 2 / n_neighbours
    return 2 * (n_layers - 1) * math.log(n_layers - 1) / ((n_layers - 2) * n_neighbours)


@dataclass(frozen=True)
class _Sample:
    """Distinct pictures, the rows that show them, and how often each row was drawn."""

    row: Int[Tensor, " n_pictures"]  # one that shows the picture, for its tokens
    weights: Float[Tensor, " n_pictures"]
    rows: Int[Tensor, " n_kept_rows"]
    picture_of_row: Int[Tensor, " n_kept_rows"]

    @classmethod
    def of(cls, rows: np.ndarray, pictures: np.ndarray) -> _Sample:
        distinct, first, place = np.unique(pictures, return_index=True, return_inverse=True)
        if len(distinct) < FEWEST_PICTURES:
            raise InputError(
                f"mapping.anchor: found {len(distinct)} stimuli to fit on, expected at least "
                f"{FEWEST_PICTURES}; set mapping.anchor=none"
            )
        if len(distinct) > MOST_PICTURES:
            kept = np.unique(np.linspace(0, len(distinct) - 1, MOST_PICTURES).round().astype(int))
            renumbered = np.full(len(distinct), -1)
            renumbered[kept] = np.arange(len(kept))
            place, first = renumbered[place], first[kept]
            rows_kept, place = rows[place >= 0], place[place >= 0]
        else:
            rows_kept = rows
        weights = np.bincount(place, minlength=len(first)).astype(np.float32)
        return cls(*map(torch.from_numpy, (rows[first], weights, rows_kept, place)))

    @property
    def n_effective(self) -> float:
        return float(self.weights.sum().square() / self.weights.square().sum())

    def average(
        self, targets: Float[Tensor, "n_images n_voxels"], voxels: Int[Tensor, " n_chosen"]
    ) -> Float[Tensor, "n_pictures n_chosen"]:
        """Mean response to every picture, brought to mean 0 and variance 1 over rows."""
        chosen = targets[:, voxels[0] : voxels[-1] + 1]
        total = chosen.new_zeros(len(self.row), chosen.shape[1])
        total.index_add_(0, self.picture_of_row.to(total.device), chosen[self.rows.to(total.device)])
        weights = self.weights.to(total.device)[:, None]
        mean = total / weights
        mean = mean - (weights * mean).sum(dim=0) / weights.sum()
        deviation = ((weights * mean.square()).sum(dim=0) / weights.sum()).sqrt()
        # constant responses differ from their mean by rounding only
        varies = deviation > 1e-6 * chosen.abs().amax(dim=0)
        return mean * torch.where(varies, 1 / deviation, 0.0)


def _reduce(tokens: StandardTokens, sample: _Sample) -> Iterator[tuple[Tensor, Tensor]]:
    """Project every layer's local [n, n_places, k] and global [n, k] tokens to their leading components."""
    batches = sample.row.split(PICTURES_AT_ONCE)
    n_layers = len(tokens.layers)
    moments = [_Moments() for _ in range(2 * n_layers)]
    for part in tokens.stream(batches):
        for moment, layer in zip(moments, (*part.local, *part.global_), strict=True):
            moment.add(_flat(layer))
    bases = [moment.components(FINE) for moment in moments]
    parts: list[list[Tensor]] = [[] for _ in bases]
    for part in tokens.stream(batches):
        for kept, basis, layer in zip(parts, bases, (*part.local, *part.global_), strict=True):
            kept.append((_flat(layer) @ basis).unflatten(0, (part.n_images, -1)))
    for number in range(n_layers):
        yield torch.cat(parts[number]), torch.cat(parts[n_layers + number]).squeeze(1)
        parts[number], parts[n_layers + number] = [], []


def _flat(layer: Float[Tensor, "n_images n_channels ..."]) -> Float[Tensor, "n_tokens n_channels"]:
    return layer.movedim(1, -1).flatten(0, -2)


class _Moments:
    """Mean and covariance of tokens, batch by batch."""

    def __init__(self) -> None:
        self.n, self.total, self.square = 0, torch.zeros(()), torch.zeros(())

    def add(self, batch: Float[Tensor, "n_tokens n_channels"]) -> None:
        self.n += len(batch)
        self.total = self.total.to(batch) + batch.sum(dim=0)
        self.square = self.square.to(batch) + batch.T @ batch

    def components(self, number: int) -> Float[Tensor, "n_channels n_components"]:
        """Leading eigenvectors of the covariance, largest first."""
        mean = self.total / self.n
        _, vectors = torch.linalg.eigh(self.square / self.n - torch.outer(mean, mean))
        return vectors.flip(1)[:, :number]


@dataclass(frozen=True)
class _LayerTokens:
    """Components of one layer's tokens, centred."""

    local: Float[Tensor, "n_places n_pictures n_components"]
    global_: Float[Tensor, "n_pictures n_components"]
    weights: Float[Tensor, " n_pictures"]

    @classmethod
    def of(cls, parts: tuple[Tensor, Tensor], weights: Float[Tensor, " n_pictures"]) -> _LayerTokens:
        local, global_ = parts
        share = weights / weights.sum()
        local = local.transpose(0, 1)
        local = local - torch.einsum("i,pik->pk", share, local)[:, None]
        return cls(local, global_ - share @ global_, weights)

    def errors(
        self, place: int, n_components: int, responses: Float[Tensor, "n_pictures n_voxels"]
    ) -> Float[Tensor, " n_voxels"]:
        """Log of the generalised cross-validation error of ridge, at its best penalty."""
        share = self.weights / self.weights.sum()
        parts = []
        for part in (self.local[place], self.global_):
            chosen = part[:, :n_components]
            square = (share @ chosen.square()).sum()
            parts.append(chosen / torch.where(square > 0, (2 * square).sqrt(), torch.inf))
        features = torch.cat(parts, dim=1)
        weighted = (features * share[:, None]).T
        variances, directions = torch.linalg.eigh(weighted @ features)
        variances = variances.clamp(min=0)[:, None]
        explained = (directions.T @ (weighted @ responses)).square()
        penalties = torch.tensor(PENALTIES, device=features.device)
        kept = variances / (variances + penalties)
        # y'y − y'(2H − H²)y in the eigenbasis
        error = 1 - ((2 - kept) / (variances + penalties)).T @ explained
        freedom = 1 - (1 + kept.sum(dim=0)) / len(features)
        # beyond as many degrees of freedom as pictures, the criterion has no meaning
        usable = freedom > 0.05
        found = error.clamp(min=1e-6)[usable].log() - 2 * freedom[usable, None].log()
        return found.amin(dim=0)


def _compare_places(
    layers: list[_LayerTokens], responses: Float[Tensor, "n_pictures n_voxels"]
) -> Float[Tensor, "n_voxels n_places"]:
    """Log error of every voxel from every token, by the layer that predicts it best from there."""
    found = [
        torch.stack([layer.errors(place, COARSE, responses) for layer in layers]).amin(dim=0)
        for place in range(len(layers[0].local))
    ]
    return torch.stack(found, dim=1)
