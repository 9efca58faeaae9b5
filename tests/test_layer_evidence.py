"""Evidence per layer, held against scikit-learn's ridge and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from harness.mappings.layer_evidence import (
    PENALTIES,
    Region,
    choose_penalties,
    loo_operator,
    measure_evidence,
    pool_tokens,
    stacked_weights,
    standardise,
)
from harness.storage.errors import InputError
from harness.tokens.extraction import LayerTokens


def draw(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n_features", "penalty"), [(5, 0.3), (60, 2.0)])
def test_leave_one_out_errors_are_those_of_refitted_ridges(n_features: int, penalty: float) -> None:
    features = standardise(draw(30, n_features))
    responses = draw(30, 3, seed=1) + 7  # the intercept is free
    ridge = Ridge(alpha=penalty)
    predicted = cross_val_predict(ridge, features.numpy(), responses.numpy(), cv=LeaveOneOut())
    centred = responses - responses.mean(dim=0)
    found = loo_operator(features, penalty) @ centred
    np.testing.assert_allclose(found, responses.numpy() - predicted, atol=1e-10)


def test_features_are_standardised_and_constant_ones_are_zero() -> None:
    features = draw(40, 4) * torch.tensor([1.0, 100.0, 1e-3, 0.0]) + 5
    found = standardise(features)
    assert torch.allclose(found.square().sum(dim=1).mean(), torch.tensor(0.75, dtype=torch.float64))
    assert (found[:, 3] == 0).all()


def test_regions_average_their_voxels() -> None:
    features = [draw(50, 8, seed=2), draw(50, 12, seed=3)]
    responses = draw(50, 6, seed=4)
    regions = [Region("V1", np.array([4, 0, 2])), Region("V2", np.array([5]))]
    found = measure_evidence(features, responses, regions, [0.4, 1.4])
    unit = (responses - responses.mean(dim=0)) / responses.std(dim=0, correction=0)
    errors = [
        (loo_operator(standardise(layer), penalty) @ unit).numpy()
        for layer, penalty in zip(features, [0.4, 1.4], strict=True)
    ]
    np.testing.assert_allclose(found.loss[:, 0, 1], (errors[1][:, [0, 2, 4]] ** 2).mean(axis=1))
    np.testing.assert_allclose(found.cross[1, 0, 1], (errors[0][:, 5] * errors[1][:, 5]).mean())
    np.testing.assert_allclose(np.diagonal(found.cross, axis1=1, axis2=2), found.loss.mean(axis=0))


def test_the_expected_effect_of_response_noise_is_that_of_drawn_noise() -> None:
    features, responses = [draw(60, 10), draw(60, 90, seed=1)], draw(60, 1, seed=2)
    regions = [Region("all", np.array([0]))]
    before = measure_evidence(features, responses, regions, [1.0, 1.0], with_noise=True)
    assert before.noise_loss is not None and before.noise_cross is not None
    operators = [loo_operator(standardise(layer), 1.0) for layer in features]
    noise = draw(60, 20_000, seed=3)
    noise = noise - noise.mean(dim=0)
    drawn = torch.stack([operator @ noise for operator in operators])
    np.testing.assert_allclose(before.noise_loss.T, drawn.square().mean(dim=2), rtol=0.08)
    np.testing.assert_allclose(before.noise_cross[0, 1], (drawn[0] * drawn[1]).mean(), rtol=0.02)


def test_the_layer_that_generates_responses_predicts_best() -> None:
    layers = [draw(200, 20, seed=seed).float() for seed in range(3)]
    tokens = LayerTokens(
        tuple(layer[:, :16].reshape(200, 4, 2, 2) for layer in layers),
        tuple(layer[:, 16:] for layer in layers),
        ("a", "b", "c"),
    )
    pooled = pool_tokens(tokens, np.arange(200), pool=2)
    responses = layers[1] @ draw(20, 30, seed=9).float() + 3 * draw(200, 30, seed=8).float()
    responses[:, 7] = 4.0
    penalties, r2 = choose_penalties(pooled, responses)
    assert all(penalty in PENALTIES for penalty in penalties)
    assert r2[7] == 0 and np.delete(r2, 7).min() > 0.2
    found = measure_evidence(pooled.features, responses, [Region("x", np.arange(7))], penalties)
    assert found.r2[0].argmax() == 1
    assert stacked_weights(found.cross[0])[1] > 0.9


def test_tokens_are_pooled_and_their_noise_is_predicted() -> None:
    local, global_ = draw(3000, 2, 4, 4).float() * 3, draw(3000, 2, seed=1).float()
    tokens = LayerTokens((local,), (global_,), ("only",))
    rows = np.arange(2999, -1, -1)
    pooled = pool_tokens(tokens, rows, pool=2)
    assert torch.equal(pooled.features[0][:, :2], global_.flip(0))
    np.testing.assert_allclose(pooled.features[0][0, 2], local[2999, 0, :2, :2].mean(), rtol=1e-5)
    # independent tokens: their own spread after averaging is that of such noise
    np.testing.assert_allclose(pooled.token_spread[0], pooled.features[0].std(dim=0), rtol=0.05)
    assert pool_tokens(tokens, rows, pool=9).features[0].shape == (3000, 2 * (1 + 16))


def test_stacked_weights_minimise_the_error_on_the_simplex() -> None:
    errors = draw(500, 5).numpy() + draw(500, 1, seed=1).numpy()
    cross = errors.T @ errors / 500 * np.outer([1, 2, 1, 3, 1], [1, 2, 1, 3, 1])
    found = stacked_weights(cross)
    best = minimize(
        lambda w: w @ cross @ w,
        np.full(5, 0.2),
        jac=lambda w: 2 * cross @ w,
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        tol=1e-12,
    )
    np.testing.assert_allclose(found, best.x, atol=1e-4)
    assert found.min() >= 0 and abs(found.sum() - 1) < 1e-12


def test_too_few_stimuli_are_refused() -> None:
    with pytest.raises(InputError, match="found 9 stimuli, expected at least 10"):
        measure_evidence([draw(9, 4)], draw(9, 2), [Region("all", np.arange(2))], [1.0])
