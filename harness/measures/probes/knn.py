"""Nearest-neighbour probe: the labels of similar training images."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax
from sklearn.neighbors import NearestNeighbors

from harness.config import Config
from harness.measures.label_scores import (
    LabelScores,
    score_labels,
)
from harness.measures.probes.probed_task import (
    ProbedTask,
    ProbeResult,
    check_features,
)


def knn_probe(
    train: Float[np.ndarray, "n_train n_channels"],
    train_labels: Int[np.ndarray, "n_train *n_labels"],
    test: Float[np.ndarray, "n_test n_channels"],
    test_labels: Int[np.ndarray, "n_test *n_labels"],
    n_neighbours: int = 20,
    temperature: float = 0.07,
) -> ProbeResult:
    """Score a vote of nearest neighbours, as in DINO (Caron et al. 2021).

    The `n_neighbours` training images of highest cosine similarity s (all, if there are fewer) vote with
    weight exp(s/temperature); a class's or a label's share of votes is its probability.
    """
    for part, features, labels in (("training", train, train_labels), ("test", test, test_labels)):
        check_features(f"nearest-neighbour probe, {part} part", features, labels)
    search = NearestNeighbors(n_neighbors=min(n_neighbours, len(train)), metric="cosine").fit(train)
    distance, neighbours = search.kneighbors(test)
    weight = softmax(-distance.astype(np.float64) / temperature, axis=1)
    votes = train_labels
    if votes.ndim == 1:
        votes = np.eye(int(max(train_labels.max(), test_labels.max())) + 1)[train_labels]
    # rounding may push a sum of shares above 1
    shares = np.einsum("nk,nkc->nc", weight, votes[neighbours].astype(np.float64)).clip(0, 1)
    return ProbeResult(score_labels(shares, test_labels))


def probe(probed: ProbedTask, config: Config) -> LabelScores:
    """Scores of the nearest neighbours."""
    return knn_probe(
        probed.train, probed.train_labels, probed.test, probed.test_labels, config.probes.knn_k
    ).scores
