"""Cross-validated ridge per layer recovers planted layers and agrees with its definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from himalaya.backend import get_backend
from himalaya.ridge import RidgeCV
from planted import N_IMAGES, NOISE, check_family, fit_planted, make_planted
from sklearn.linear_model import Ridge
from sklearn.model_selection import PredefinedSplit

from harness.config.mapping import LayerRidgeConfig
from harness.mappings import layer_ridge
from harness.mappings.layer_ridge import layer_features
from harness.mappings.splits import (
    Split,
    split_by_seed,
    split_stimuli,
)
from harness.storage.errors import InputError

CONFIG = LayerRidgeConfig(pool=4)
QUICK = LayerRidgeConfig(pool=1, alphas=[0.1, 10.0], n_folds=3)


def test_planted_layers_are_recovered() -> None:
    planted = make_planted()
    mapping = fit_planted(planted, CONFIG)
    assert (mapping.layer.argmax(axis=1) == planted.layer).mean() > 0.95
    # more features than FactorTopy has to learn: 240 stimuli do not reach the ceiling
    assert mapping.r2.mean() > 0.8 * (1 - NOISE)
    assert mapping.correlation.mean() > 0.75
    absent = (mapping.space, mapping.scale, mapping.weights, mapping.bias)
    assert absent == (None, None, None, None)
    assert mapping.steps == 0


def test_interface() -> None:
    check_family(QUICK)


class Stopped(Exception):
    pass


def drawn(
    split: Split, n_folds: int, seed: int, bootstrap: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[np.ndarray, PredefinedSplit]:
    """Return the stimuli and folds passed to himalaya; a stimulus's response is its number."""
    given = []

    class Regression(RidgeCV):
        def __init__(self, cv: PredefinedSplit, **options: object) -> None:
            given.append(cv)

        def fit(self, features: torch.Tensor, targets: torch.Tensor) -> None:
            given.append(targets[:, 0].numpy().astype(int))
            raise Stopped

    planted = make_planted()
    numbers = np.tile(np.arange(N_IMAGES, dtype=np.float32)[:, None], planted.responses.shape[1])
    config = QUICK.model_copy(update={"n_folds": n_folds})
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(layer_ridge, "RidgeCV", Regression)
        patch.setattr(layer_ridge, "KernelRidgeCV", Regression)
        fit_planted(replace(planted, responses=numbers), config, seed, bootstrap, split=split)
    folds, train = given
    return train, folds


def test_definition_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with plain ridge regressions (a single penalty), their softmax and mixture."""
    planted = make_planted()
    some = slice(0, 10)
    planted = replace(planted, responses=planted.responses[:, some], coords=planted.coords[some])
    config = LayerRidgeConfig(pool=2, alphas=[0.3], n_folds=4, temperature=0.1)
    mapping = fit_planted(planted, config, seed=3)
    split = split_stimuli(N_IMAGES, 0.2, seed=0)
    train, folds = drawn(split, 4, 3, False, monkeypatch)
    scores, predictions = [], []
    for local, global_ in zip(planted.tokens.local, planted.tokens.global_, strict=True):
        features = layer_features(local, global_, split.train, 2, None).numpy()
        ridge, r2 = Ridge(0.3), []
        for fitted, scored in folds.split():
            ridge.fit(features[train[fitted]], planted.responses[train[fitted]])
            truth = planted.responses[train[scored]]
            error = np.square(truth - ridge.predict(features[train[scored]])).sum(0)
            r2.append(1 - error / np.square(truth - truth.mean(0)).sum(0))
        scores.append(np.mean(r2, axis=0).clip(0))
        predictions.append(ridge.fit(features[train], planted.responses[train]).predict(features))
    layer = np.exp(np.stack(scores, axis=1) / 0.1)
    layer /= layer.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(mapping.layer, layer, atol=1e-3)
    prediction = np.einsum("nl,lin->in", layer, predictions)[split.held_out]
    truth = planted.responses[split.held_out]
    r2 = 1 - np.square(truth - prediction).sum(0) / np.square(truth - truth.mean(0)).sum(0)
    np.testing.assert_allclose(mapping.r2, r2, atol=1e-3)


def test_few_stimuli_are_solved_by_kernel_alike() -> None:
    """Fewer stimuli than features use himalaya's kernel ridge; duplicating features forces that."""
    planted = make_planted()
    config = QUICK.model_copy(update={"pool": 4})
    repeated = tuple(layer.repeat(1, 3, 1, 1) for layer in planted.tokens.local)
    global_ = tuple(layer.repeat(1, 3) for layer in planted.tokens.global_)
    wide = replace(planted, tokens=replace(planted.tokens, local=repeated, global_=global_))
    one, other = fit_planted(planted, config), fit_planted(wide, config)
    np.testing.assert_allclose(one.layer, other.layer, atol=1e-3)
    np.testing.assert_allclose(one.r2, other.r2, atol=1e-3)
    assert get_backend().name == "numpy"  # himalaya's global setting is unchanged


