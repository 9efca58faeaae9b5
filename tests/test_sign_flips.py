"""Tests of paired differences: against scipy, closed forms and hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.measures import flip_signs, seed_interval


@pytest.mark.parametrize("n_pairs", [2, 5, 9])
def test_p_is_that_of_scipys_exact_test(n_pairs: int) -> None:
    values = np.random.default_rng(n_pairs).standard_normal((n_pairs, 3)) + 0.4
    found = flip_signs(values)
    for column, p in zip(values.T, found.p, strict=True):
        exact = stats.permutation_test(
            (column,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
        )
        assert p == pytest.approx(exact.pvalue)
    assert set(found.n_pairs) == {n_pairs}
    np.testing.assert_allclose(found.smallest, 2 / 2**n_pairs)


def test_p_by_hand() -> None:
    # of the eight sums ±1 ±2 ±3, only ±6 are as large as 6; of ±1 ±2 ∓3, all are as large as 0
    found = flip_signs(np.array([[1.0, 1.0], [2.0, 2.0], [3.0, -3.0]]))
    np.testing.assert_allclose(found.p, [0.25, 1.0])
    # the first measure's 6/√14 is the largest that any pattern gives in either measure: four do
    np.testing.assert_allclose(found.p_family, [0.5, 1.0])


def test_one_measure_needs_no_correction_and_copies_of_it_neither() -> None:
    values = np.random.default_rng(0).standard_normal((8, 1)) + 0.5
    one, ten = flip_signs(values), flip_signs(np.repeat(values, 10, axis=1) * np.arange(1, 11))
    np.testing.assert_allclose(one.p_family, one.p)
    np.testing.assert_allclose(ten.p_family, one.p[0])


def test_the_correction_counts_the_largest_statistic() -> None:
    values = np.random.default_rng(1).standard_normal((6, 4)) + 0.3
    found = flip_signs(values)
    signs = 1 - 2 * ((np.arange(64)[:, None] >> np.arange(6)) & 1)
    statistic = np.abs(signs @ values) / np.sqrt((values**2).sum(axis=0))
    largest = statistic.max(axis=1)
    np.testing.assert_allclose(found.p_family, [(largest >= one - 1e-9).mean() for one in statistic[0]])


def test_pairs_without_a_measure_are_left_out() -> None:
    values = np.array([[1.0, 1.0], [2.0, np.nan], [0.5, 0.5], [1.5, 1.5]])
    found = flip_signs(values)
    np.testing.assert_allclose(found.p, [2 / 16, 2 / 8])
    assert list(found.n_pairs) == [4, 3]
    np.testing.assert_allclose(found.smallest, [1 / 8, 1 / 4])


def test_nothing_is_no_difference() -> None:
    assert flip_signs(np.zeros((7, 1))).p[0] == 1
    assert flip_signs(np.full((0, 1), np.nan)).p[0] == 1


def test_many_pairs_are_tested_by_random_patterns() -> None:
    values = np.random.default_rng(2).standard_normal((25, 1)) + 0.3
    found = flip_signs(values)
    # the t test is close to the exact one with so many
    assert found.p[0] == pytest.approx(stats.ttest_1samp(values[:, 0], 0).pvalue, abs=0.01)
    assert found.p[0] == flip_signs(values).p[0]
    assert flip_signs(values + 10).p[0] == pytest.approx(2 / 2**17)


def test_exchangeable_pairs_are_called_different_as_often_as_attainable() -> None:
    values = np.random.default_rng(3).exponential(size=(2, 9, 2000))
    rejected = flip_signs(values[0] - values[1]).p <= 0.05
    # 12 of 256 patterns: 4.7 %
    assert stats.binomtest(int(rejected.sum()), 2000, 12 / 256).pvalue > 0.001


def test_one_task_has_about_the_t_interval() -> None:
    values = np.random.default_rng(4).standard_normal(12)
    low, high = seed_interval(values, ["a"] * 12, n_resamples=20_000)
    expected = stats.t.interval(0.95, 11, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose([low, high], expected, atol=0.06)


def test_differences_between_tasks_are_no_uncertainty() -> None:
    rng = np.random.default_rng(5)
    tasks, noise = ["a", "b"] * 5, 0.1 * rng.standard_normal(10)
    near = seed_interval(noise, tasks)
    far = seed_interval(noise + np.array([0.0, 100.0] * 5), tasks)
    assert far[1] - far[0] == pytest.approx(near[1] - near[0])
    assert far[0] == pytest.approx(near[0] + 50)


def test_coverage_with_three_seeds_of_three_tasks() -> None:
    rng, covered = np.random.default_rng(6), 0
    for replicate in range(400):
        values = rng.standard_normal(9) + np.repeat([0.0, 1.0, 2.0], 3)
        low, high = seed_interval(values, list("aaabbbccc"), replicate, 500)
        covered += low <= 1 <= high
    assert stats.binomtest(covered, 400, 0.95).pvalue > 0.001


def test_without_spread_over_seeds_there_is_no_interval() -> None:
    assert seed_interval(np.array([1.0, 2.0]), ["a", "b"]) is None
    assert seed_interval(np.array([1.0, np.nan]), ["a", "a"]) is None
    assert seed_interval(np.array([]), []) is None
    assert seed_interval(np.array([1.0, 1.0]), ["a", "a"]) == (1.0, 1.0)
