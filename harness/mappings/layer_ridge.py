"""Ridge regression from every layer to every voxel, with layers weighted by cross-validated scores.

The common way to map a network to a brain: layers are fitted separately, without jointly learned selectors,
and compete only by how well each predicts alone. Solved with himalaya (Dupré la Tour, Eickenberg,
Nunez-Elizalde and Gallant, NeuroImage 2022), which chooses the penalty per voxel.
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

from harness.config import LayerRidgeConfig
from harness.mappings.data import (
    FitData,
    FitOptions,
)
from harness.mappings.mapping import Mapping
from harness.mappings.splits import Split
from harness.mappings.voxel_scores import score
from harness.storage import (
    InputError,
    progress_bar,
)

VOXELS_AT_ONCE = 2000  # bounds memory: himalaya keeps the predictions of all penalties for this many voxels


class TooFewStimuliError(InputError):
    """There are fewer stimuli than cross-validation needs."""


def fit_layer_ridge(data: FitData, config: LayerRidgeConfig, options: FitOptions) -> Mapping:
    """Fit ridge regressions on the training stimuli and score their mixture on the held-out ones.

    For every layer l and voxel n, with features x_l (`layer_features`):

        ŷ_nl = argmin over linear functions f with an intercept of Σ (y_n − f(x_l))² + λ_nl |f|²
        s_nl = mean R² of ŷ_nl over `n_folds` folds of the training stimuli, at the best λ_nl of `alphas`;
               0 if that is negative, because such a layer says no less than noise
        ω_nl = softmax over l of s_nl / temperature
        ŷ_n  = Σ_l ω_nl ŷ_nl, each ŷ_nl refitted on all training stimuli

    The mapping has the layer distribution ω and scores, but no place, scale or channels. `options.start` has
    no effect.

    `options.seed` draws the bootstrap sample and the folds. All bootstrap copies and repeats of a stimulus
    are in one fold; otherwise models would be scored on stimuli that they were fitted on, which favours the
    smallest penalty and the widest layer.

    Raises
    ------
    InputError
        If `pool` exceeds the grid of local tokens, or there are too few stimuli for `n_folds`.
    """
    tokens, split, device = data.tokens, data.split, options.device
    train, folds = draw_folds(split, config.n_folds, options.seed, options.bootstrap)
    targets = torch.as_tensor(data.responses[train], dtype=torch.float32, device=device)
    scores, predictions = [], []
    layers = zip(tokens.local, tokens.global_, strict=True)
    with himalaya_on(device):
        for local, global_ in progress_bar(layers, options.progress, total=len(tokens.layers)):
            features = layer_features(
                local.to(device), global_.to(device), split.train, config.pool, config.n_components
            )
            model = ridge_model(len(train), features.shape[1], config.alphas, folds)
            model.fit(features[train], targets)
            scores.append(model.cv_scores_.to(device))
            predictions.append(model.predict(features[split.held_out]).to(device))
    cross_validated = torch.stack(scores, dim=1).nan_to_num(nan=0.0).clamp(min=0)
    layer = (cross_validated / config.temperature).softmax(dim=1)
    prediction = torch.einsum("nl,lin->in", layer, torch.stack(predictions))
    r2, correlation = score(prediction.cpu().numpy(), np.asarray(data.responses)[split.held_out])
    return Mapping(
        layers=tokens.layers,
        layer=layer.cpu().numpy(),
        r2=r2,
        correlation=correlation,
        steps=0,
        family=config.family,
    )


def layer_features(
    local: Float[Tensor, "n_images n_channels height width"],
    global_: Float[Tensor, "n_images n_channels"],
    train: Int[np.ndarray, " n_train"],
    pool: int,
    n_components: int | None,
) -> Float[Tensor, "n_images n_features"]:
    """Flatten a layer's tokens to one feature vector per image.

    The features are the global token and the local tokens averaged to `pool` × `pool` places:
    n_channels · (1 + pool²) in all. Each has mean 0 and variance 1 over the training stimuli; constant
    features are 0. All are then divided by the root of their number, so that a penalty means the same in
    layers of any width.

    Layers with more than `n_components` features are reduced to that many principal components of the
    training stimuli, which makes regressions with many stimuli and features affordable. Components keep
    their variances, so the dropped ones matter little.

    Raises
    ------
    InputError
        If `pool` exceeds the grid of local tokens.
    """
    if pool > min(local.shape[2:]):
        found = f"{local.shape[2]} x {local.shape[3]}"
        raise InputError(f"mapping.pool: found {pool}, expected at most the grid of local tokens ({found})")
    pooled = F.adaptive_avg_pool2d(local.float(), pool).flatten(1)
    features = torch.cat([global_.float(), pooled], dim=1).double()
    fitted = features[train]
    centre, deviation = fitted.mean(dim=0), fitted.std(dim=0, correction=0)
    # constant features differ from their mean by rounding only
    varies = deviation > 1e-6 * fitted.abs().amax(dim=0)
    features = (features - centre) / torch.where(varies, deviation, torch.inf) / features.shape[1] ** 0.5
    if n_components is not None and n_components < features.shape[1]:
        _, _, directions = torch.linalg.svd(features[train], full_matrices=False)
        features = features @ directions[:n_components].T
    return features.float()


def draw_folds(
    split: Split, n_folds: int, seed: int, bootstrap: bool
) -> tuple[Int[np.ndarray, " n_train"], PredefinedSplit]:
    """Draw training rows, possibly with repeats, and folds of them that share no picture."""
    generator = np.random.default_rng(seed)
    train = np.sort(generator.choice(split.train, len(split.train))) if bootstrap else split.train
    distinct, place = np.unique(split.shown_in(train), return_inverse=True)
    if len(distinct) < 2 * n_folds:
        raise TooFewStimuliError(
            f"mapping.n_folds: found {n_folds} with {len(distinct)} stimuli to fit on, "
            "expected at most half as many folds as stimuli"
        )
    fold = generator.permutation(np.arange(len(distinct)) % n_folds)
    return train, PredefinedSplit(fold[place])


def ridge_model(
    n_train: int, n_features: int, alphas: list[float], folds: PredefinedSplit
) -> KernelRidgeCV | RidgeCV:
    """Build a regression in its cheaper form: cost is cubic in stimuli (kernel) or features (primal)."""
    options = {"score_func": r2_score, "n_targets_batch": VOXELS_AT_ONCE}
    kind = KernelRidgeCV if n_train <= n_features else RidgeCV
    return kind(alphas=alphas, fit_intercept=True, cv=folds, solver_params=options)


@contextmanager
def himalaya_on(device: str | torch.device) -> Iterator[None]:
    """Set himalaya's array backend, which is global, and restore it afterwards."""
    before = get_backend().name
    set_backend("torch_cuda" if torch.device(device).type == "cuda" else "torch")
    try:
        yield
    finally:
        set_backend(before)
