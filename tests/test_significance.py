from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from harness.measures.significance import (
    correct_over_rois,
    leave_one_out,
    mean_over_subjects,
    noise_floor,
)
from harness.storage.errors import InputError

# d(01,02) = 1, d(01,03) = 2, d(02,03) = 3: leave-one-out means 1.5, 2, 2.5; mean 2, sd .5
BETWEEN = np.array([[0.0, 1, 2], [1, 0, 3], [2, 3, 0]])


def test_leave_one_out_by_hand():
    np.testing.assert_allclose(leave_one_out(BETWEEN), [1.5, 2, 2.5])


def test_leave_one_out_keeps_direction_and_ignores_the_diagonal():
    signed = np.array([[9.0, 1, 2], [-1, 9, 3], [-2, -3, 9]])
    np.testing.assert_allclose(leave_one_out(signed), [-1.5, -1, 2.5])
    np.fill_diagonal(signed, np.nan)
    np.testing.assert_allclose(leave_one_out(signed), [-1.5, -1, 2.5])


def test_noise_floor_by_hand():
    found = noise_floor(np.array([3.0, 4, 5]), BETWEEN)
    # T = 2 / (.5 * sqrt(4/3)) = 2 sqrt 3; t with 2 dof: sf(T) = 1/2 - T / (2 sqrt(2 + T²)) = 1/2 - √(3/14)
    spread = 0.5 * np.sqrt(4 / 3)
    assert (found.raw, found.null, found.excess) == pytest.approx((4, 2, 2))
    assert found.p == pytest.approx(0.5 - np.sqrt(3 / 14))
    # t(.975, 2) = .95 * sqrt(2 / (.975 * .025)) / 2 = 4.30265
    assert found.high - found.excess == pytest.approx(4.302653 * spread)
    assert found.excess - found.low == pytest.approx(4.302653 * spread)


def test_tails():
    up = noise_floor(np.full(3, 4.0), BETWEEN, "greater").p
    assert noise_floor(np.full(3, 4.0), BETWEEN, "less").p == pytest.approx(1 - up)
    assert noise_floor(np.full(3, 4.0), BETWEEN, "two-sided").p == pytest.approx(2 * up)
    assert noise_floor(np.full(3, 0.0), BETWEEN, "less").p == pytest.approx(up)
    assert noise_floor(np.full(3, 0.0), BETWEEN, "two-sided").p == pytest.approx(2 * up)


@pytest.mark.parametrize(("alternative", "factor"), [("greater", 2), ("two-sided", 2 / 3)])
def test_correction_scales_the_spread(alternative, factor):
    plain = noise_floor(np.full(3, 4.0), BETWEEN, alternative)
    corrected = noise_floor(np.full(3, 4.0), BETWEEN, alternative, corrected=True)
    assert corrected.high - corrected.low == pytest.approx(factor * (plain.high - plain.low))
    assert (corrected.p > plain.p) == (factor > 1)


@pytest.mark.parametrize(("sign", "alternative"), [(1, "greater"), (-1, "two-sided")])
def test_corrected_test_is_exact_under_no_change(sign, alternative):
    # distances that are sums (or differences) of one normal term per fit: p must be uniform
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(1500):
        term = rng.normal(size=6)
        distance = term[None, :] + sign * term[:, None]
        p_values.append(noise_floor(distance[:5, 5], distance[:5, :5], alternative, corrected=True).p)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    ("raw", "alternative", "p"),
    [
        (0.3, "greater", 1.0),
        (0.4, "greater", 0.0),
        (0.2, "greater", 1.0),
        (0.2, "less", 0.0),
        (0.2, "two-sided", 0.0),
        (0.3, "two-sided", 1.0),
    ],
)
def test_refits_that_agree_exactly(raw, alternative, p):
    # .1 + .2 rather than .3: rounding must not count as an excess
    found = noise_floor(np.full(5, raw), np.full((5, 5), 0.1 + 0.2), alternative)
    assert found.p == p
    assert found.low == found.excess == found.high == pytest.approx(raw - 0.3)
    assert all(np.isfinite(list(asdict(found).values())))


