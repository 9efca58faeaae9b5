"""Verdicts on small brains whose wiring is known."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.mappings.layer_evidence import (
    Evidence,
    PooledTokens,
    Region,
    measure_evidence,
)
from harness.measures.catalogue import describe
from harness.measures.controls import Controls, contrast, degrade
from harness.measures.verdict import judge, name_evidence
from harness.measures.verdict_rows import VerdictKind

N_STIMULI, N_FEATURES, N_VOXELS = 160, 24, 60
PENALTIES = [1.0, 1.0, 1.0]
REGIONS = [Region("V1", np.arange(30)), Region("V2", np.arange(30, 60))]
LAYERS = ("a", "b", "c")


def draw(*size: int, seed: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


@cache
def make_layers() -> PooledTokens:
    """Three layers, neighbours alike."""
    first = draw(N_STIMULI, N_FEATURES, seed=0)
    second = 0.8 * first + 0.6 * draw(N_STIMULI, N_FEATURES, seed=1)
    third = 0.8 * second + 0.6 * draw(N_STIMULI, N_FEATURES, seed=2)
    spread = torch.ones(N_FEATURES)
    return PooledTokens((first, second, third), (spread, spread, spread), LAYERS)


def respond(layers: list[int], noise: float = 1.0) -> Tensor:
    """V1 reads from one layer, V2 from another."""
    parts = [
        make_layers().features[layer] @ draw(N_FEATURES, 30, seed=10 + place)
        for place, layer in enumerate(layers)
    ]
    signal = torch.cat(parts, dim=1)
    return signal / signal.std(dim=0) + noise * draw(N_STIMULI, N_VOXELS, seed=20)


@cache
def make_controls() -> Controls:
    return degrade(make_layers(), respond([0, 1]), REGIONS, PENALTIES, seed=3)


def measure(features: tuple[Tensor, ...] | list[Tensor], responses: Tensor) -> Evidence:
    return measure_evidence(features, responses, REGIONS, PENALTIES)


def verdicts(after: Evidence) -> list[VerdictKind]:
    return [found.verdict for found in judge(make_controls(), after, seed=0)]


def test_an_unchanged_snapshot_is_unchanged() -> None:
    found = judge(make_controls(), measure(make_layers().features, respond([0, 1])), seed=0)
    for region in found:
        assert region.verdict is VerdictKind.UNCHANGED and region.p == 1
        assert region.r2_before == region.r2_after > 0.3
        assert region.depth_before == region.depth_after == pytest.approx(region.depth_control)
        assert region.matched == {"response_noise": 0, "token_noise": 0, "feature_noise": 0}
    assert [region.preferred_before for region in found] == [0.0, 0.5]


def test_only_the_region_that_reads_another_layer_is_rewired() -> None:
    found = judge(make_controls(), measure(make_layers().features, respond([0, 2])), seed=0)
    assert [region.verdict for region in found] == [VerdictKind.UNCHANGED, VerdictKind.REWIRED]
    assert found[1].p <= 0.05 < found[0].p
    assert (found[1].preferred_before, found[1].preferred_after) == (0.5, 1.0)
    assert found[1].depth_after - found[1].depth_control > 0.3


@pytest.mark.parametrize("level", [0.5, 1.0, 2.0, 6.0])
def test_noise_in_all_tokens_is_a_loss_of_signal(level: float) -> None:
    noisy = [
        layer + level * draw(*layer.shape, seed=30 + place)
        for place, layer in enumerate(make_layers().features)
    ]
    found = judge(make_controls(), measure(noisy, respond([0, 1])), seed=0)
    assert [region.verdict for region in found] == [VerdictKind.LOSS_OF_SIGNAL] * 2
    for region in found:
        assert region.matched["token_noise"] == pytest.approx(min(level, 4.0), rel=0.3)
        assert region.matched["response_noise"] > 0


def test_noise_in_the_responses_is_a_loss_of_signal() -> None:
    noisy = respond([0, 1]) + 1.5 * draw(N_STIMULI, N_VOXELS, seed=40)
    assert verdicts(measure(make_layers().features, noisy)) == [VerdictKind.LOSS_OF_SIGNAL] * 2


def test_noise_in_the_preferred_layer_alone_rewires() -> None:
    first, second, third = make_layers().features
    noisy = [first + 1.5 * draw(*first.shape, seed=50), second, third]
    assert verdicts(measure(noisy, respond([0, 1])))[0] is VerdictKind.REWIRED


def test_a_share_of_another_layer_reweights_without_overtaking() -> None:
    mixed = 0.65 * respond([0, 1], noise=0) + 0.35 * respond([0, 2], noise=0)
    mixed = mixed / mixed.std(dim=0) + draw(N_STIMULI, N_VOXELS, seed=20)
    assert verdicts(measure(make_layers().features, mixed))[1] is VerdictKind.REWEIGHTED


def test_a_region_whose_depth_moves_is_rewired_though_the_same_layer_is_best() -> None:
    # V1 reads the first layer, and a third of its signal moves to the last
    signal = 0.6 * respond([0, 1], noise=0) + 0.5 * respond([2, 1], noise=0)
    moved = signal / signal.std(dim=0) + 0.3 * draw(N_STIMULI, N_VOXELS, seed=20)
    controls = degrade(make_layers(), respond([0, 1], noise=0.3), REGIONS, PENALTIES, seed=3)
    found = judge(controls, measure(make_layers().features, moved), seed=0)[0]
    assert found.preferred_before == found.preferred_after == 0
    assert found.depth_after - found.depth_control >= 0.25 and found.p <= 0.01
    assert found.verdict is VerdictKind.REWIRED


def test_controls_reach_any_r2_that_is_asked_for() -> None:
    controls = make_controls()
    best = float(controls.before.r2[0].max())
    for kind in controls.kinds:
        assert controls.match(kind, 0, best + 0.1).level == 0
        for r2 in (best - 0.01, best / 2, 0.01, -0.1):
            matched = controls.match(kind, 0, r2)
            reached = 1 - matched.loss.mean(axis=0).min()
            # interpolated losses are exact where the best layer stays the same between two levels
            assert reached == pytest.approx(r2, abs=0.02), (kind, r2)
            np.testing.assert_allclose(np.diag(matched.cross), matched.loss.mean(axis=0), rtol=1e-4)


def test_response_noise_is_matched_exactly() -> None:
    controls = make_controls()
    matched = controls.match("response_noise", 1, 0.1)
    assert 1 - matched.loss.mean(axis=0).min() == pytest.approx(0.1, abs=1e-6)


def test_the_contrast_is_a_paired_t_statistic() -> None:
    generator = np.random.default_rng(0)
    loss, control = generator.random((50, 3)), generator.random((50, 3))
    found = contrast(loss, control, 1)
    lead = (loss[:, 1] - loss[:, 2]) - (control[:, 1] - control[:, 2])
    error = lead.std(ddof=1) / 50**0.5
    assert found.z()[2] == pytest.approx(lead.mean() / error)
    assert found.z(3 * error**2)[2] == pytest.approx(lead.mean() / (2 * error))
    assert found.z()[1] == 0 and (found.spread[:, 1] == 0).all()
    assert found.spread[:, 2].std() * 50**0.5 == pytest.approx(1, rel=0.02)


def test_common_variance_grows_with_the_noise_of_most_regions() -> None:
    made = make_controls()
    assert all(1 <= each.inflation < 3 for each in made.degraded.values())
    inflated = {kind: dataclasses.replace(each, inflation=1.5) for kind, each in made.degraded.items()}
    controls = dataclasses.replace(made, degraded=inflated)
    for degraded in controls.degraded.values():
        assert (degraded.error[0] == 0).all() and (np.diff(degraded.error.max(axis=(1, 2))[:3]) > 0).all()
        # between levels as between losses, past the last as at the last
        between = degraded.common_variance(0.75, controls.levels)
        ends = [degraded.common_variance(level, controls.levels) for level in (0.5, 1.0)]
        np.testing.assert_allclose(between, (ends[0] + ends[1]) / 2)
        last = degraded.common_variance(9.0, controls.levels)
        np.testing.assert_allclose(last, 1.25 * degraded.error[-1] ** 2)
    spared, noisy = (controls.match("token_noise", 0, r2) for r2 in (1.0, 0.1))
    assert spared.level == 0 < noisy.level
    for regions, adds in (([spared, spared, noisy], False), ([spared, noisy, noisy], True)):
        matched = dict.fromkeys(controls.kinds, regions)
        assert (controls.common_variance(matched) > 0).any() == adds


def test_a_draw_of_noise_is_as_far_from_the_others_as_its_variance_says() -> None:
    layers, responses = make_layers(), respond([0, 1])
    controls = make_controls()
    found = []
    for seed in range(20):
        noisy = [
            layer + draw(*layer.shape, seed=100 + 3 * seed + place)
            for place, layer in enumerate(layers.features)
        ]
        after = measure(noisy, responses)
        matched = {
            kind: [controls.match(kind, region, float(after.r2[region].max())) for region in (0, 1)]
            for kind in controls.kinds
        }
        common = controls.common_variance(matched)
        for region, control in enumerate(matched["token_noise"]):
            first = int(controls.before.r2[region].argmax())
            z = contrast(after.loss[:, region], control.loss, first).z(common[region])
            found += np.delete(z, first).tolist()
    assert 0.6 < np.sqrt(np.mean(np.square(found))) < 1.25


def test_rows_of_step_0_and_of_a_snapshot() -> None:
    controls = make_controls()
    after = measure(make_layers().features, respond([0, 2]))
    start = name_evidence(controls, None, REGIONS, LAYERS, seed=0)
    end = name_evidence(controls, after, REGIONS, LAYERS, seed=0)
    for place in ("V1", "V2", "all"):
        assert sum(start[f"evidence/{place}/layer/{layer}"] for layer in LAYERS) == pytest.approx(1)
    assert not any(name.startswith("verdict/") for name in start)
    assert end["verdict/V2/kind"] == end["verdict/all/kind"] == 3
    assert (end["verdict/V1/rewired"], end["verdict/V2/rewired"], end["verdict/all/rewired"]) == (0, 1, 1)
    assert end["verdict/all/p"] == min(end["verdict/V1/p"], end["verdict/V2/p"])
    for name, value in (start | end).items():
        assert describe(name).contains(value), name
    collapsed = name_evidence(controls, after, REGIONS, LAYERS, seed=0, judged=False)
    assert set(collapsed) == set(start)


def test_one_region_is_judged_alone() -> None:
    only = dataclasses.replace(REGIONS[0], name="all")
    controls = degrade(make_layers(), respond([0, 1]), [only], PENALTIES, seed=3)
    after = measure_evidence(make_layers().features, respond([2, 1]), [only], PENALTIES)
    rows = name_evidence(controls, after, [only], LAYERS, seed=0)
    assert rows["verdict/all/kind"] == 3 and rows["verdict/all/depth_after"] > 0.5
