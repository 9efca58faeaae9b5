"""Label scores against hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest

from harness.measures.label_scores import (
    calibration_error,
    label_calibration_error,
    mean_auroc,
    score_labels,
)
from harness.storage.errors import InputError


def test_single_labels_by_hand() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.3, 0.6, 0.1], [0.6, 0.3, 0.1]])
    scores = score_labels(probabilities, np.array([0, 0, 1, 0]))
    # the first, third and fourth are right; recalls 2/3 and 1; no image has the third class
    assert scores.accuracy == 0.75
    assert scores.balanced_accuracy == pytest.approx(5 / 6)
    # class 0: .7, .4, .6 all above .3; class 1: .6 above all
    assert scores.auroc == 1
    assert scores.auroc_left_out is None and "auroc_left_out" not in scores.named()


def test_auroc_by_hand() -> None:
    # positives .9 and .4 against .4 and .1: of four pairs, three are right and one is a tie
    value, left_out = mean_auroc(np.array([[0.9], [0.4], [0.4], [0.1]]), np.array([[1], [0], [1], [0]]))
    assert (value, left_out) == (pytest.approx(3.5 / 4), 0)
    # only ranks count, and large scores are not ties
    assert mean_auroc(np.array([[900.0], [-3.0], [901.0]]), np.array([[0], [0], [1]]))[0] == 1


def test_labels_of_one_kind_are_left_out_and_counted() -> None:
    probabilities = np.array([[0.9, 0.6, 0.2], [0.2, 0.7, 0.1], [0.8, 0.9, 0.6], [0.6, 0.8, 0.4]])
    labels = np.array([[1, 1, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0]])
    scores = score_labels(probabilities, labels)
    # every image has the second label, none the third
    assert scores.auroc_left_out == 2
    assert scores.auroc == 1
    assert scores.balanced_accuracy == pytest.approx((1 + 0.5) / 2)
    # right: 3 of 4, 4 of 4, 3 of 4
    assert scores.accuracy == pytest.approx(10 / 12)
    none = score_labels(probabilities[:, 1:], labels[:, 1:])
    assert (none.auroc, none.balanced_accuracy, none.auroc_left_out) == (None, None, 2)
    assert set(none.named("x_")) == {"x_accuracy", "x_ece", "x_auroc_left_out"}


def test_calibration_of_labels_is_the_mean_over_labels() -> None:
    probabilities = np.array([[0.8, 0.5], [0.8, 0.5]])
    # .8 happens half the time; .5 always: |.5 - .8| and |1 - .5|
    assert score_labels(probabilities, np.array([[1, 1], [0, 1]])).ece == pytest.approx((0.3 + 0.5) / 2)
    assert label_calibration_error(np.array([0.0, 1.0]), np.array([1, 0])) == 1


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])
    labels = np.array([0, 1, 1, 1])
    # bins of width 1/15: .9, .9 share one (accuracy .5, confidence .9); .6 (exactly 9/15) and .7 are alone
    assert calibration_error(probabilities, labels) == pytest.approx((2 * 0.4 + 0.4 + 0.3) / 4)
    # one bin: accuracy .75, confidence .775
    assert calibration_error(probabilities, labels, n_bins=1) == pytest.approx(0.025)


def test_calibration_error_at_the_ends() -> None:
    certain = np.eye(3)[[0, 1, 2]]
    assert calibration_error(certain, np.array([0, 1, 2])) == pytest.approx(0, abs=1e-15)
    assert calibration_error(certain, np.array([1, 2, 0])) == pytest.approx(1, abs=1e-15)


def test_bins_are_closed_above() -> None:
    # .5 is the upper edge of the first of two bins, .8 in the second: their errors do not cancel
    probabilities = np.array([[0.5, 0.5], [0.8, 0.2]])
    assert calibration_error(probabilities, np.array([0, 1]), n_bins=2) == pytest.approx((0.5 + 0.8) / 2)


def test_logits_are_not_probabilities() -> None:
    with pytest.raises(InputError, match="not probabilities"):
        calibration_error(np.array([[2.0, 1.0]]), np.array([0]))
