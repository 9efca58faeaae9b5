"""Forgetting at equal learning, against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from harness.measures import (
    LEARNED_SHARES,
    accuracy_to_reach,
    common_best,
    value_at_accuracy,
    values_at_shares,
)
from harness.storage import InputError

FAST = np.array([0.2, 0.6, 1.0])
SLOW = np.array([0.4, 0.5, 0.8])


def test_the_common_best_is_the_lowest_best():
    assert common_best([FAST, SLOW]) == 0.8
    # the best, not the last
    assert common_best([FAST, np.array([0.4, 0.7, 0.5])]) == 0.7


def test_forgetting_is_interpolated_where_the_accuracy_is_reached():
    lost = [np.array([0.0, -0.1, -0.3]), np.array([0.0, -0.02, -0.08])]
    found = values_at_shares([FAST, SLOW], lost)
    # FAST goes from .2 to .8: .5, .65 and .74 lie at 3/4 of its first step, at .125 and .35 of its second;
    # SLOW goes from .4 to .8: .6, .7 and .76 lie at 1/3, 2/3 and 13/15 of its second step
    expected = [[-0.075, -0.125, -0.17], [-0.04, -0.06, -0.02 - 0.06 * 13 / 15]]
    assert LEARNED_SHARES == (0.5, 0.75, 0.9)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_whole_way_is_the_snapshot_that_reaches_it():
    lost = [np.array([0.0, -0.1, -0.3]), np.array([0.0, -0.02, -0.08])]
    np.testing.assert_allclose(values_at_shares([FAST, SLOW], lost, [1.0]), [[-0.2], [-0.08]], rtol=1e-12)


def test_the_first_arrival_counts():
    accuracy = np.array([0.1, 0.5, 0.3, 0.9])
    assert value_at_accuracy(accuracy, np.array([0.0, -0.2, -0.4, -0.6]), 0.4) == pytest.approx(-0.15)


def test_nothing_is_extrapolated():
    lost = np.array([0.0, -0.1, -0.3])
    assert np.isnan(value_at_accuracy(SLOW, lost, 0.81))
    assert np.isnan(value_at_accuracy(SLOW, lost, 0.39))
    assert value_at_accuracy(SLOW, lost, 0.4) == 0.0
    assert np.isnan(value_at_accuracy(SLOW, lost, float("nan")))
    # a level of other runs that this one never reaches
    assert np.isnan(values_at_shares([SLOW], [lost], best=1.0)[0, 2])
    assert values_at_shares([SLOW], [lost], best=1.0)[0, 0] == pytest.approx(-0.1 - 0.2 * 2 / 3)


def test_a_run_that_starts_where_another_ends_has_no_way_to_go():
    high, lost = np.array([0.85, 0.9]), np.array([0.0, -0.1])
    found = values_at_shares([high, SLOW], [lost, np.array([0.0, -0.02, -0.08])])
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()
    # so has one that learns nothing
    assert np.isnan(values_at_shares([np.array([0.3, 0.2])], [lost])).all()
    assert np.isnan(accuracy_to_reach(0.5, 0.5, 0.5))


def test_seeds_share_one_level():
    seeds = [FAST, np.array([0.2, 0.6, 0.7]), SLOW]
    steps = [np.array([0.0, 10.0, 20.0])] * 3
    # all go to .7: half of the way is .45 from .2, and .55 from .4
    np.testing.assert_allclose(values_at_shares(seeds, steps, [0.5])[:, 0], [6.25, 6.25, 10 + 10 / 6])


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda: common_best([]), "no run"),
        (lambda: common_best([np.array([])]), "no snapshot"),
        (lambda: common_best([np.array([0.1, 1.2])]), "an accuracy of 1.2"),
        (lambda: common_best([np.array([0.1, np.nan])]), "an accuracy of nan"),
        (lambda: value_at_accuracy(FAST, np.zeros(2), 0.5), "3 accuracies and 2 values"),
        (lambda: values_at_shares([FAST], []), "1 runs' accuracies and 0"),
        (lambda: accuracy_to_reach(0.1, 0.9, 1.5), "a share of 1.5"),
    ],
)
def test_bad_input_is_named(call, found):
    with pytest.raises(InputError, match=found):
        call()
