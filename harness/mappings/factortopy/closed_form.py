"""The parts of a fit that need no gradient descent: where voxels begin to read, and their weights.

Places: descent finds them slowly, since a voxel's error tells of a place only next to it. Weights: given all
selectors and bottlenecks, the best ones are a ridge regression per voxel. Penalties by generalised
cross-validation: Golub, Heath and Wahba, Technometrics 21 (1979).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.spatial import KDTree
from torch import Tensor

from harness.mappings.factortopy.anchor import (
    N_NEIGHBOURS,
    LayerEvidence,
)
from harness.mappings.factortopy.model import FactorTopy
from harness.mappings.factortopy.selectors import SelectorModel
from harness.mappings.training import FitSample, cut_voxels

PENALTIES = tuple(float(10**power) for power in np.linspace(-3, 3, 13))  # times the mean eigenvalue
LEAST_FREEDOM = 0.05  # with a smaller share of free pictures, the criterion has no meaning
IMAGES_AT_ONCE, VOXELS_AT_ONCE = 256, 2048
# of the space selector's network, when it learns places before the fit
PLACE_STEPS, PLACE_RATE = 60, 1e-2
PLACE_GAINS = (4.0, 2.0)  # first and second weights begin larger: neighbouring areas read far apart
FARTHEST = 0.95  # from the image's centre, where tanh still learns
MOST_EFFECTIVE = 640.0  # pictures; more would leave no doubt between neighbouring places


def choose_places(
    evidence: LayerEvidence, coords: Float[np.ndarray, "n_voxels 3"], height: int, width: int
) -> Float[Tensor, "n_voxels 2"]:
    """Choose where every voxel begins to read: the mean of all places, by how well one predicts it.

    With R²_np = 1 − exp(E_np), the cross-validated R² of voxel n from its best layer at place p alone, and
    S_np its mean over n and the 6 nearest voxels,

        u_n = Σ_p softmax_p(S_np / τ_n) p,    τ_n = 2 (1 − max_p S_np) / m_e,

    m_e effective pictures, at most 640: where pictures are few or places alike, u is a mean of many.

    Parameters
    ----------
    evidence : LayerEvidence
    coords : float array [n_voxels, 3]
    height, width : int
        Number of places along the image's axes.

    Returns
    -------
    float tensor [n_voxels, 2], -1 to 1
    """
    _, near = KDTree(coords).query(coords, min(N_NEIGHBOURS + 1, len(coords)))
    r2 = 1 - evidence.place.exp()
    score = r2[torch.from_numpy(near.reshape(len(coords), -1)).to(r2.device)].mean(dim=1)
    best = score.amax(dim=1, keepdim=True)
    doubt = 2 * (1 - best).clamp(min=1e-6) / min(evidence.n_effective, MOST_EFFECTIVE)
    rows, columns = ((torch.arange(n, device=r2.device) + 0.5) / n * 2 - 1 for n in (height, width))
    grid = torch.stack([columns.repeat(height), rows.repeat_interleave(width)], dim=1)
    return (score / doubt).softmax(dim=1) @ grid


def begin_at(model: FactorTopy, places: Float[Tensor, "n_voxels 2"]) -> None:
    """Train the space selector's network alone to read at `places`, which smooths them over the cortex."""
    network = model.space_selector
    goal = places.clamp(-FARTHEST, FARTHEST)
    weights = [part for part in network.parameters() if part.ndim == 2]
    with torch.no_grad():
        for weight, gain in zip(weights, PLACE_GAINS, strict=False):
            weight.mul_(gain)
    optimizer = torch.optim.AdamW(network.parameters(), lr=PLACE_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PLACE_RATE, total_steps=PLACE_STEPS)
    for _ in range(PLACE_STEPS):
        optimizer.zero_grad()
        F.mse_loss(model.space(), goal).backward()
        optimizer.step()
        schedule.step()
    optimizer.zero_grad()


