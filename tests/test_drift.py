"""Drift of features, weights and gradients against hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest

from harness.measures.drift import (
    linear_cka,
    representation_drift,
    weight_distance,
)
from harness.storage.errors import InputError


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_nothing_moved(rng: np.random.Generator) -> None:
    features = rng.standard_normal((20, 5)).astype(np.float32)
    found = representation_drift({"a": features}, {"a": features.copy()})
    assert found["a"] == pytest.approx({"cka": 1.0, "cka_unbiased": 1.0, "distance": 0.0})


def test_rotation_has_a_distance_but_no_dissimilarity() -> None:
    features = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    turned = features @ np.array([[0.0, 1], [-1, 0]])
    found = representation_drift({"a": features}, {"a": turned})["a"]
    assert found["cka"] == pytest.approx(1.0)
    # each row moves by (1, 1), a squared distance of 2; the variance of each of two channels is 1/2
    assert found["distance"] == pytest.approx(2.0)


def test_layers_are_measured_apart(rng: np.random.Generator) -> None:
    one, two = rng.standard_normal((2, 30, 4))
    other = rng.standard_normal((30, 6))
    found = representation_drift({"first": one, "second": two}, {"first": one, "second": other[:, :4]})
    assert found["first"]["distance"] == 0
    assert found["second"]["cka_unbiased"] == pytest.approx(linear_cka(two, other[:, :4], unbiased=True))
    assert found["second"]["cka"] < 0.5


def test_features_that_did_not_vary_have_no_relative_distance(rng: np.random.Generator) -> None:
    constant = np.ones((5, 3))
    found = representation_drift({"a": constant}, {"a": rng.standard_normal((5, 3))})["a"]
    assert found == {"cka": 0.0, "cka_unbiased": 0.0}


def test_weight_distance_by_hand() -> None:
    before = {"w": np.array([[3.0, 0.0]]), "b": np.array([4.0]), "other": np.zeros(2)}
    after = {"w": np.array([[3.0, 1.0]]), "b": np.array([6.0]), "other": np.array([0.0, 0.5])}
    found = weight_distance(before, after, {"w": "one", "b": "one", "other": "two"})
    assert found["one"] == pytest.approx(
        {"weight_distance": np.sqrt(5), "weight_distance_relative": np.sqrt(5) / 5}
    )
    assert found["two"] == {"weight_distance": 0.5}  # no reference to be relative to


@pytest.mark.parametrize("after", [{}, {"w": np.zeros(3)}])
def test_weights_that_do_not_fit_are_named(after: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match=r"weight distance: w: found .*, expected \(2,\)"):
        weight_distance({"w": np.zeros(2)}, after, {"w": "one"})