def test_nothing_anywhere_is_nothing():
    found = noise_floor(np.zeros(3), np.zeros((3, 3)))
    assert asdict(found) == {"raw": 0, "null": 0, "excess": 0, "low": 0, "high": 0, "p": 1}


@pytest.mark.parametrize("n_fits", [1, 2])
def test_too_few_refits(n_fits):
    with pytest.raises(InputError, match=rf"mapping.floor_refits: found {n_fits - 1}, .*at least 2"):
        noise_floor(np.ones(n_fits), np.ones((n_fits, n_fits)))


def test_values_that_are_not_finite():
    with pytest.raises(InputError, match="not finite"):
        noise_floor(np.array([1.0, np.nan, 1]), BETWEEN)
    with pytest.raises(InputError, match="not finite"):
        noise_floor(np.ones(3), np.where(BETWEEN == 3, np.inf, BETWEEN))


def test_benjamini_hochberg_by_hand():
    # sorted p · n / rank: .04, .04, .16/3, .5; then the running minimum from the right
    found = correct_over_rois(np.array([0.5, 0.01, 0.04, 0.02]))
    np.testing.assert_allclose(found, [0.5, 0.04, 0.16 / 3, 0.04])
    assert correct_over_rois(np.array([])).size == 0


def test_mean_over_subjects_by_hand():
    # sd 1, standard error 1/√3; t(.975) with 2 degrees of freedom is 4.302653
    found = mean_over_subjects(np.array([1.0, 2.0, 3.0]))
    assert found.mean == pytest.approx(2.0)
    assert (found.low, found.high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    # t = 2√3; the t distribution with 2 degrees of freedom has the tail (1 − t/√(2 + t²))/2 = (1 − √(6/7))/2
    tail = (1 - np.sqrt(6 / 7)) / 2
    assert found.p == pytest.approx(2 * tail)
    values = np.array([1.0, 2.0, 3.0])
    assert mean_over_subjects(values, "greater").p == pytest.approx(tail)
    assert mean_over_subjects(values, "less").p == pytest.approx(1 - tail)
    # with two subjects, t is Cauchy's: t(.975) = tan(.475π), the standard error half their difference
    low, high = (0.4 - 0.1 * np.tan(0.475 * np.pi), 0.4 + 0.1 * np.tan(0.475 * np.pi))
    two = mean_over_subjects(np.array([0.3, 0.5]))
    assert (two.low, two.high) == pytest.approx((low, high))


def test_subjects_that_agree_exactly():
    agreed = mean_over_subjects(np.full(3, 0.1), "greater")
    assert (agreed.mean, agreed.low, agreed.high, agreed.p) == pytest.approx((0.1, 0.1, 0.1, 0.0))
    assert mean_over_subjects(np.full(3, 0.1), "less").p == 1.0
    assert mean_over_subjects(np.zeros(4)).p == 1.0


def test_the_interval_over_subjects_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [mean_over_subjects(rng.normal(0.3, 2.0, 4)) for _ in range(2000)]
    assert np.mean([one.low < 0.3 < one.high for one in found]) == pytest.approx(0.95, abs=0.015)


def test_the_floor_is_made_of_means_and_keeps_direction():
    # from i to j: columns have the leave-one-out means 4, 3.5 and 3 (rows would have 1.5, 3.5 and 5.5)
    directed = np.array([[0.0, 1, 2], [3, 0, 4], [5, 6, 0]])
    found = noise_floor(np.array([3.0, 4, 8]), directed)
    assert (found.raw, found.null, found.excess) == pytest.approx((5, 3.5, 1.5))
    assert found.high - found.excess == pytest.approx(4.302653 * 0.5 * np.sqrt(4 / 3))
    # leave-one-out means 1.5, 3.5 and 4: their mean is 3, their median 3.5
    skewed = np.array([[0.0, 1, 2], [1, 0, 6], [2, 6, 0]])
    assert noise_floor(np.full(3, 4.0), skewed).null == pytest.approx(3)


def test_agreements_are_corrected_as_distances_are():
    # an agreement is a constant minus a distance, so it shares pairs in the same way
    rng = np.random.default_rng(1)
    term = rng.normal(size=6)
    distance = term[None, :] + term[:, None]
    far = noise_floor(distance[:5, 5], distance[:5, :5], "greater", corrected=True)
    agreed = noise_floor(1 - distance[:5, 5], 1 - distance[:5, :5], "less", corrected=True)
    assert agreed.p == pytest.approx(far.p)
    assert (agreed.low, agreed.high) == pytest.approx((-far.high, -far.low))


@pytest.mark.parametrize("unit", [1e-20, 1e20])
def test_the_unit_of_a_measure_does_not_matter(unit):
    plain = noise_floor(np.array([3.0, 4, 5]), BETWEEN)
    scaled = noise_floor(unit * np.array([3.0, 4, 5]), unit * BETWEEN)
    assert scaled.p == pytest.approx(plain.p)
    assert (scaled.low, scaled.high) == pytest.approx((unit * plain.low, unit * plain.high))
    mean = mean_over_subjects(np.array([1.0, 2, 3]))
    assert mean_over_subjects(unit * np.array([1.0, 2, 3])).p == pytest.approx(mean.p)


def test_a_small_change_of_a_large_value_is_no_rounding():
    plain = noise_floor(np.array([3.0, 4, 5]), BETWEEN)
    shifted = noise_floor(1e6 + np.array([3.0, 4, 5]), 1e6 + BETWEEN)
    assert shifted.p == pytest.approx(plain.p, rel=1e-6)
    # mean 1e6 + 2, standard error 1/√3
    found = mean_over_subjects(1e6 + np.array([1.0, 2, 3]))
    assert found.high - found.low == pytest.approx(2 * 2.484138, abs=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_what_rounding_leaves_is_neither_spread_nor_excess(sign):
    # the three refits agree on 0.3, up to rounding in the sum
    almost = np.full((3, 3), 0.3)
    almost[0, 1] = almost[1, 0] = 0.1 + 0.2
    found = noise_floor(np.zeros(3), sign * almost, "two-sided")
    assert found.p == 0
    assert found.low == found.excess == found.high == pytest.approx(-sign * 0.3)
    same = noise_floor(np.full(3, sign * (0.1 + 0.2)), sign * np.full((3, 3), 0.3), "two-sided")
    assert (same.excess, same.low, same.high, same.p) == (0, 0, 0, 1)
    # the three differences cancel, though their sum is not 0 in floating point
    cancelled = noise_floor(sign * np.array([0.1, 0.2, -0.3]), np.zeros((3, 3)), "two-sided")
    assert (cancelled.excess, cancelled.p) == (0, 1)


@pytest.mark.parametrize(("value", "alternative"), [(0.1, "greater"), (-0.1, "less")])
def test_subjects_that_agree_exactly_leave_no_doubt(value, alternative):
    agreed = mean_over_subjects(np.full(3, value), alternative)
    assert agreed.low == agreed.mean == agreed.high == pytest.approx(value)
    assert agreed.p == 0
    assert mean_over_subjects(np.full(3, value), "two-sided").p == 0


def test_the_mean_over_subjects_is_no_median_and_is_0_where_values_cancel():
    assert mean_over_subjects(np.array([1.0, 2, 6])).mean == pytest.approx(3)
    cancelled = mean_over_subjects(np.array([0.1, 0.2, -0.3]))
    assert (cancelled.mean, cancelled.p) == (0, 1)
    assert cancelled.low == -cancelled.high < 0


def test_one_subject_says_nothing_of_others():
    with pytest.raises(AssertionError):
        mean_over_subjects(np.ones(1))


def test_one_roi_is_not_corrected():
    np.testing.assert_array_equal(correct_over_rois(np.array([0.03])), [0.03])
