"""Intervals of Δ over test images: against closed forms, sklearn, and coverage where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from harness.measures import (
    Change,
    mean_delta_interval,
    score_labels,
)
from harness.measures.image_bootstrap import delta_interval
from harness.measures.per_image import (
    Hits,
    Ranks,
    decode_images,
)
from harness.storage import InputError


def make_change(rng: np.random.Generator, n: int, p_lost: float, p_gained: float, images: str = "") -> Change:
    """Make hits of a probe that loses and gains images with these probabilities."""
    kind = rng.choice(3, size=n, p=[p_lost, p_gained, 1 - p_lost - p_gained])
    right = rng.random(n) < 0.7
    return Change(
        Hits(np.where(kind == 0, True, np.where(kind == 1, False, right))),
        Hits(np.where(kind == 0, False, np.where(kind == 1, True, right))),
        images,
    )


def test_the_interval_is_that_of_paired_proportions() -> None:
    n, lost, gained = 400, 60, 20
    before = np.r_[np.ones(lost), np.zeros(gained), np.ones(n - lost - gained)].astype(bool)
    after = np.r_[np.zeros(lost), np.ones(gained), np.ones(n - lost - gained)].astype(bool)
    low, high = delta_interval(Change(Hits(before), Hits(after)), n_resamples=40_000)
    # Bonett & Price (2012), with one image more on either side
    p_lost, p_gained = (lost + 1) / (n + 2), (gained + 1) / (n + 2)
    error = np.sqrt((p_lost + p_gained - (p_gained - p_lost) ** 2) / (n + 2))
    centre = p_gained - p_lost
    assert low == pytest.approx(centre - 1.96 * error, abs=0.003)
    assert high == pytest.approx(centre + 1.96 * error, abs=0.003)


def test_pairs_count_and_not_accuracies() -> None:
    """Two probes of equal accuracies have a narrower Δ if they are right on the same images."""
    rng = np.random.default_rng(0)
    right = rng.random(300) < 0.7
    same = delta_interval(Change(Hits(right), Hits(right)))
    other = delta_interval(Change(Hits(right), Hits(rng.permutation(right))))
    assert other[1] - other[0] > 5 * (same[1] - same[0]) > 0


def test_an_interval_is_a_function_of_its_seed() -> None:
    change = make_change(np.random.default_rng(1), 150, 0.1, 0.05)
    assert delta_interval(change, 3) == delta_interval(change, 3)


@pytest.mark.parametrize(("p_lost", "p_gained"), [(0.02, 0.02), (0.15, 0.05), (0.4, 0.1)])
def test_coverage_over_images(p_lost: float, p_gained: float) -> None:
    rng = np.random.default_rng(2)
    truth, n_covered, n_replicates = p_gained - p_lost, 0, 400
    for replicate in range(n_replicates):
        low, high = delta_interval(make_change(rng, 150, p_lost, p_gained), replicate, 2000)
        n_covered += low <= truth <= high
    # 95 % within what 400 replicates show, and no more than a little conservative
    assert stats.binomtest(n_covered, n_replicates, 0.95).pvalue > 0.001 or n_covered / n_replicates > 0.95


def test_aurocs_are_resampled_as_sklearn_scores_them() -> None:
    rng = np.random.default_rng(3)
    labels = (rng.random((60, 3)) < 0.4).astype(np.int64)
    scores = np.round(rng.random((2, 60, 3)) + 0.3 * labels, 1)  # with ties
    change = Change(Ranks.of_scores(scores[0], labels), Ranks.of_scores(scores[1], labels))
    low, high = delta_interval(change, 5, 2000)
    draws = np.random.default_rng(6).integers(60, size=(400, 60))
    resampled = [
        roc_auc_score(labels[drawn], scores[1][drawn]) - roc_auc_score(labels[drawn], scores[0][drawn])
        for drawn in draws
    ]
    assert low == pytest.approx(np.quantile(resampled, 0.025), abs=0.02)
    assert high == pytest.approx(np.quantile(resampled, 0.975), abs=0.02)


def test_labels_of_one_kind_are_left_out() -> None:
    rng = np.random.default_rng(4)
    labels = np.stack([rng.random(40) < 0.5, np.ones(40, bool)], axis=1).astype(np.int64)
    scores = rng.random((2, 40, 2))
    both = Change(*(Ranks.of_scores(one, labels) for one in scores))
    first = Change(*(Ranks.of_scores(one[:, :1], labels[:, :1]) for one in scores))
    assert delta_interval(both) == delta_interval(first)
    only = Change(*(Ranks.of_scores(one[:, 1:], labels[:, 1:]) for one in scores))
    assert delta_interval(only) is None
    assert mean_delta_interval([only, only]) is None


def test_one_seed_has_the_interval_over_images() -> None:
    change = make_change(np.random.default_rng(5), 100, 0.2, 0.1)
    assert mean_delta_interval([change]) == delta_interval(change)


def test_seeds_that_disagree_widen_the_interval() -> None:
    rng = np.random.default_rng(6)
    alike = [make_change(rng, 200, 0.2, 0.1) for _ in range(4)]
    unlike = [make_change(rng, 200, p, 0.1) for p in (0.05, 0.15, 0.25, 0.35)]
    width = [high - low for low, high in (mean_delta_interval(alike), mean_delta_interval(unlike))]
    assert width[1] > 1.5 * width[0]
    # the mean over seeds is better known than one seed
    one = delta_interval(alike[0])
    assert width[0] < one[1] - one[0]


def test_images_that_seeds_share_do_not_average_out() -> None:
    change = make_change(np.random.default_rng(7), 150, 0.2, 0.1, "same")
    one, shared = delta_interval(change), mean_delta_interval([change] * 4)
    apart = mean_delta_interval([Change(change.before, change.after, str(seed)) for seed in range(4)])
    assert shared[1] - shared[0] == pytest.approx(one[1] - one[0], rel=0.1)
    # four sets of images of equal result: half as wide
    assert apart[1] - apart[0] == pytest.approx((one[1] - one[0]) / 2, rel=0.1)


def test_scores_leave_records_that_give_them_back() -> None:
    rng = np.random.default_rng(8)
    probabilities = rng.dirichlet(np.ones(4), 37)
    labels = rng.integers(4, size=37)
    scores = score_labels(probabilities, labels)
    found = decode_images(scores.images.encode())
    assert found.right.mean() == pytest.approx(scores.accuracy)
    np.testing.assert_array_equal(found.right, probabilities.argmax(1) == labels)
    several = (rng.random((37, 4)) < 0.5).astype(np.int64)
    scores = score_labels(probabilities, several)
    found = decode_images(scores.images.encode())
    np.testing.assert_array_equal(found.present, several == 1)
    assert roc_auc_score(several, found.rank) == pytest.approx(scores.auroc)


def test_bad_input_is_named() -> None:
    hits = Hits(np.ones(5, bool))
    with pytest.raises(InputError, match="records of 5 and 4 test images"):
        Change(hits, Hits(np.ones(4, bool)))
    with pytest.raises(InputError, match="broken record"):
        decode_images({"n": 9, "ranks": "AAAA"})
    with pytest.raises(InputError, match="broken record"):
        decode_images({"n": 3, "hits": "zz"})
    with pytest.raises(InputError, match="found no run"):
        mean_delta_interval([])