@torch.no_grad()
def solve_weights(model: SelectorModel, sample: FitSample, voxels_per_pass: int) -> None:
    """Set every voxel's weights and bias by ridge regression on what its selectors read.

    For voxel n with features v_n (`SelectorModel`), centred over the rows to fit on:
    w = D (G + λ)⁻¹ q with G = ⟨v vᵀ⟩ and q = ⟨v y⟩. Of 13 penalties from 10⁻³ to 10³ times G's mean
    eigenvalue, λ minimises ⟨(y − wᵀv/D)²⟩ / (1 − df/m)² over m pictures, df = 1 + tr G (G + λ)⁻¹. A picture
    counts as one, however often a bootstrap drew it.

    Parameters
    ----------
    model : SelectorModel
        Its `weight` and `bias` are set.
    sample : FitSample
    voxels_per_pass : int
        Bounds memory: n × D² numbers at a time.
    """
    rows, counts = torch.from_numpy(sample.rows).unique(return_counts=True)
    n_pictures = len(np.unique(sample.pictures))
    device = sample.targets.device
    share = (counts / counts.sum()).to(device, torch.float32)
    for voxels in cut_voxels(len(model.bias), voxels_per_pass):
        responses = sample.targets[rows.to(device), voxels]
        mean = share @ responses
        responses = responses - mean
        square, product, centre = _moments(model, sample, rows, share, responses, voxels)
        weight = _ridge(square, product, share @ responses.square(), n_pictures)
        model.weight[voxels] = weight * weight.shape[1]
        model.bias[voxels] = mean - (weight * centre).sum(dim=1)


def _moments(
    model: SelectorModel,
    sample: FitSample,
    rows: Tensor,
    share: Tensor,
    responses: Float[Tensor, "n_rows n_voxels"],
    voxels: slice,
) -> tuple[Float[Tensor, "n_voxels d d"], Float[Tensor, "n_voxels d"], Float[Tensor, "n_voxels d"]]:
    """Compute G, q and the mean of v for some voxels, batch by batch of images."""
    n_voxels, n_channels = responses.shape[1], model.weight.shape[1]
    square = responses.new_zeros(n_voxels, n_channels, n_channels)
    product, centre = (responses.new_zeros(n_voxels, n_channels) for _ in range(2))
    selectors = model.selectors(voxels)
    batches = rows.split(IMAGES_AT_ONCE)
    first = 0
    for part in sample.tokens.stream(batches):
        images = slice(first, first + part.n_images)
        for chosen, read in model.read(part.local, part.global_, selectors, VOXELS_AT_ONCE):
            weighted = (read * share[images, None]).transpose(1, 2)
            square[chosen] += weighted @ read
            product[chosen] += (weighted @ responses[images, chosen].T[:, :, None]).squeeze(2)
            centre[chosen] += weighted.sum(dim=2)
        first += part.n_images
    return square - centre[:, :, None] * centre[:, None, :], product, centre


def _ridge(
    square: Float[Tensor, "n_voxels d d"],
    product: Float[Tensor, "n_voxels d"],
    variance: Float[Tensor, " n_voxels"],
    n_pictures: int,
) -> Float[Tensor, "n_voxels d"]:
    """Solve every voxel's ridge regression at the penalty that cross-validates best."""
    values, vectors = torch.linalg.eigh(square)
    values = values.clamp(min=0)
    product = (vectors.transpose(1, 2) @ product[:, :, None]).squeeze(2)
    # all 0 where a voxel reads nothing that varies: then its weights are 0 as well
    scale = values.mean(dim=1).clamp(min=torch.finfo(values.dtype).tiny)
    best = torch.full_like(variance, torch.inf)
    penalty = PENALTIES[-1] * scale
    for relative in PENALTIES:
        kept = values + relative * scale[:, None]
        error = variance - (product.square() * (2 / kept - values / kept.square())).sum(dim=1)
        freedom = 1 - (1 + (values / kept).sum(dim=1)) / n_pictures
        found = torch.where(freedom > LEAST_FREEDOM, error.clamp(min=0) / freedom.square(), torch.inf)
        penalty = torch.where(found < best, relative * scale, penalty)
        best = torch.minimum(best, found)
    return (vectors @ (product / (values + penalty[:, None]))[:, :, None]).squeeze(2)
