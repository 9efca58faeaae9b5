"""RSA against hand values, and its noise ceiling against brains whose noise-free responses are known."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from made_study import make_brain

from harness.brains import Brain
from harness.config.compose import load_config
from harness.mappings.layer_evidence import Region
from harness.measures.geometry import (
    compare_geometry,
    geometry_ceilings,
    measure_dissimilarities,
    name_agreement,
    name_geometry,
    subject_ceilings,
)
from harness.tracking.evidence import EvidenceFiles
from harness.tracking.subject_geometry import name_subject_ceilings

# three images on a line, one channel of variance 1: distances 1, 1 and 2 in units of √(3/2)
LINE = np.array([[-1.0], [0.0], [1.0]])


def test_dissimilarities_of_a_line() -> None:
    constant = np.full((3, 1), 7.0)
    found = measure_dissimilarities([LINE, 10 * LINE + 5, np.hstack([LINE, constant])])
    assert found.dissimilarities == pytest.approx(np.array([[1.5, 6, 1.5], [1.5, 6, 1.5], [0.75, 3, 0.75]]))


def test_a_region_correlates_with_the_layer_of_its_geometry() -> None:
    rng = np.random.default_rng(0)
    layers = [rng.standard_normal((40, 6)) for _ in range(3)]
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    white = np.linalg.qr(layers[1] - layers[1].mean(axis=0))[0]  # uncorrelated: rotations keep distances
    layers[1] = white
    responses = np.hstack([white @ rotation, layers[2]])
    regions = [Region("turned", np.arange(6)), Region("same", np.arange(6, 12))]
    found = compare_geometry(layers, responses, regions)
    assert found[0, 1] == pytest.approx(1) and found[1, 2] == pytest.approx(1)
    expected = np.corrcoef([_distances(responses[:, :6]), _distances(layers[0])])[0, 1]
    assert found[0, 0] == pytest.approx(expected)


def test_a_constant_layer_has_no_geometry() -> None:
    responses = np.random.default_rng(6).standard_normal((20, 5))
    regions = [Region("V1", np.arange(4)), Region("silent", np.arange(4, 5)), Region("V2", np.arange(2))]
    responses[:, 4] = 3.0
    features = [np.ones((20, 3)), responses[:, :4], responses[:, :2]]
    found = compare_geometry(features, responses, regions)
    assert np.isnan(found[:, 0]).all() and np.isnan(found[1]).all()
    assert found[0, 1] == pytest.approx(1) and found[2, 2] == pytest.approx(1)
    assert found[0, 2] == pytest.approx(found[2, 1]) and found[0, 2] < 0.9
    rows = name_geometry(found, None, ["V1", "silent", "V2"], ["a", "b", "c"])
    assert set(rows) == {
        f"rsa/{place}/{name}" for place in ("V1", "V2") for name in ("layer/b", "layer/c", "best_depth")
    }
    assert (rows["rsa/V1/best_depth"], rows["rsa/V2/best_depth"]) == (0.5, 1.0)


def _distances(x: np.ndarray) -> np.ndarray:
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    first, second = np.triu_indices(len(x), 1)
    return ((x[first] - x[second]) ** 2).sum(axis=1)


@pytest.mark.parametrize("level", [0.3, 0.6, 0.9])
def test_ceiling_is_the_correlation_with_the_truth(level: float) -> None:
    rng = np.random.default_rng(1)
    estimated, true = [], []
    for _ in range(4):
        signal = rng.standard_normal((150, 5)) @ rng.standard_normal((5, 30))
        signal /= signal.std(axis=0)
        ceiling = np.clip(level + 0.1 * rng.standard_normal(30), 0.05, 1)
        responses = np.sqrt(ceiling) * signal + np.sqrt(1 - ceiling) * rng.standard_normal(signal.shape)
        estimated.append(geometry_ceilings(responses, ceiling, [Region("V1", np.arange(30))])[0])
        # the truth weighs voxels by what is signal in them
        of_signal = ((signal[:, None] - signal[None]) ** 2 * ceiling).sum(axis=2)[np.triu_indices(150, 1)]
        measured = measure_dissimilarities([responses]).dissimilarities[0]
        true.append(np.corrcoef(of_signal, measured)[0, 1])
    assert np.mean(estimated) == pytest.approx(np.mean(true), abs=0.02)


def test_ceiling_without_noise_is_1_and_without_signal_unknown() -> None:
    rng = np.random.default_rng(2)
    responses = rng.standard_normal((60, 20))
    region = [Region("V1", np.arange(20))]
    assert geometry_ceilings(responses, np.ones(20), region) == pytest.approx([1.0])
    # independent responses are all noise: their distances vary as noise alone makes them
    found = [geometry_ceilings(rng.standard_normal((60, 20)), np.zeros(20), region)[0] for _ in range(20)]
    assert np.isnan(found).any() and np.nanmax(found) < 0.5


def test_ceiling_between_subjects_holds_the_truth() -> None:
    rng = np.random.default_rng(3)
    signal = rng.standard_normal((40, 8))
    alike = [measure_dissimilarities([signal])] * 3
    assert np.array(subject_ceilings(alike)) == pytest.approx([1, 1])
    noisy = [measure_dissimilarities([signal + 0.7 * rng.standard_normal(signal.shape)]) for _ in range(4)]
    lower, upper = subject_ceilings(noisy)
    truth = measure_dissimilarities([signal]).dissimilarities[0]
    reached = np.mean([np.corrcoef(truth, each.dissimilarities[0])[0, 1] for each in noisy])
    assert lower < reached < upper < 1


def test_rows() -> None:
    correlations = np.array([[0.1, 0.5, 0.2], [np.nan, np.nan, np.nan]])
    rows = name_geometry(correlations, np.array([0.8, np.nan]), ["V1", "V2"], ["a", "b", "c"])
    assert rows == {
        "rsa/V1/layer/a": 0.1,
        "rsa/V1/layer/b": 0.5,
        "rsa/V1/layer/c": 0.2,
        "rsa/V1/best_depth": 0.5,
        "rsa/V1/noise_ceiling": 0.8,
    }


def _rows(correlations: np.ndarray, shares: np.ndarray) -> dict[str, float]:
    layers = [f"blocks.{place}" for place in range(shares.shape[1])]
    places = [f"V{place}" for place in range(len(shares))]
    rows = name_geometry(correlations, None, places, layers)
    depth = np.linspace(0, 1, len(layers))
    for place, share in zip(places, shares, strict=True):
        rows |= {f"selectors/{place}/layer/{name}": value for name, value in zip(layers, share, strict=True)}
        rows[f"selectors/{place}/expected_depth"] = float(share @ depth)
    return rows


def test_agreement_of_equal_and_of_opposite_orders() -> None:
    rng = np.random.default_rng(4)
    shares = np.array([np.roll([0.5, 0.3, 0.15, 0.05], place) for place in range(4)])
    same = name_agreement(_rows(shares**2, shares))
    assert same["rsa/all/layers_agreement"] == pytest.approx(1) and same["rsa/all/n_rois"] == 4
    assert name_agreement(_rows(-shares, shares))["rsa/all/layers_agreement"] == pytest.approx(-1)
    # best layers 0 to 3 against expected depths in the same and in the opposite order
    sharp = np.eye(4) * 0.7 + 0.075
    assert name_agreement(_rows(sharp, sharp))["rsa/all/regions_agreement"] == pytest.approx(1)
    assert name_agreement(_rows(sharp[::-1], sharp))["rsa/all/regions_agreement"] == pytest.approx(-1)
    flat = name_agreement(_rows(rng.random((4, 4)), np.full((4, 4), 0.25)))
    assert flat["rsa/all/layers_agreement"] == flat["rsa/all/regions_agreement"] == 0
    assert name_agreement(_rows(shares[:3], shares[:3])) == {}


def test_ceiling_of_averaged_rows_counts_all_their_repeats() -> None:
    brain = make_brain()
    shown = {"stimuli": brain.stimuli[:1] * 4, "responses": np.repeat(brain.responses[:1], 4, axis=0)}
    # two rows of every picture: averages have half the noise
    paired = replace(brain, **shown, stimulus_ids=np.array([0, 0, 1, 1]), n_repeats=None)
    assert brain.noise_ceiling is not None
    expected = brain.noise_ceiling / (brain.noise_ceiling + (1 - brain.noise_ceiling) / 2)
    for n_repeats in (None, np.full(4, 3)):
        averaged = replace(paired, n_repeats=n_repeats).score_on(np.array([0, 2]), averaged=True)
        assert averaged.noise_ceiling == pytest.approx(expected, abs=1e-6)


def make_subject(signal: np.ndarray, seed: int, shared: np.ndarray | None) -> Brain:
    """A subject that saw every picture twice, in an order of its own."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.repeat(np.arange(len(signal)), 2))
    brain = make_brain()
    responses = np.zeros((len(order), brain.n_voxels), dtype=np.float32)
    responses[:, : signal.shape[1]] = signal[order] + 0.5 * rng.standard_normal((len(order), signal.shape[1]))
    known = None if shared is None else np.isin(order, shared)
    stimuli = brain.stimuli[:1] * len(order)
    return replace(
        brain, stimuli=stimuli, responses=responses, stimulus_ids=order, n_repeats=None, shared=known
    )


