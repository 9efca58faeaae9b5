"""Layer selectors anchored in closed-form evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import N_IMAGES, TOKEN_SIZE, fit_planted, make_planted

from harness.config.mapping import FactorTopyConfig
from harness.mappings.factortopy import anchor
from harness.mappings.factortopy.anchor import agree_with_neighbours, critical_coupling, layer_evidence
from harness.mappings.factortopy.fit import anchor_layers
from harness.mappings.factortopy.model import FactorTopy
from harness.mappings.factortopy.selectors import SelectorTensors
from harness.mappings.splits import split_by_seed, split_stimuli
from harness.storage.errors import InputError
from harness.tokens.extraction import LayerTokens
from harness.tokens.frame import StandardTokens, standardize_tokens

CONFIG = FactorTopyConfig(
    token_size=TOKEN_SIZE, n_channels=8, batch_size=48, steps=5, lr=1e-2, regularization_steps=5
)
TRAIN = split_stimuli(N_IMAGES, 0.2, seed=0).train


def make_tokens(n_images: int, side: int, widths: tuple[int, ...], seed: int = 0) -> StandardTokens:
    generator = torch.Generator().manual_seed(seed)
    local = tuple(torch.randn(n_images, width, side, side, generator=generator) for width in widths)
    global_ = tuple(torch.randn(n_images, width, generator=generator) for width in widths)
    tokens = LayerTokens(local, global_, tuple(f"block{i}" for i in range(len(widths))))
    return standardize_tokens(tokens, torch.arange(n_images), side, "cpu")


def planted_tokens() -> StandardTokens:
    return standardize_tokens(make_planted().tokens, torch.from_numpy(TRAIN), TOKEN_SIZE, "cpu")


def planted_evidence(rows: np.ndarray = TRAIN) -> torch.Tensor:
    responses = torch.from_numpy(make_planted().responses)
    return layer_evidence(planted_tokens(), responses, rows, rows).layer


def score_by_hat_matrix(parts: list[np.ndarray], response: np.ndarray, counts: np.ndarray) -> float:
    """Generalised cross-validation of weighted ridge, with the hat matrix written out."""
    share = counts / counts.sum()
    centred = [part - share @ part for part in parts]
    features = np.hstack([part / np.sqrt(2 * share @ (part**2).sum(axis=1)) for part in centred])
    target = response - share @ response
    target = target / np.sqrt(share @ target**2)
    root = np.sqrt(share)[:, None]
    scores = []
    for penalty in anchor.PENALTIES:
        design = root * features
        hat = design @ np.linalg.solve(design.T @ design + penalty * np.eye(design.shape[1]), design.T)
        hat = hat + root @ root.T  # the intercept
        error = np.square(root[:, 0] * target - hat @ (root[:, 0] * target)).sum()
        scores.append(np.log(error / (1 - np.trace(hat) / len(target)) ** 2))
    return min(scores)


@pytest.mark.parametrize("n_copies", [1, 3])
def test_evidence_is_generalised_cross_validation_of_pictures(n_copies: int) -> None:
    """With one token per image there is no place to find; rows drawn again only weigh more."""
    tokens = make_tokens(40, 1, (5, 7))
    rng = np.random.default_rng(0)
    counts = rng.integers(1, n_copies + 1, 40)
    rows = rng.permutation(np.repeat(np.arange(40), counts))
    signal = tokens.local[0][:, 0, 0, 0].numpy() - tokens.global_[0][:, 2].numpy()
    responses = signal[:, None] + rng.standard_normal((40, 3)).astype(np.float32)
    evidence = layer_evidence(tokens, torch.from_numpy(responses), rows, rows)
    found = evidence.layer
    effective = counts.sum() ** 2 / (counts**2).sum()
    layers = list(zip(tokens.local, tokens.global_, strict=True))
    for voxel in range(3):
        scores = [
            score_by_hat_matrix([local.flatten(1).numpy(), whole.numpy()], responses[:, voxel], counts)
            for local, whole in layers
        ]
        expected = -effective / 2 * (np.array(scores) - min(scores))
        np.testing.assert_allclose(found[voxel], expected, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(evidence.place[voxel], [min(scores)], rtol=1e-3, atol=1e-3)
    assert evidence.n_effective == pytest.approx(effective)
    assert (found[:, 0] == 0).all()
    assert (found[:, 1] < -1).all()


def test_copies_of_all_rows_say_no_more_than_one() -> None:
    tokens = make_tokens(40, 2, (3, 3))
    responses = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    once, rows = np.arange(40), np.repeat(np.arange(40), 3)
    torch.testing.assert_close(
        layer_evidence(tokens, responses, rows, rows).layer,
        layer_evidence(tokens, responses, once, once).layer,
    )


def test_repeats_of_a_picture_are_one_observation_of_their_mean() -> None:
    """Rows 2i and 2i + 1 show picture i and differ in their responses only."""
    tokens = make_tokens(40, 2, (3, 3)).take(np.arange(40))
    doubled = tokens.take(np.repeat(np.arange(40), 2))
    single, repeated = (
        standardize_tokens(part, torch.arange(part.n_images), 2, "cpu") for part in (tokens, doubled)
    )
    responses = torch.randn(80, 6, generator=torch.Generator().manual_seed(1))
    found = layer_evidence(repeated, responses, np.arange(80), np.arange(80) // 2).layer
    means = responses.view(40, 2, 6).mean(1)
    expected = layer_evidence(single, means, np.arange(40), np.arange(40)).layer
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_evidence_finds_the_planted_layers_in_training_stimuli() -> None:
    planted = make_planted()
    found = planted_evidence()
    assert (found.argmax(dim=1).numpy() == planted.layer).mean() > 0.9
    posterior = agree_with_neighbours(found, planted.coords, 1.0)
    assert (posterior.argmax(dim=1).numpy() == planted.layer).mean() > 0.95


def test_voxels_may_be_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = planted_evidence()
    monkeypatch.setattr(anchor, "VOXELS_AT_ONCE", 37)
    monkeypatch.setattr(anchor, "PICTURES_AT_ONCE", 100)
    torch.testing.assert_close(planted_evidence(), whole, rtol=1e-3, atol=1e-2)


def test_of_many_pictures_evenly_spaced_ones_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchor, "MOST_PICTURES", 120)
    rows = np.repeat(TRAIN, 2)
    kept = TRAIN[np.linspace(0, len(TRAIN) - 1, 120).round().astype(int)]
    torch.testing.assert_close(planted_evidence(rows), planted_evidence(np.repeat(kept, 2)))


def test_constant_voxels_have_no_evidence() -> None:
    tokens, rows = make_tokens(40, 2, (3, 4)), np.arange(40)
    responses = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))
    responses[:, 1] = 0.1
    found = layer_evidence(tokens, responses, rows, rows).layer
    assert found[1].tolist() == [0, 0]
    assert found[0].amin() < 0


def test_few_stimuli_are_refused() -> None:
    tokens, rows = make_tokens(40, 2, (3, 4)), np.arange(19)
    with pytest.raises(InputError, match=r"mapping\.anchor: found 19 stimuli .*at least 20"):
        layer_evidence(tokens, torch.zeros(40, 2), rows, rows)


def test_neighbours_agree_by_the_mean_field_of_a_potts_model() -> None:
    evidence = torch.tensor([[1.0, 0.0], [0.0, 0.2]], dtype=torch.float64)
    coords = np.array([[0.0, 0, 0], [1, 0, 0]])
    assert critical_coupling(2, 1) == 2
    found = agree_with_neighbours(evidence, coords, 0.25)
    torch.testing.assert_close(found, (evidence + 0.5 * found.flip(0)).softmax(dim=1))
    torch.testing.assert_close(agree_with_neighbours(evidence, coords, 0.0), evidence.softmax(dim=1))
    assert found[1, 0] > evidence.softmax(dim=1)[1, 0]


@pytest.mark.parametrize("n_layers", [2, 3, 4, 8, 12, 24])
def test_voxels_of_which_nothing_is_known_stay_undecided_below_the_critical_coupling(n_layers: int) -> None:
    rng = np.random.default_rng(0)
    evidence = torch.from_numpy(0.02 * rng.standard_normal((1000, n_layers)))
    coords = np.stack(np.meshgrid(*[np.arange(10.0)] * 3), axis=-1).reshape(-1, 3)
    largest = [agree_with_neighbours(evidence, coords, c).amax(dim=1).mean() * n_layers for c in (0.9, 0.0)]
    assert largest[1] < largest[0] < 1.3
    # far above it, they agree on anything
    sure = agree_with_neighbours(evidence, coords, 1.2 * n_layers / 6 / critical_coupling(n_layers, 6))
    assert sure.amax(dim=1).mean() > 0.6


def test_the_critical_coupling_is_where_order_is_as_likely_as_disorder() -> None:
    """Mean-field free energy per voxel: z K/2 · Σ m² − entropy, at shares (m, the rest equal)."""

    def lowest(coupling: float, n_layers: int) -> float:
        share = np.linspace(1 / n_layers, 1 - 1e-9, 20001)
        rest = (1 - share) / (n_layers - 1)
        energy = -3 * coupling * (share**2 + (n_layers - 1) * rest**2)
        entropy = -share * np.log(share) - (n_layers - 1) * rest * np.log(rest)
        return float(share[np.argmin(energy - entropy)] * n_layers)

    for n_layers in (3, 4, 8, 12, 24):
        critical = critical_coupling(n_layers, 6)
        assert lowest(0.99 * critical, n_layers) < 1.01 < 1.5 < lowest(1.01 * critical, n_layers)


def test_clear_evidence_stays_at_a_border_and_unclear_evidence_gives_way() -> None:
    coords = np.stack([np.arange(20.0), np.zeros(20), np.zeros(20)], axis=1)
    evidence = torch.zeros(20, 2)
    evidence[:10, 0], evidence[10:, 1] = 20.0, 20.0
    evidence[4] = torch.tensor([0.0, 0.5])
    found = agree_with_neighbours(evidence, coords, 1.0).argmax(dim=1)
    assert found.tolist() == [0] * 10 + [1] * 10


def test_one_voxel_has_no_neighbours() -> None:
    evidence = torch.tensor([[1.0, 0.0]])
    found = agree_with_neighbours(evidence, np.zeros((1, 3)), 1.0)
    torch.testing.assert_close(found, evidence.softmax(dim=1))


def test_frozen_selectors_are_the_evidence() -> None:
    planted = make_planted()
    config = CONFIG.model_copy(update={"anchor": "frozen", "anchor_strength": 1.0})
    mapping = fit_planted(planted, config)
    expected = agree_with_neighbours(planted_evidence(), planted.coords, config.anchor_coupling)
    np.testing.assert_allclose(mapping.layer, expected, atol=1e-4)
    flatter = fit_planted(planted, config.model_copy(update={"anchor_strength": 0.5}))
    roots = expected.clamp(min=1e-6).sqrt()
    np.testing.assert_allclose(flatter.layer, roots / roots.sum(dim=1, keepdim=True), atol=1e-3)


def test_a_prior_adds_to_the_networks_logits() -> None:
    coords = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = FactorTopy(coords, torch.tensor([[0.0] * 3, [1.0] * 3]), [4, 4, 4], 2)
    torch.nn.init.normal_(model.layer_selector[-1].weight)
    plain = model.selectors().layer
    prior = torch.randn(5, 3)
    model.layer_prior = prior
    torch.testing.assert_close(model.selectors().layer, (plain.log() + prior).softmax(dim=1))
    torch.testing.assert_close(model.selectors(slice(1, 3)).layer, model.selectors().layer[1:3])


def test_pull_has_the_gradient_of_the_cross_entropy() -> None:
    """With respect to the logits: strength × (ω − q) / number of voxels."""
    planted = make_planted()
    config = CONFIG.model_copy(update={"anchor": "pull", "anchor_strength": 0.3})
    box = torch.as_tensor(planted.bounding_box, dtype=torch.float32)
    model = FactorTopy(torch.as_tensor(planted.coords), box, [6, 7, 8], 8)
    pull = anchor_layers(model, planted_evidence(), planted.coords, config)
    logits = torch.randn(len(planted.layer), 3, requires_grad=True)
    shares = logits.softmax(dim=1)
    n_voxels = len(shares)
    selectors = SelectorTensors(torch.zeros(n_voxels, 2), shares, torch.zeros(n_voxels))
    pull(selectors, slice(None)).backward()
    posterior = agree_with_neighbours(planted_evidence(), planted.coords, config.anchor_coupling)
    torch.testing.assert_close(logits.grad, 0.3 * (shares.detach() - posterior) / n_voxels)


@pytest.mark.parametrize("kind", ["frozen", "prior"])
def test_anchored_fits_find_layers_before_descent_does(kind: str) -> None:
    planted = make_planted()
    right = {}
    for name in ("none", kind):
        mapping = fit_planted(planted, CONFIG.model_copy(update={"anchor": name, "anchor_strength": 1.0}))
        right[name] = (mapping.layer.argmax(axis=1) == planted.layer).mean()
    assert right[kind] > 0.95
    assert right["none"] < 0.8


def test_every_bootstrap_sample_has_its_own_evidence() -> None:
    planted = make_planted()
    weak = replace(
        planted,
        responses=planted.responses
        + 3 * np.random.default_rng(0).standard_normal(planted.responses.shape).astype(np.float32),
    )
    config = CONFIG.model_copy(update={"anchor": "frozen"})
    one, other = (fit_planted(weak, config, seed=seed, bootstrap=True).layer for seed in (1, 2))
    assert np.abs(one - other).sum(axis=1).mean() > 0.1


def test_held_out_and_repeated_pictures_do_not_reach_the_evidence() -> None:
    planted = make_planted()
    split = split_by_seed(np.arange(N_IMAGES) // 2, 0.2, seed=0)
    responses = planted.responses.copy()
    responses[split.held_out] *= -1
    config = CONFIG.model_copy(update={"anchor": "frozen", "validation": 0.2})
    one = fit_planted(planted, config, split=split)
    other = fit_planted(replace(planted, responses=responses), config, split=split)
    np.testing.assert_array_equal(one.layer, other.layer)


def test_anchors_leave_the_draws_of_a_fit_alone() -> None:
    """Same initial weights and batches: with the same ω, all else is the same."""
    planted = make_planted()
    unchanged = {"steps": 1, "lr": 1e-12, "readout": "descent"}
    one, other = (
        fit_planted(planted, CONFIG.model_copy(update={"anchor": kind} | unchanged))
        for kind in ("none", "prior")
    )
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-6)
    for name, array in one.learned.items():
        np.testing.assert_allclose(other.learned[name], array, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("change", [{"anchor": "maybe"}, {"anchor_strength": 0}, {"anchor_coupling": -1}])
def test_settings_have_ranges(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        FactorTopyConfig(**change)
