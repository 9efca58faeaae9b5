"""Pretrained head: the ImageNet classifier that a network's weights came with, on a snapshot's features."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from harness.backbones import PretrainedHead
from harness.config import Config
from harness.measures.label_scores import (
    LabelScores,
    score_labels,
)
from harness.measures.probes.probed_task import (
    Classifier,
    ProbedTask,
    check_features,
)


def pretrained_head(
    features: Float[np.ndarray, "n_images n_channels"], head: PretrainedHead, classes: tuple[int, ...]
) -> Float[np.ndarray, "n_images n_classes"]:
    """Probabilities of some of a head's classes, by the softmax of their logits alone.

    Restricting logits to the classes of a test set is how ImageNet-A and -R (Hendrycks et al. 2021) are
    scored. `classes` are ImageNet's indices, in the order of the result.
    """
    chosen = list(classes)
    logits = features.astype(np.float64) @ head.weight[chosen].T + head.bias[chosen]
    return softmax(logits, axis=1)


def classifier(probed: ProbedTask, config: Config) -> Classifier | None:
    """Return the head as a function of features; None without one, or for other classes than ImageNet's."""
    head, classes = probed.head, probed.task.imagenet
    if head is None or not classes:
        return None
    return lambda features: pretrained_head(features, head, classes)


def probe(probed: ProbedTask, config: Config) -> LabelScores | None:
    """Scores of the head on the test images; None without one, or for other classes than ImageNet's."""
    classify = classifier(probed, config)
    if classify is None:
        return None
    check_features("pretrained head", probed.test, probed.test_labels)
    return score_labels(classify(probed.test), probed.test_labels)