def test_ceilings_between_subjects_are_of_shared_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    signal = np.random.default_rng(5).standard_normal((30, 6))
    regions = [Region("V1", np.arange(6)), Region("silent", np.arange(6, 9))]
    monkeypatch.setattr(EvidenceFiles, "regions", lambda self: regions)

    def name(shared: list[np.ndarray | None], n_subjects: int = 2) -> dict[str, float]:
        made = {k: make_subject(signal, k, shared[k % len(shared)]) for k in range(n_subjects)}
        subjects = [SimpleNamespace(folder=str(k), label=f"subj{k}", place=k) for k in made]
        brains: Any = SimpleNamespace(subjects=subjects, load=lambda subject: made[subject.place])
        return name_subject_ceilings(load_config([]), cast(Any, brains))

    found = name([np.arange(25), np.arange(3, 30)])
    assert set(found) == {"rsa/V1/group_ceiling_lower", "rsa/V1/group_ceiling_upper"}
    averages = [
        np.stack(
            [brain.responses[brain.stimulus_ids == picture, :6].mean(axis=0) for picture in range(3, 25)]
        )
        for brain in (make_subject(signal, k, None) for k in range(2))
    ]
    # of two subjects, the mean of the others is the other
    expected = np.corrcoef([_distances(each) for each in averages])[0, 1]
    assert found["rsa/V1/group_ceiling_lower"] == pytest.approx(expected)
    assert found["rsa/V1/group_ceiling_upper"] > expected
    assert name([np.arange(25), None]) == {}
    assert name([np.arange(19)]) == {}
    assert name([np.arange(25)], n_subjects=1) == {}
