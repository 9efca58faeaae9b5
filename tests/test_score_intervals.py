"""Intervals of accuracies: Wilson's formula, coverage over seeds, and what is on record."""

from __future__ import annotations

import numpy as np
import pytest

from harness.measures.per_image import Hits, Ranks
from harness.measures.score_intervals import (
    Score,
    mean_score_interval,
    read_score,
    score_interval,
)
from harness.storage.errors import InputError


def hits(n_right: int, n: int = 100) -> Hits:
    return Hits(np.arange(n) < n_right)


def wilson(n_right: int, n: int) -> tuple[float, float]:
    """Wilson 1927, written out."""
    z, p = 1.959963985, n_right / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return middle - half, middle + half


@pytest.mark.parametrize(("n_right", "n"), [(0, 20), (7, 20), (20, 20), (850, 1000)])
def test_accuracies_have_wilsons_interval(n_right: int, n: int) -> None:
    found = score_interval(Score(hits(n_right, n)))
    assert found == pytest.approx(wilson(n_right, n), abs=1e-6)
    assert mean_score_interval([Score(hits(n_right, n))]) == found


def test_ends_stay_between_0_and_1() -> None:
    perfect = mean_score_interval([Score(hits(30, 30), "a"), Score(hits(30, 30), "a")])
    assert perfect is not None and 0.8 < perfect[0] < perfect[1] == 1.0


def test_the_mean_over_seeds_is_as_uncertain_as_seeds_and_images() -> None:
    # equal runs on the same images are one run: seeds add nothing, and images do not average out
    alike = mean_score_interval([Score(hits(70), "same")] * 3)
    assert alike == pytest.approx(wilson(70, 100), abs=0.015)
    # on images of their own they do
    apart = mean_score_interval([Score(hits(70), name) for name in "abc"])
    assert apart is not None and alike is not None
    assert (apart[1] - apart[0]) == pytest.approx((alike[1] - alike[0]) / np.sqrt(3), rel=0.1)
    # seeds that differ widen it
    spread = mean_score_interval(
        [Score(hits(right), name) for right, name in ((50, "a"), (70, "b"), (90, "c"))]
    )
    assert spread is not None and spread[0] < apart[0] - 0.1 and spread[1] > apart[1] + 0.1


def test_of_auroc_images_are_resampled() -> None:
    labels = (np.arange(200) % 2)[:, None]
    scores = np.random.default_rng(0).normal(labels, 1.0)
    found = score_interval(Score(Ranks.of_scores(scores, labels)))
    # the area between two normal distributions one sd apart is Φ(1/√2) = 0.76; its sd is about 0.034
    assert found is not None and found[0] < 0.76 < found[1]
    assert 0.1 < found[1] - found[0] < 0.16
    assert score_interval(Score(Ranks.of_scores(scores, np.ones_like(labels)))) is None


def test_scores_are_read_from_a_probes_file() -> None:
    probes = {"images": {"digits": {"n": 100, "hash": "abc", "right": {"head": hits(40).encode()}}}}
    found = read_score(probes, "digits", "head")
    assert found is not None and found.images == "abc"
    assert isinstance(found.right, Hits) and found.right.right.sum() == 40
    assert read_score(probes, "digits", "linear") is None
    assert read_score(probes, "shapes", "head") is None
    assert read_score({}, "digits", "head") is None
    with pytest.raises(InputError, match="no run"):
        mean_score_interval([])
