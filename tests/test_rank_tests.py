from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import permutation_test, spearmanr

from harness.measures.rank_tests import (
    count_permutations,
    detectable_rho,
    draw_permutations,
    power_of_rank_test,
    rank_test,
)

ONE = ["a"]


def draw(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    return x, x + rng.standard_normal(n)


def test_one_class_gives_spearmans_correlation_and_the_exact_p() -> None:
    x, y = draw(7)
    found = rank_test(x, y, ONE * 7)
    expected = permutation_test(
        (x,), lambda order: spearmanr(order, y).statistic, permutation_type="pairings", n_resamples=np.inf
    )
    assert found.exact and found.n_permutations == 5040
    assert found.rho == found.within == pytest.approx(spearmanr(x, y).statistic)
    assert found.p == pytest.approx(expected.pvalue)


@pytest.mark.parametrize(("n", "critical", "p"), [(5, 1.0, 2 / 120), (6, 0.886, 24 / 720), (8, 0.738, None)])
def test_critical_values_are_those_of_the_books(n: int, critical: float, p: float | None) -> None:
    # Zar (1984), table of critical values of Spearman's ρ, two-sided .05
    found = rank_test(*draw(n), ONE * n)
    assert found.critical == pytest.approx(critical, abs=5e-4)
    best = np.arange(n, dtype=float)
    if n == 6:
        # one swap short of a perfect order
        best[:2] = 1, 0
        best[2:4] = 3, 2
        assert rank_test(np.arange(n, dtype=float), best, ONE * n).within == pytest.approx(1 - 24 / 210)
        assert rank_test(np.arange(n, dtype=float), best, ONE * n).p == pytest.approx(p)


def test_too_few_backbones_can_show_nothing() -> None:
    found = rank_test(*draw(4), ONE * 4)
    assert found.critical is None and found.p >= 2 / 24


def test_permutations_stay_within_classes() -> None:
    classes = ["a", "b", "a", "a", "b", "c"]
    drawn = draw_permutations(classes, 500, 0)
    assert count_permutations(classes) == 12
    assert {"".join(np.array(classes)[order]) for order in drawn} == {"abaabc"}
    assert len({tuple(order) for order in drawn}) == 12
    np.testing.assert_array_equal(drawn, draw_permutations(classes, 500, 0))


def test_the_exact_p_within_classes_is_that_of_all_permutations() -> None:
    classes = ["a", "a", "b", "b", "b", "a"]
    x, y = draw(6, 3)
    x += 5 * (np.array(classes) == "b")
    found = rank_test(x, y, classes)
    own = np.array(classes)
    ranks = [np.argsort(np.argsort(values)) + 1.0 for values in (x, y)]
    centred = [rank - np.array([rank[own == name].mean() for name in classes]) for rank in ranks]
    statistic = [
        abs(
            sum(
                centred[0][place] * centred[1][target]
                for place, target in zip((*first, *second), (0, 1, 5, 2, 3, 4), strict=True)
            )
        )
        for first in itertools.permutations((0, 1, 5))
        for second in itertools.permutations((2, 3, 4))
    ]
    assert found.n_permutations == len(statistic) == 36
    assert found.p == pytest.approx(np.mean(np.array(statistic) >= statistic[0] - 1e-9))
    correlation = np.corrcoef(*centred)[0, 1]
    assert found.within == pytest.approx(correlation)


def test_drawn_permutations_agree_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draw(8, 2)
    exact = rank_test(x, y, ONE * 8)
    monkeypatch.setattr("harness.measures.rank_tests.MOST_EXACT", 1)
    drawn = rank_test(x, y, ONE * 8, n_permutations=20_000)
    assert exact.exact and not drawn.exact and drawn.n_permutations == 20_000
    # three binomial standard errors
    assert drawn.p == pytest.approx(exact.p, abs=3 * (exact.p / 20_000) ** 0.5)
    assert drawn.critical == pytest.approx(exact.critical, abs=0.03)
    assert drawn.p >= 1 / 20_001


def test_a_class_that_is_high_on_both_explains_nothing() -> None:
    rng = np.random.default_rng(0)
    size = np.repeat([0.0, 10.0], 8)
    x, y = size + rng.standard_normal(16), size + rng.standard_normal(16)
    classes = ["small"] * 8 + ["large"] * 8
    assert rank_test(x, y, ONE * 16).p < 0.01
    found = rank_test(x, y, classes)
    assert found.rho > 0.7 and found.p > 0.1
    related = rank_test(x, size + x, classes)
    assert related.within == pytest.approx(1) and related.p < 0.001


def test_a_constant_measure_says_nothing() -> None:
    found = rank_test(np.ones(6), np.arange(6.0), ONE * 6)
    assert (found.rho, found.within, found.p, found.critical) == (0, 0, 1, None)
    # constant within classes
    classes = ["a", "a", "b", "b"]
    found = rank_test(np.array([1.0, 1, 2, 2]), np.array([1.0, 2, 3, 4]), classes)
    assert found.rho == pytest.approx(spearmanr([1, 1, 2, 2], [1, 2, 3, 4]).statistic)
    assert (found.within, found.p) == (0, 1)


def test_the_level_is_kept_where_size_goes_with_both() -> None:
    rng = np.random.default_rng(1)
    size = np.repeat([0.0, 3.0], 7)
    classes = [str(place) for place in size]
    p = [
        rank_test(
            size + rng.standard_normal(14),
            size + rng.standard_normal(14),
            classes,
            n_permutations=199,
            seed=i,
        ).p
        for i in range(600)
    ]
    assert 0.03 < np.mean(np.array(p) <= 0.05) < 0.075


def test_power_is_that_of_the_tables() -> None:
    # Fisher's z: 14 show .7 and 29 show .5 with 80 %
    assert power_of_rank_test(0.7, ONE * 14, n_replicates=2000) == pytest.approx(0.8, abs=0.04)
    assert power_of_rank_test(0.5, ONE * 29, n_replicates=2000) == pytest.approx(0.8, abs=0.04)
    assert power_of_rank_test(0.0, ONE * 14, n_replicates=2000) == pytest.approx(0.05, abs=0.015)


def test_power_counts_what_the_test_finds() -> None:
    # the samples of `power_of_rank_test`, one by one
    classes = ["a"] * 4 + ["b"] * 3
    rng = np.random.default_rng((5, 1))
    first, second = rng.standard_normal((2, 60, 7))
    pearson = 2 * np.sin(np.pi * 0.8 / 6)
    shift = 3.0 * np.array([0] * 4 + [1] * 3)
    mixed = pearson * first + (1 - pearson**2) ** 0.5 * second
    hits = [rank_test(x + shift, y + shift, classes, 0.1).p <= 0.1 for x, y in zip(first, mixed, strict=True)]
    found = power_of_rank_test(0.8, classes, 0.1, 60, 1999, seed=5, between=3.0)
    assert found == pytest.approx(np.mean(hits), abs=0.07)
    assert 0.1 < found < 1


def test_the_detectable_correlation_has_the_power() -> None:
    classes = ["a"] * 8 + ["b"] * 8
    found = detectable_rho(classes)
    assert found is not None
    assert power_of_rank_test(found, classes) >= 0.8 > power_of_rank_test(found - 0.01, classes)
    assert detectable_rho(ONE * 4) is None
