"""Ridge regression from every layer to every voxel; a voxel's layers are weighed by cross-validated scores.

The common way of mapping a network to a brain, without selectors that are learned together: layers do not
compete while they are fitted, only by how well each predicts alone. Solved with himalaya (Dupré la Tour,
Eickenberg, Nunez-Elizalde and Gallant, NeuroImage 2022), which chooses the penalty per voxel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from himalaya.backend import get_backend, set_backend
from himalaya.kernel_ridge import KernelRidgeCV
from himalaya.ridge import RidgeCV
from himalaya.scoring import r2_score
from jaxtyping import Float, Int
from sklearn.model_selection import PredefinedSplit
from torch import Tensor
from tqdm import tqdm

from harness.config import LayerRidgeConfig
from harness.mappings.mapping import Mapping
from harness.mappings.splits import Split
from harness.mappings.training import check_inputs
from harness.mappings.voxel_scores import score
from harness.storage import InputError
from harness.tokens import LayerTokens

VOXELS_AT_ONCE = 2000  # himalaya holds predictions of all penalties for so many


def fit_layer_ridge(
    tokens: LayerTokens,
    responses: Float[np.ndarray, "n_images n_voxels"],
    coords: Float[np.ndarray, "n_voxels 3"],
    bounding_box: Float[np.ndarray, "2 3"],
    split: Split,
    config: LayerRidgeConfig,
    seed: int,
    bootstrap: bool = False,
    device: str | torch.device = "cpu",
    progress: str | None = None,
) -> Mapping:
    """Fit ridge regressions on the training stimuli and score their mixture on the held-out ones.

    For every layer l and voxel n, with features x_l (`layer_features`):

        ŷ_nl = argmin over linear functions f with an intercept of Σ (y_n − f(x_l))² + λ_nl |f|²
        s_nl = R² of ŷ_nl, mean over `n_folds` folds of the training stimuli, at the λ_nl of `alphas` where
               it is highest; 0 where that is below 0, as such a layer says no less than one of noise
        ω_nl = softmax over l of s_nl / temperature
        ŷ_n  = Σ_l ω_nl ŷ_nl, each ŷ_nl fitted anew on all training stimuli

    The mapping has the layer distribution ω and scores, no place, scale or channels.

    Parameters and errors are those of `factortopy.fit.fit`; `seed` draws the bootstrap sample and the folds.
    All copies that a bootstrap sample has of a stimulus, and all its repeats, are in one fold: else a model
    would be scored on stimuli that it was fitted on, and would find the smallest penalty and the widest
    layer the best.
    """
    check_inputs(tokens, responses, coords, split)
    train, folds = _draw(split, config.n_folds, seed, bootstrap)
    targets = torch.as_tensor(responses[train], dtype=torch.float32, device=device)
    scores, predictions = [], []
    layers = zip(tokens.local, tokens.global_, strict=True)
    with _himalaya_on(device):
        for local, global_ in tqdm(
            layers, progress, len(tokens.layers), disable=progress is None, leave=False
        ):
            features = layer_features(
                local.to(device), global_.to(device), split.train, config.pool, config.n_components
            )
            model = _ridge(len(train), features.shape[1], config.alphas, folds)
            model.fit(features[train], targets)
            scores.append(model.cv_scores_.to(device))
            predictions.append(model.predict(features[split.held_out]).to(device))
    cross_validated = torch.stack(scores, dim=1).nan_to_num(nan=0.0).clamp(min=0)
    layer = (cross_validated / config.temperature).softmax(dim=1)
    prediction = torch.einsum("nl,lin->in", layer, torch.stack(predictions))
    r2, correlation = score(prediction.cpu().numpy(), np.asarray(responses)[split.held_out])
    return Mapping(
        layers=tokens.layers,
        layer=layer.cpu().numpy(),
        r2=r2,
        correlation=correlation,
        steps=0,
        family="layer_ridge",
    )


def layer_features(
    local: Float[Tensor, "n_images n_channels height width"],
    global_: Float[Tensor, "n_images n_channels"],
    train: Int[np.ndarray, " n_train"],
    pool: int,
    n_components: int | None,
) -> Float[Tensor, "n_images n_features"]:
    """What a layer says of each image, as one vector.

    The global token and the local ones, averaged to `pool` by `pool` places, side by side:
    n_channels · (1 + pool²) features. Each has mean 0 and variance 1 over the training stimuli (a feature
    that does not vary there is 0). All are then divided by the root of their number, so that a penalty
    means the same in layers of any width. `n_components` principal components of the training stimuli, if
    a layer has more features, are for where there are many stimuli and features, whose regression is
    dear; they keep their variances, so that what is left out counts for little.

    Raises
    ------
    InputError
        If `pool` is larger than the grid of local tokens.
    """
    if pool > min(local.shape[2:]):
        found = f"{local.shape[2]} x {local.shape[3]}"
        raise InputError(f"mapping.pool: found {pool}, accepted: up to the local tokens' rows ({found})")
    pooled = F.adaptive_avg_pool2d(local.float(), pool).flatten(1)
    features = torch.cat([global_.float(), pooled], dim=1).double()
    fitted = features[train]
    centre, deviation = fitted.mean(dim=0), fitted.std(dim=0, correction=0)
    # what does not vary differs from its mean by rounding only
    varies = deviation > 1e-6 * fitted.abs().amax(dim=0)
    features = (features - centre) / torch.where(varies, deviation, torch.inf) / features.shape[1] ** 0.5
    if n_components is not None and n_components < features.shape[1]:
        _, _, directions = torch.linalg.svd(features[train], full_matrices=False)
        features = features @ directions[:n_components].T
    return features.float()


def _draw(
    split: Split, n_folds: int, seed: int, bootstrap: bool
) -> tuple[Int[np.ndarray, " n_train"], PredefinedSplit]:
    """Training rows, possibly with repeats, and folds of them that share no picture."""
    generator = np.random.default_rng(seed)
    train = np.sort(generator.choice(split.train, len(split.train))) if bootstrap else split.train
    distinct, place = np.unique(split.shown_in(train), return_inverse=True)
    if len(distinct) < 2 * n_folds:
        raise InputError(
            f"mapping.n_folds: found {n_folds} with {len(distinct)} stimuli to fit on; "
            "accepted: up to half as many"
        )
    fold = generator.permutation(np.arange(len(distinct)) % n_folds)
    return train, PredefinedSplit(fold[place])


def _ridge(
    n_train: int, n_features: int, alphas: list[float], folds: PredefinedSplit
) -> KernelRidgeCV | RidgeCV:
    """One regression, by stimuli or by features, whichever are fewer: the cost goes with that, cubed."""
    options = {"score_func": r2_score, "n_targets_batch": VOXELS_AT_ONCE}
    kind = KernelRidgeCV if n_train <= n_features else RidgeCV
    return kind(alphas=alphas, fit_intercept=True, cv=folds, solver_params=options)


@contextmanager
def _himalaya_on(device: str | torch.device) -> Iterator[None]:
    """Himalaya's kind of arrays is a global setting: put back afterwards."""
    before = get_backend().name
    set_backend("torch_cuda" if torch.device(device).type == "cuda" else "torch")
    try:
        yield
    finally:
        set_backend(before)
