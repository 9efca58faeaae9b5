"""The ridge regression beside every mapping."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import N_IMAGES, make_planted
from sklearn.linear_model import Ridge

from harness.mappings.data import FitData, FitOptions
from harness.mappings.layer_ridge import TooFewStimuliError
from harness.mappings.reference_ridge import ALPHAS, fit_reference_ridge
from harness.mappings.splits import Split, split_stimuli

OPTIONS = FitOptions(seed=0, bootstrap=False, device=torch.device("cpu"))


def data_of(responses: np.ndarray | None = None, split: Split | None = None) -> FitData:
    planted = make_planted()
    return FitData(
        planted.tokens,
        planted.responses if responses is None else responses,
        planted.coords,
        planted.bounding_box,
        split or split_stimuli(N_IMAGES, 0.2, seed=0),
    )


def test_it_is_ridge_on_the_mean_and_global_tokens_of_all_layers() -> None:
    data = data_of()
    found = fit_reference_ridge(data, OPTIONS)
    train, unseen = data.split.train, data.split.held_out
    parts = []
    for local, whole in zip(data.tokens.local, data.tokens.global_, strict=True):
        layer = torch.cat([whole, local.mean((2, 3))], dim=1).double().numpy()
        layer = (layer - layer[train].mean(0)) / layer[train].std(0)
        parts.append(layer / layer.shape[1] ** 0.5)
    features = np.hstack(parts) / len(parts) ** 0.5
    truth = data.responses[unseen]
    best = []
    for alpha in ALPHAS:
        guess = Ridge(alpha=alpha).fit(features[train], data.responses[train]).predict(features[unseen])
        best.append(1 - ((truth - guess) ** 2).sum(0) / ((truth - truth.mean(0)) ** 2).sum(0))
    # every voxel's R² is that of one of the penalties
    assert (np.abs(np.array(best) - found).min(axis=0) < 2e-3).all()
    assert np.abs(np.array(best).max(axis=0) - found).mean() < 0.02
    assert found.mean() > 0.1


def test_it_predicts_what_means_tell_and_nothing_else() -> None:
    planted, rng = make_planted(), np.random.default_rng(0)
    mean = planted.tokens.local[1].mean((2, 3))[:, :1].numpy()
    noise = rng.standard_normal((N_IMAGES, 1))
    responses = np.hstack([mean / mean.std(), noise]).astype(np.float32)
    few = FitData(
        planted.tokens,
        responses,
        planted.coords[:2],
        planted.bounding_box,
        split_stimuli(N_IMAGES, 0.2, seed=0),
    )
    told, nothing = fit_reference_ridge(few, OPTIONS)
    assert told > 0.95 and nothing < 0.05


def test_samples_are_drawn_as_for_a_mapping() -> None:
    one, again, other = (
        fit_reference_ridge(data_of(), FitOptions(seed, True, torch.device("cpu"))) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert one.mean() < fit_reference_ridge(data_of(), OPTIONS).mean()


def test_too_few_stimuli_are_an_error_of_their_own() -> None:
    split = split_stimuli(N_IMAGES, 0.2, seed=0)
    with pytest.raises(TooFewStimuliError, match="9 stimuli"):
        fit_reference_ridge(data_of(split=Split(split.train[:9], split.held_out)), OPTIONS)
