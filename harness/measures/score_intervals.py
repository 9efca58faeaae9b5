"""Intervals of accuracies and AUROC over test images, and over the seeds of a group of runs.

What `harness.measures.image_bootstrap` does for changes, for the scores themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from harness.measures.image_bootstrap import (
    ENDS,
    N_RESAMPLES,
    interval_over_runs,
    quantile_ends,
    resample_auroc,
    resample_hits,
    resample_ranks,
)
from harness.measures.per_image import (
    Hits,
    PerImage,
    decode_images,
)
from harness.storage import InputError


@dataclass(frozen=True)
class Score:
    """What one run's head or probe got right at a snapshot.

    Attributes
    ----------
    right : Hits or Ranks
    images : str
        Hash of the test images: runs of equal hash were tested on the same ones. Empty: on others than all
        other runs.
    """

    right: PerImage
    images: str = ""

    @property
    def measure(self) -> str:
        """What the record gives: "accuracy" from hits, "auroc" from ranks."""
        return "accuracy" if isinstance(self.right, Hits) else "auroc"


def read_score(probes: Mapping[str, Any], task: str, scoring: str) -> Score | None:
    """Read what a head or probe got right on a task out of a probes file; None if it is not on record.

    Parameters
    ----------
    probes : dict
        A snapshot's probes file.
    task, scoring : str
        ``digits`` and ``head``, ``linear``, ``knn`` or ``zero_shot``.

    Raises
    ------
    InputError
        If the record is broken.
    """
    record = probes.get("images", {}).get(task)
    if record is None or scoring not in record["right"]:
        return None
    return Score(decode_images(record["right"][scoring]), record["hash"])


def score_interval(score: Score, seed: int = 0, n_resamples: int = N_RESAMPLES) -> tuple[float, float] | None:
    """95 % interval of a score over test images.

    Of accuracy, Wilson's score interval (1927): it holds for few images and for accuracies near 0 or 1. Of
    mean AUROC, quantiles over resamples of the images.

    Parameters
    ----------
    score : Score
    seed : int
        Of the resamples.
    n_resamples : int

    Returns
    -------
    tuple of float or None
        Lower and upper end in [0, 1]; None for AUROC if no label is both present and absent.
    """
    if isinstance(score.right, Hits):
        test = stats.binomtest(int(score.right.right.sum()), len(score.right))
        ends = test.proportion_ci(ENDS[1] - ENDS[0], method="wilson")
        return float(ends.low), float(ends.high)
    return quantile_ends(_resample([score], n_resamples, np.random.default_rng(seed))[:, 0])


def mean_score_interval(
    scores: Sequence[Score], seed: int = 0, n_resamples: int = N_RESAMPLES
) -> tuple[float, float] | None:
    """95 % interval of the mean score of runs that differ in their seed, over seeds and test images.

    Made like that of the mean Δ (`harness.measures.mean_delta_interval`), cut at 0 and 1; of accuracies, two
    images join those that are resampled, one right and one wrong. Parameters and result as for
    `score_interval`; one run has that interval.

    Raises
    ------
    InputError
        If there is no run.
    """
    if not scores:
        raise InputError("score over seeds: found no run, expected at least one")
    if len(scores) == 1:
        return score_interval(scores[0], seed, n_resamples)
    ends = interval_over_runs(
        np.array([_point(score) for score in scores]),
        [(score.images, len(score.right), type(score.right)) if score.images else None for score in scores],
        lambda places, n, rng: _resample([scores[place] for place in places], n, rng),
        seed,
        n_resamples,
    )
    return None if ends is None else (max(ends[0], 0.0), min(ends[1], 1.0))


def _point(score: Score) -> float:
    """The score itself."""
    if isinstance(score.right, Hits):
        return float(score.right.right.mean())
    return float(resample_auroc(score.right, np.ones((1, len(score.right)), dtype=np.int64))[0])


def _resample(
    scores: Sequence[Score], n_resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "n_resamples n_runs"]:
    """Scores of runs that were tested on the same images, in resamples of these images; NaN without AUROC."""
    hits = [score.right for score in scores if isinstance(score.right, Hits)]
    if len(hits) == len(scores):
        values = np.stack([one.right.astype(int) for one in hits], axis=1)
        return resample_hits(values, (1, 0), n_resamples, rng)
    return resample_ranks([score.right for score in scores], n_resamples, rng)
