"""A plain encoding model beside every mapping: one ridge regression on all layers together.

It has no selectors and says nothing of layers or places. Its R² is what a mapping's is to be compared with:
the step from "the network predicts this voxel" to "the mapping finds what predicts it".
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from harness.mappings.data import FitData, FitOptions
from harness.mappings.layer_ridge import (
    draw_folds,
    himalaya_on,
    layer_features,
    ridge_model,
)
from harness.mappings.voxel_scores import score

ALPHAS = [float(10**power) for power in np.linspace(-4, 4, 9)]
"""Penalties; an image's features have mean square 1 in sum."""
N_FOLDS = 5


def fit_reference_ridge(data: FitData, options: FitOptions) -> Float[np.ndarray, " n_voxels"]:
    """R² on held-out stimuli of a ridge regression (himalaya) on the mean and global tokens of all layers.

    Every voxel has the penalty of `ALPHAS` that cross-validates best. Each layer has the same share of the
    features' variance. With `options.bootstrap`, the training stimuli are drawn with replacement, as for a
    mapping; copies of a picture share a fold.

    Raises
    ------
    TooFewStimuliError
        If there are too few stimuli for the folds.
    """
    split, device = data.split, options.device
    train, folds = draw_folds(split, N_FOLDS, options.seed, options.bootstrap)
    layers = [
        layer_features(local.to(device), global_.to(device), split.train, 1, None)
        for local, global_ in zip(data.tokens.local, data.tokens.global_, strict=True)
    ]
    features = torch.cat(layers, dim=1) / len(layers) ** 0.5
    targets = torch.as_tensor(data.responses[train], dtype=torch.float32, device=device)
    with himalaya_on(device):
        model = ridge_model(len(train), features.shape[1], ALPHAS, folds)
        prediction = model.fit(features[train], targets).predict(features[split.held_out])
    return score(prediction.cpu().numpy(), np.asarray(data.responses)[split.held_out])[0]
