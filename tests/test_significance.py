from dataclasses import asdict

import numpy as np
import pytest

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
    found = noise_floor(np.array([3.0, 4, 5]), BETWEEN, "two-sided")
    # t(.975, 2) = .95 * sqrt(2 / (.975 * .025)) / 2 = 4.30265; d = a_j − a_i has a spread of (K−1)/K of .5
    reach = 4.302653 * 2 / 3 * 0.5 * np.sqrt(4 / 3)
    assert (found.raw, found.null, found.excess) == pytest.approx((4, 2, 2))
    assert (found.low, found.high) == pytest.approx((2 - reach, 2 + reach))


def test_the_range_of_distances_is_taken_in_logarithms():
    found = noise_floor(np.array([3.0, 4, 5]), BETWEEN)
    logs = np.log([1.5, 2, 2.5])
    reach = 4.302653 * 2 * logs.std(ddof=1) * np.sqrt(4 / 3)
    low, high = np.exp(logs.mean() - reach), np.exp(logs.mean() + reach)
    assert (found.raw, found.null, found.excess) == pytest.approx((4, 2, 2))
    assert (found.low, found.high) == pytest.approx((4 - high, 4 - low), abs=1e-5)
    # at least 0: one more refit cannot be nearer than that
    assert found.high < found.raw


def test_distances_of_0_have_no_logarithm():
    between = np.array([[0.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    # leave-one-out means 0, 1/2, 1/2; a sum of terms has a spread of (K−2)/(K−1) of what one more needs
    reach = 4.302653 * 2 * np.std([0, 0.5, 0.5], ddof=1) * np.sqrt(4 / 3)
    found = noise_floor(np.ones(3), between)
    assert (found.low, found.high) == pytest.approx((2 / 3 - reach, 2 / 3 + reach), abs=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_interval_holds_0_as_often_as_it_says(sign):
    # distances that are sums (or differences) of one normal term per fit: 95 % of unchanged snapshots
    rng = np.random.default_rng(0)
    held = []
    for _ in range(2000):
        term = rng.normal(size=6)
        distance = term[None, :] + sign * term[:, None]
        # a scale on which logarithms are linear
        distance = np.exp(1e-3 * distance) if sign == 1 else distance
        found = noise_floor(distance[:5, 5], distance[:5, :5], "greater" if sign == 1 else "two-sided")
        held.append(found.low <= 0 <= found.high)
    # standard error .005
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("raw", [0.2, 0.3, 0.4])
@pytest.mark.parametrize("tail", ["greater", "less", "two-sided"])
def test_refits_that_agree_exactly(raw, tail):
    # .1 + .2 rather than .3: rounding must not count as a spread
    found = noise_floor(np.full(5, raw), np.full((5, 5), 0.1 + 0.2), tail)
    assert found.low == found.excess == found.high == pytest.approx(raw - 0.3)
    assert all(np.isfinite(list(asdict(found).values())))


def test_nothing_anywhere_is_nothing():
    found = noise_floor(np.zeros(3), np.zeros((3, 3)))
    assert asdict(found) == {"raw": 0, "null": 0, "excess": 0, "low": 0, "high": 0}


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
    found = noise_floor(np.array([3.0, 4, 8]), directed, "two-sided")
    assert (found.raw, found.null, found.excess) == pytest.approx((5, 3.5, 1.5))
    assert found.high - found.excess == pytest.approx(4.302653 * 2 / 3 * 0.5 * np.sqrt(4 / 3))
    # leave-one-out means 1.5, 3.5 and 4: their mean is 3, their median 3.5
    skewed = np.array([[0.0, 1, 2], [1, 0, 6], [2, 6, 0]])
    assert noise_floor(np.full(3, 4.0), skewed).null == pytest.approx(3)


def test_agreements_are_held_as_distances_are():
    # an agreement is one minus a distance
    rng = np.random.default_rng(1)
    term = rng.uniform(0, 0.3, size=6)
    distance = term[None, :] + term[:, None]
    far = noise_floor(distance[:5, 5], distance[:5, :5])
    agreed = noise_floor(1 - distance[:5, 5], 1 - distance[:5, :5], "less")
    assert (agreed.low, agreed.high) == pytest.approx((-far.high, -far.low))


@pytest.mark.parametrize("tail", ["greater", "two-sided"])
@pytest.mark.parametrize("unit", [1e-20, 1e20])
def test_the_unit_of_a_measure_does_not_matter(unit, tail):
    plain = noise_floor(np.array([3.0, 4, 5]), BETWEEN, tail)
    scaled = noise_floor(unit * np.array([3.0, 4, 5]), unit * BETWEEN, tail)
    assert (scaled.low, scaled.high) == pytest.approx((unit * plain.low, unit * plain.high))
    mean = mean_over_subjects(np.array([1.0, 2, 3]))
    assert mean_over_subjects(unit * np.array([1.0, 2, 3])).p == pytest.approx(mean.p)


def test_a_small_change_of_a_large_value_is_no_rounding():
    plain = noise_floor(np.array([3.0, 4, 5]), BETWEEN, "two-sided")
    shifted = noise_floor(1e6 + np.array([3.0, 4, 5]), 1e6 + BETWEEN, "two-sided")
    assert (shifted.low, shifted.high) == pytest.approx((plain.low, plain.high), rel=1e-6)
    # mean 1e6 + 2, standard error 1/√3
    found = mean_over_subjects(1e6 + np.array([1.0, 2, 3]))
    assert found.high - found.low == pytest.approx(2 * 2.484138, abs=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_what_rounding_leaves_is_neither_spread_nor_excess(sign):
    # the three refits agree on 0.3, up to rounding in the sum
    almost = np.full((3, 3), 0.3)
    almost[0, 1] = almost[1, 0] = 0.1 + 0.2
    found = noise_floor(np.zeros(3), sign * almost, "two-sided")
    assert found.low == found.excess == found.high == pytest.approx(-sign * 0.3)
    same = noise_floor(np.full(3, sign * (0.1 + 0.2)), sign * np.full((3, 3), 0.3), "two-sided")
    assert (same.excess, same.low, same.high) == (0, 0, 0)
    # the three differences cancel, though their sum is not 0 in floating point
    cancelled = noise_floor(sign * np.array([0.1, 0.2, -0.3]), np.zeros((3, 3)), "two-sided")
    assert cancelled.excess == 0


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