def test_copies_of_a_stimulus_are_in_one_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise noise would be predicted; responses of pure noise must prefer no layer."""
    planted = make_planted()
    split = split_stimuli(N_IMAGES, 0.2, seed=0)
    train, folds = drawn(split, 5, 0, True, monkeypatch)
    assert len(np.unique(train)) < len(train) == len(split.train)
    for fitted, scored in folds.split():
        assert not np.intersect1d(train[fitted], train[scored]).size
    noise = np.random.default_rng(0).standard_normal(planted.responses.shape).astype(np.float32)
    mapping = fit_planted(replace(planted, responses=noise), CONFIG, bootstrap=True)
    assert mapping.layer.max(axis=1).mean() < 0.6
    assert abs(mapping.r2.mean()) < 0.05


def test_repeats_of_a_picture_are_in_one_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.arange(N_IMAGES) % 25
    split = split_by_seed(picture, 0.2, seed=0)
    for bootstrap in (False, True):
        train, folds = drawn(split, 5, 0, bootstrap, monkeypatch)
        assert np.isin(train, split.train).all()
        for fitted, scored in folds.split():
            assert not np.intersect1d(picture[train[fitted]], picture[train[scored]]).size


def test_layer_features() -> None:
    generator = torch.Generator().manual_seed(0)
    local = torch.randn(12, 3, 4, 4, generator=generator) * 5 + 2
    global_ = torch.randn(12, 3, generator=generator)
    global_[:, 1] = 0.1
    train = np.arange(8)
    found = layer_features(local, global_, train, 2, None)
    assert found.shape == (12, 3 * 5)
    raw = torch.cat([global_, F.avg_pool2d(local, 2).flatten(1)], dim=1)
    expected = (raw - raw[:8].mean(0)) / raw[:8].std(0, correction=0) / 15**0.5
    expected[:, 1] = 0  # the same for every image
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    # components are a rotation: all keep distances between training stimuli, fewer keep the most variance
    rotated = layer_features(local, global_, train, 2, 14)
    torch.testing.assert_close(torch.cdist(rotated[:8], rotated[:8]), torch.cdist(found[:8], found[:8]))
    few = layer_features(local, global_, train, 2, 3)
    torch.testing.assert_close(few, rotated[:, :3])
    assert few[:8].var(0).diff().max() < 0


def test_settings_that_do_not_fit_are_refused() -> None:
    planted = make_planted()
    with pytest.raises(InputError, match=r"mapping\.pool: found 5.*4 x 4"):
        fit_planted(planted, LayerRidgeConfig(pool=5))
    with pytest.raises(InputError, match=r"mapping\.n_folds: found 200 with 240 stimuli"):
        fit_planted(planted, LayerRidgeConfig(n_folds=200))
