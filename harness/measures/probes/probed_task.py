"""Features and labels of one task, and the scores of every kind of probe on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from jaxtyping import Float, Int

from harness.backbones import PretrainedHead, TextTower
from harness.config import Config
from harness.measures.label_scores import (
    LabelScores,
    score_labels,
)
from harness.measures.probes.kinds import PROBE_KINDS
from harness.storage import InputError
from tasks import Task

Classifier = Callable[[np.ndarray], np.ndarray]
"""From features [n_images, n_channels] to probabilities of classes [n_images, n_classes]."""


@dataclass(frozen=True)
class ProbedTask:
    """What a probe gets to see.

    Attributes
    ----------
    train, test : float array [n_train, n_channels], [n_test, n_channels]
        Features of the task's images.
    train_labels, test_labels : int array [n_train], [n_test]
        Classes counted from 0; or [n_train, n_labels], [n_test, n_labels] of 0 and 1.
    task : Task
    text : TextTower or None
        Pretrained text tower, for zero-shot classification.
    head : PretrainedHead or None
        The classifier that the weights came with, for ImageNet's classes.
    """

    train: Float[np.ndarray, "n_train n_channels"]
    train_labels: Int[np.ndarray, "n_train *n_labels"]
    test: Float[np.ndarray, "n_test n_channels"]
    test_labels: Int[np.ndarray, "n_test *n_labels"]
    task: Task
    text: TextTower | None = None
    head: PretrainedHead | None = None


@dataclass(frozen=True)
class ProbeResult:
    """Scores of one probe.

    Attributes
    ----------
    scores : LabelScores
        On the test images.
    lr : float or None
        Chosen learning rate; None where nothing is trained.
    """

    scores: LabelScores
    lr: float | None = None


def probe_features(probed: ProbedTask, config: Config) -> dict[str, float]:
    """Scores of every kind of probe that applies to the task, by name: ``linear_accuracy`` and so on."""
    return name_scores(score_probes(probed, config))


def fit_classifiers(probed: ProbedTask, config: Config) -> dict[str, Classifier]:
    """Fit every kind of probe that can classify other images too, by the kind's name.

    Only for tasks with one label per image.
    """
    found = {
        kind.name: import_module(f"harness.measures.probes.{kind.name}").classifier(probed, config)
        for kind in PROBE_KINDS
        if kind.classifies
    }
    return {name: classify for name, classify in found.items() if classify is not None}


def score_probes(
    probed: ProbedTask, config: Config, fitted: Mapping[str, Classifier] | None = None
) -> dict[str, LabelScores]:
    """Scores of every kind of probe that applies to the task, by the kind's name.

    `fitted` are those of `fit_classifiers`, so that nothing is fitted twice.
    """

    def score(kind: str) -> LabelScores | None:
        if fitted is None or kind not in fitted:
            return import_module(f"harness.measures.probes.{kind}").probe(probed, config)
        check_features(f"{kind} probe, test part", probed.test, probed.test_labels)
        return score_labels(fitted[kind](probed.test), probed.test_labels)

    found = {kind.name: score(kind.name) for kind in PROBE_KINDS}
    return {name: scores for name, scores in found.items() if scores is not None}


def name_scores(scored: Mapping[str, LabelScores]) -> dict[str, float]:
    """Name the scores of kinds of probes, such as ``linear_accuracy``; other names are left out."""
    return {
        name: value
        for kind in PROBE_KINDS
        if kind.name in scored
        for name, value in scored[kind.name].named(kind.prefix).items()
    }


def check_features(name: str, features: np.ndarray, labels: np.ndarray) -> None:
    """Raise an `InputError` if there are no images, a feature is not finite, or a label is negative."""
    if not len(labels):
        raise InputError(f"{name}: found no images, expected at least one")
    if not np.isfinite(features).all():
        raise InputError(f"{name}: found features that are not finite")
    if labels.min() < 0:
        raise InputError(f"{name}: found label {labels.min()}, expected classes counted from 0")
