"""Fits recover planted wiring, and seeds do what they should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from equality import assert_equal
from planted import N_IMAGES, N_PATCHES, NOISE, PER_PATCH, TOKEN_SIZE, Planted, make_planted
from planted import fit_planted as fit_family

from harness.config.mapping import FactorTopyConfig
from harness.mappings import training
from harness.mappings.mapping import (
    ARRAYS,
    Mapping,
)
from harness.mappings.splits import split_by_seed, split_stimuli
from harness.mappings.training import FitDivergedError
from harness.storage.errors import InputError
from harness.tokens.extraction import LayerTokens
from harness.tokens.frame import StandardTokens, standardize_tokens

CONFIG = FactorTopyConfig(
    token_size=TOKEN_SIZE, n_channels=8, batch_size=48, steps=200, lr=1e-2, regularization_steps=100
)
QUICK = CONFIG.model_copy(update={"steps": 5})


@pytest.fixture(scope="module")
def planted() -> Planted:
    return make_planted()


@pytest.fixture(scope="module")
def fitted(planted: Planted) -> Mapping:
    return fit_planted(planted, CONFIG)


@pytest.fixture(scope="module")
def quick(planted: Planted) -> Mapping:
    return fit_planted(planted)


def fit_planted(
    planted: Planted,
    config: FactorTopyConfig = QUICK,
    seed: int = 0,
    bootstrap: bool = False,
    start: Mapping | None = None,
) -> Mapping:
    return fit_family(planted, config, seed, bootstrap, start)


def test_planted_selectors_are_recovered(planted: Planted, fitted: Mapping) -> None:
    mapping = fitted
    assert mapping.r2.mean() > 0.9 * (1 - NOISE)
    assert mapping.correlation.mean() > 0.8
    assert (mapping.layer.argmax(axis=1) == planted.layer).mean() > 0.95
    apart = np.linalg.norm(mapping.space - planted.space, axis=1)[planted.local]
    from_centre = np.linalg.norm(planted.space[planted.local], axis=1)
    assert np.quantile(apart, 0.9) < 0.5 / TOKEN_SIZE  # a quarter of a token; tokens are 2 / TOKEN_SIZE apart
    assert np.median(from_centre) > 2 / TOKEN_SIZE  # staying at the start would fail
    assert mapping.scale[planted.local].mean() < 0.1
    assert mapping.scale[~planted.local].mean() > 0.9


def test_mapping_is_well_formed(quick: Mapping) -> None:
    mapping = quick
    n_voxels = N_PATCHES * PER_PATCH
    assert mapping.layers == ("block0", "block1", "block2")
    assert mapping.steps == QUICK.steps
    assert mapping.weights.shape == (n_voxels, QUICK.n_channels)
    assert all(getattr(mapping, name).dtype == np.float32 for name in ARRAYS)
    np.testing.assert_allclose(mapping.layer.sum(axis=1), 1, atol=1e-5)
    assert np.abs(mapping.space).max() <= 1
    assert abs(mapping.bias.mean() - 3) < 0.2  # starts at the mean response


def test_seed_decides_everything(planted: Planted) -> None:
    one = fit_planted(planted, seed=1)
    torch.manual_seed(99)
    assert_equal(one, fit_planted(planted, seed=1))
    other = fit_planted(planted, seed=2)
    assert not np.array_equal(one.weights, other.weights)
    assert not np.array_equal(one.space, other.space)


def test_global_random_state_is_left_alone(planted: Planted) -> None:
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fit_planted(planted, bootstrap=True)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], before_numpy)  # noqa: NPY002


def test_bootstrap_fits_on_another_sample(planted: Planted, quick: Mapping) -> None:
    drawn = fit_planted(planted, bootstrap=True)
    assert not np.array_equal(quick.weights, drawn.weights)
    assert_equal(drawn, fit_planted(planted, bootstrap=True))


def test_held_out_stimuli_are_not_fitted_on(planted: Planted, quick: Mapping) -> None:
    """Changing held-out tokens and responses leaves the selectors, but not the scores."""
    split = split_stimuli(N_IMAGES, 0.2, seed=0)
    responses = planted.responses.copy()
    responses[split.held_out] *= -1
    local = tuple(layer.clone() for layer in planted.tokens.local)
    for layer in local:
        layer[torch.from_numpy(split.held_out)] += 5
    changed = replace(planted, responses=responses, tokens=replace(planted.tokens, local=local))
    other = fit_planted(changed)
    assert not np.array_equal(quick.r2, other.r2)
    assert_equal(quick, replace(other, r2=quick.r2, correlation=quick.correlation))


def test_inputs_are_not_changed(planted: Planted) -> None:
    tokens = [layer.clone() for layer in (*planted.tokens.local, *planted.tokens.global_)]
    responses = planted.responses.copy()
    fit_planted(planted)
    for before, after in zip(tokens, (*planted.tokens.local, *planted.tokens.global_), strict=True):
        assert torch.equal(before, after)
    np.testing.assert_array_equal(responses, planted.responses)


def test_scale_of_a_layer_does_not_matter(planted: Planted, quick: Mapping) -> None:
    larger = tuple(layer * 2.0 ** (3 * i) for i, layer in enumerate(planted.tokens.local))
    other = replace(planted, tokens=replace(planted.tokens, local=larger))
    np.testing.assert_allclose(quick.layer, fit_planted(other).layer, atol=1e-5)


def test_take_keeps_order_repeats_and_memory_format() -> None:
    local = torch.randn(5, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    tokens = LayerTokens((local,), (torch.arange(10.0).view(5, 2),), ("a",))
    taken = tokens.take([3, 0, 3])
    assert taken.n_images == 3
    assert torch.equal(taken.global_[0], torch.tensor([[6.0, 7], [0, 1], [6, 7]]))
    assert torch.equal(taken.local[0][1], local[0])
    assert taken.local[0].is_contiguous(memory_format=torch.channels_last)


def test_constant_response_scores_zero(planted: Planted) -> None:
    responses = planted.responses.copy()
    responses[:, 4] = 0.1
    mapping = fit_planted(replace(planted, responses=responses))
    assert mapping.r2[4] == 0
    assert mapping.correlation[4] == 0


def test_divergence_names_the_setting(planted: Planted) -> None:
    with pytest.raises(FitDivergedError, match=r"mapping\.lr.*lower mapping\.lr") as error:
        fit_planted(planted, QUICK.model_copy(update={"lr": 1e30}))
    assert isinstance(error.value, RuntimeError)
    assert isinstance(error.value, InputError)


def test_input_that_does_not_fit_is_refused(planted: Planted) -> None:
    responses = planted.responses.copy()
    responses[0, 0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        fit_planted(replace(planted, responses=responses))
    with pytest.raises(InputError, match=r"tokens of 300 stimuli.*299"):
        fit_planted(replace(planted, responses=planted.responses[:-1]))
    global_ = (planted.tokens.global_[0], planted.tokens.global_[1] * float("inf"), planted.tokens.global_[2])
    with pytest.raises(InputError, match="block1"):
        fit_planted(replace(planted, tokens=replace(planted.tokens, global_=global_)))


def test_passes_over_parts_of_the_brain_fit_the_same(planted: Planted) -> None:
    # a penalty of the closed-form readout may fall on the other side of a tie
    quick = QUICK.model_copy(update={"readout": "descent"})
    whole = fit_planted(planted, quick)
    parts = fit_planted(planted, quick.model_copy(update={"voxels_per_pass": 37}))
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=2e-5, err_msg=name)


def test_fits_that_share_standard_tokens_are_the_same(planted: Planted, quick: Mapping) -> None:
    split = split_stimuli(N_IMAGES, 0.2, seed=0)
    shared = standardize_tokens(planted.tokens, torch.from_numpy(split.train), TOKEN_SIZE, "cpu")
    assert_equal(fit_planted(replace(planted, tokens=shared)), quick)
    drawn = fit_planted(planted, bootstrap=True)
    assert_equal(fit_planted(replace(planted, tokens=shared), bootstrap=True), drawn)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10, 19])
def test_a_fit_may_be_of_few_steps(steps: int, planted: Planted) -> None:
    mapping = fit_planted(planted, QUICK.model_copy(update={"steps": steps}))
    assert mapping.steps == steps
    assert np.isfinite(mapping.r2).all()


def test_warm_start_begins_where_another_fit_ended(planted: Planted, fitted: Mapping) -> None:
    first = fitted
    one = CONFIG.model_copy(update={"steps": 1, "lr": 1e-9})
    begun = fit_planted(planted, one, seed=5, start=first)
    for name in ("layer", "space", "scale", "weights", "bias", "r2"):
        np.testing.assert_allclose(getattr(begun, name), getattr(first, name), atol=1e-5, err_msg=name)
    for name, array in first.learned.items():
        np.testing.assert_allclose(begun.learned[name], array, atol=1e-5, err_msg=name)


def test_warm_start_from_what_does_not_fit_is_refused(planted: Planted, quick: Mapping) -> None:
    first = quick
    with pytest.raises(InputError, match=r"warm start: .*model\.|warm start: .*weight"):
        fit_planted(planted, QUICK.model_copy(update={"n_channels": 5}), start=first)
    with pytest.raises(InputError, match=r"without its learned parameters \(.*local_bottleneck"):
        fit_planted(planted, start=replace(first, learned=None))


def test_best_state_on_validation_stimuli_is_restored(planted: Planted) -> None:
    """Where there is nothing to learn, every further step fits noise."""
    noise = np.random.default_rng(0).normal(size=planted.responses.shape).astype(np.float32)
    nothing_to_learn = replace(planted, responses=noise)
    # the closed-form readout would undo what further steps fit
    long = CONFIG.model_copy(update={"steps": 100, "readout": "descent"})
    last = fit_planted(nothing_to_learn, long)
    best = fit_planted(nothing_to_learn, long.model_copy(update={"validation": 0.2}))
    assert best.steps < last.steps == 100
    assert best.r2.mean() > last.r2.mean() + 0.02
    patient = fit_planted(nothing_to_learn, long.model_copy(update={"validation": 0.2, "patience": 2}))
    assert_equal(patient, best)


@pytest.mark.parametrize("bootstrap", [False, True])
def test_repeats_of_a_picture_are_not_validated_on_what_they_were_fitted_on(
    planted: Planted, bootstrap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted, streamed = [], []
    predict, stream = training.predict, StandardTokens.stream

    def note_predicted(model, tokens, stimuli, *others):
        predicted.append(stimuli.tolist())
        return predict(model, tokens, stimuli, *others)

    def note_streamed(self, batches):
        batches = list(batches)
        streamed.append(torch.cat(batches).tolist())
        return stream(self, batches)

    monkeypatch.setattr(training, "predict", note_predicted)
    monkeypatch.setattr(StandardTokens, "stream", note_streamed)
    split = split_by_seed(np.arange(N_IMAGES) // 4, 0.2, seed=0)
    # closed forms stream tokens too
    by_descent = {"anchor": "none", "start": "centre", "readout": "descent"}
    steps = CONFIG.model_copy(update={"steps": 25, "validation": 0.3} | by_descent)
    fit_family(planted, steps, bootstrap=bootstrap, split=split)
    validated, fitted = set(predicted[0]), set(streamed[0])
    assert predicted[-1] == split.held_out.tolist()
    assert len(predicted[0]) == len(validated) == 4 * round(0.3 * len(split.train) / 4)
    assert not {row // 4 for row in validated} & {row // 4 for row in fitted}
    if bootstrap:
        assert validated | fitted < set(split.train.tolist())
    else:
        assert validated | fitted == set(split.train.tolist())


def test_validation_takes_stimuli(planted: Planted) -> None:
    with pytest.raises(InputError, match=r"mapping\.validation: 0\.001 of 240 .* 0 to validate on"):
        fit_planted(planted, QUICK.model_copy(update={"validation": 0.001}))
