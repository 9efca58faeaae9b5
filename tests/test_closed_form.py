"""Parts of a FactorTopy fit in closed form: where voxels begin to read, and their weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import N_IMAGES, TOKEN_SIZE, Planted, fit_planted, make_planted

from harness.config.mapping import FactorTopyConfig
from harness.mappings.factortopy import closed_form
from harness.mappings.factortopy.anchor import LayerEvidence, layer_evidence
from harness.mappings.factortopy.closed_form import (
    PENALTIES,
    begin_at,
    choose_places,
    solve_weights,
)
from harness.mappings.factortopy.model import FactorTopy
from harness.mappings.splits import split_stimuli
from harness.mappings.training import FitSample
from harness.tokens.frame import standardize_tokens

TRAIN = split_stimuli(N_IMAGES, 0.2, seed=0).train
WIDTHS, D = [6, 7, 8], 8


@pytest.fixture(scope="module")
def planted() -> Planted:
    return make_planted()


def sample_of(planted: Planted, rows: np.ndarray = TRAIN, pictures: np.ndarray | None = None) -> FitSample:
    tokens = standardize_tokens(planted.tokens, torch.from_numpy(TRAIN), TOKEN_SIZE, "cpu")
    responses = torch.from_numpy(planted.responses)
    return FitSample(tokens, responses, rows, rows if pictures is None else pictures)


def model_of(planted: Planted, seed: int = 0) -> FactorTopy:
    """Build a model whose voxels read at various places, layers and scales."""
    torch.manual_seed(seed)
    box = torch.as_tensor(planted.bounding_box, dtype=torch.float32)
    model = FactorTopy(torch.as_tensor(planted.coords), box, WIDTHS, D)
    for network in (model.space_selector, model.layer_selector, model.scale_selector):
        torch.nn.init.normal_(network[-1].weight, std=1.0)
    return model


def read(model: FactorTopy, sample: FitSample, rows: np.ndarray, most: int = 2048) -> torch.Tensor:
    """What every voxel reads of some rows: [n_voxels, n_rows, D]."""
    part = sample.tokens.take(rows)
    found = torch.full((len(model.bias), len(rows), D), torch.nan)
    with torch.no_grad():
        for voxels, features in model.read(part.local, part.global_, model.selectors(), most):
            found[voxels] = features
    return found


def test_predictions_are_weighted_sums_of_what_voxels_read(planted: Planted) -> None:
    model, sample = model_of(planted), sample_of(planted)
    part = sample.tokens.take(TRAIN[:20])
    with torch.no_grad():
        expected = model(part.local, part.global_)
        for most in (3, 2048):
            features = read(model, sample, TRAIN[:20], most)
            found = (features * model.weight[:, None]).sum(dim=2).T / D + model.bias
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def ridge_by_hat_matrix(
    features: np.ndarray, response: np.ndarray, counts: np.ndarray, n_pictures: int
) -> tuple[np.ndarray, float]:
    """Weights and bias at the penalty with the least generalised cross-validation error."""
    share = counts / counts.sum()
    root = np.sqrt(share)[:, None]
    centre, mean = share @ features, share @ response
    design, target = root * (features - centre), root[:, 0] * (response - mean)
    scale = np.linalg.eigvalsh(design.T @ design).mean()
    best, chosen = np.inf, None
    for relative in PENALTIES:
        inverse = np.linalg.inv(design.T @ design + relative * scale * np.eye(D))
        hat = design @ inverse @ design.T
        error = np.square(target - hat @ target).sum() / (1 - (1 + np.trace(hat)) / n_pictures) ** 2
        if error < best:
            best, chosen = error, inverse @ design.T @ target
    assert chosen is not None
    return chosen, float(mean - chosen @ centre)


@pytest.mark.parametrize("voxels_per_pass", [7, 50_000])
def test_weights_are_ridge_with_the_penalty_that_cross_validates_best(
    planted: Planted, voxels_per_pass: int
) -> None:
    rng = np.random.default_rng(0)
    rows = rng.choice(TRAIN, len(TRAIN))  # a bootstrap sample
    sample, model = sample_of(planted, rows), model_of(planted)
    solve_weights(model, sample, voxels_per_pass)
    distinct, counts = np.unique(rows, return_counts=True)
    features = read(model, sample, distinct).double().numpy()
    for voxel in range(0, len(model.bias), 5):
        weight, bias = ridge_by_hat_matrix(
            features[voxel], planted.responses[distinct, voxel].astype(float), counts, len(distinct)
        )
        np.testing.assert_allclose(model.weight[voxel].detach() / D, weight, rtol=0.02, atol=2e-3)
        np.testing.assert_allclose(model.bias[voxel].detach(), bias, atol=5e-3)


def test_batches_and_parts_give_the_same_weights(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = model_of(planted), model_of(planted)
    solve_weights(whole, sample_of(planted), 50_000)
    monkeypatch.setattr(closed_form, "IMAGES_AT_ONCE", 31)
    monkeypatch.setattr(closed_form, "VOXELS_AT_ONCE", 5)
    solve_weights(parts, sample_of(planted), 50_000)
    torch.testing.assert_close(parts.weight, whole.weight, atol=1e-3, rtol=1e-2)


def test_constant_voxels_and_features_get_no_weight(planted: Planted) -> None:
    responses = planted.responses.copy()
    responses[:, 0] = 2.5
    sample, model = sample_of(replace(planted, responses=responses)), model_of(planted)
    solve_weights(model, sample, 50_000)
    assert model.weight[0].abs().max() < 1e-4 and model.bias[0].item() == pytest.approx(2.5, abs=1e-4)
    for bottleneck in (*model.local_bottleneck, *model.global_bottleneck):
        torch.nn.init.zeros_(bottleneck.weight)
    solve_weights(model, sample, 50_000)
    assert (model.weight == 0).all()
    torch.testing.assert_close(model.bias.detach(), sample.targets[TRAIN].mean(dim=0), atol=1e-4, rtol=0)


def test_copies_of_a_picture_are_one_observation(planted: Planted) -> None:
    """Copies of few pictures look like many rows, which any small penalty would fit."""
    rows = np.repeat(TRAIN[:12], 50)
    model = model_of(planted)
    sizes = []
    for pictures in (rows, np.arange(len(rows))):
        solve_weights(model, sample_of(planted, rows, pictures), 50_000)
        sizes.append(float(model.weight.detach().square().mean()))
    assert sizes[0] < 0.5 * sizes[1]


def test_places_are_the_grid_of_tokens_weighed_by_how_well_they_predict() -> None:
    error = torch.zeros(3, 6)  # two rows of three places
    error[0, 4] = error[1, 2] = -1.0
    coords = np.array([[0.0, 0, 0], [1e6, 0, 0], [2e6, 0, 0]])
    sure = LayerEvidence(torch.zeros(3, 2), error, 1e4)
    # every voxel is among the others' nearest: means over all
    one, other, unsure = choose_places(sure, coords, 2, 3).tolist()
    assert one == other == unsure == pytest.approx([1 / 3, 0.0], abs=1e-4)
    alone = LayerEvidence(torch.zeros(1, 2), error[:1], 1e4)
    assert choose_places(alone, coords[:1], 2, 3)[0].tolist() == pytest.approx([0.0, 0.5], abs=1e-4)
    nothing = LayerEvidence(torch.zeros(1, 2), torch.zeros(1, 6), 100.0)
    assert choose_places(nothing, coords[:1], 2, 3)[0].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_voxels_begin_where_they_were_planted(planted: Planted) -> None:
    sample = sample_of(planted)
    evidence = layer_evidence(sample.tokens, sample.targets, TRAIN, TRAIN)
    places = choose_places(evidence, planted.coords, TOKEN_SIZE, TOKEN_SIZE)
    local = planted.local
    off = np.linalg.norm(places.numpy() - planted.space, axis=1)[local]
    assert np.median(off) < 0.5 < np.median(np.linalg.norm(planted.space, axis=1)[local])
    torch.manual_seed(0)
    box = torch.as_tensor(planted.bounding_box, dtype=torch.float32)
    model = FactorTopy(torch.as_tensor(planted.coords), box, WIDTHS, D)
    begin_at(model, places)
    assert (model.space().detach() - places).square().mean() < 0.02
    assert all(part.grad is None for part in model.parameters())


def test_closed_forms_predict_better_from_the_same_steps(planted: Planted) -> None:
    config = FactorTopyConfig(
        token_size=TOKEN_SIZE, n_channels=D, batch_size=48, steps=20, regularization_steps=10
    )
    by_descent = {"start": "centre", "readout": "descent"}
    plain = fit_planted(planted, config.model_copy(update=by_descent))
    readout = fit_planted(planted, config.model_copy(update=by_descent | {"readout": "ridge"}))
    both = fit_planted(planted, config)
    assert plain.r2.mean() + 0.02 < readout.r2.mean() < both.r2.mean() - 0.02


def test_few_stimuli_are_left_to_descent(planted: Planted, caplog: pytest.LogCaptureFixture) -> None:
    config = FactorTopyConfig(token_size=TOKEN_SIZE, n_channels=D, steps=3, batch_size=8)
    split = split_stimuli(N_IMAGES, 0.95, seed=0)
    few = replace(split, train=split.train[:15])
    found = fit_planted(planted, config, split=few)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["warning: fewer than 20 stimuli to fit on: layers, places and weights by descent alone"]
    descent = fit_planted(
        planted,
        config.model_copy(update={"anchor": "none", "start": "centre", "readout": "descent"}),
        split=few,
    )
    np.testing.assert_array_equal(found.weights, descent.weights)
