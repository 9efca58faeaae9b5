"""Scores of predicted labels: accuracy, balanced accuracy, AUROC and calibration, by torchmetrics.

Pure functions of probabilities and labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata

from harness.measures.per_image import (
    Hits,
    PerImage,
    Ranks,
)
from harness.storage import InputError
from tasks import LabelArray

N_BINS = 15
"""Bins of the calibration error (Guo et al. 2017)."""


@dataclass(frozen=True)
class LabelScores:
    """Scores on a test set, in [0, 1]; None if undefined.

    Attributes
    ----------
    accuracy : float or None
        Share of images whose class is right. Multi-label: share of right labels at a threshold of 0.5, mean
        over labels.
    balanced_accuracy : float or None
        Mean recall over the classes present. Multi-label: mean of sensitivity and specificity at 0.5, over
        labels that some images have and others lack.
    auroc : float or None
        Area under the ROC curve of each class against all others (each label against its absence), mean over
        classes that some images have and others lack.
    ece : float or None
        Expected calibration error of the predicted class. Multi-label: of every label's probability, mean
        over labels.
    auroc_left_out : int or None
        Labels skipped in AUROC and balanced accuracy because all test images have them, or none; None for
        single-label tasks.
    images : Hits or Ranks or None
        What is right, image by image: what `accuracy` or, for multi-label tasks, `auroc` can be resampled
        from. None if it is not known.
    """

    accuracy: float | None
    balanced_accuracy: float | None
    auroc: float | None
    ece: float | None
    auroc_left_out: int | None = None
    images: PerImage | None = field(default=None, compare=False, repr=False)

    def named(self, prefix: str = "") -> dict[str, float]:
        """Scores that are defined, by name."""
        scores = {name: value for name, value in vars(self).items() if name != "images"}
        return {f"{prefix}{name}": float(value) for name, value in scores.items() if value is not None}


def score_labels(probabilities: Float[np.ndarray, "n_images n_classes"], labels: LabelArray) -> LabelScores:
    """Score predictions.

    Parameters
    ----------
    probabilities : float array [n_images, n_classes]
        Sum to 1 over classes; multi-label: one probability per label.
    labels : int array [n_images], or [n_images, n_classes] of 0 and 1
    """
    from torchmetrics.functional.classification import multiclass_stat_scores, multilabel_stat_scores

    found, target = torch.as_tensor(probabilities, dtype=torch.float64), torch.as_tensor(labels)
    n_classes = probabilities.shape[1]
    auroc, left_out = mean_auroc(probabilities, labels)
    count = multiclass_stat_scores if labels.ndim == 1 else multilabel_stat_scores
    # counts rather than torchmetrics' rates, which are rounded to 32 bits
    counts = count(found, target, n_classes, average="none", validate_args=False).double().numpy()
    true, false_positive, true_negative, _, support = counts.T
    if labels.ndim == 1:
        there = support > 0
        return LabelScores(
            accuracy=float(true.sum() / len(labels)),
            balanced_accuracy=float((true[there] / support[there]).mean()),
            auroc=auroc,
            ece=calibration_error(probabilities, labels),
            images=Hits(probabilities.argmax(axis=1) == labels),
        )
    scored = _of_both_kinds(labels)
    sensitivity = true[scored] / support[scored]
    specificity = true_negative[scored] / (true_negative + false_positive)[scored]
    errors = [label_calibration_error(*pair) for pair in zip(probabilities.T, labels.T, strict=True)]
    return LabelScores(
        accuracy=float(((true + true_negative) / len(labels)).mean()),
        balanced_accuracy=float((sensitivity + specificity).mean() / 2) if scored.any() else None,
        auroc=auroc,
        ece=float(np.mean(errors)),
        auroc_left_out=left_out,
        images=Ranks.of_scores(probabilities, labels),
    )


def mean_auroc(
    scores: Float[np.ndarray, "n_images n_classes"], labels: LabelArray
) -> tuple[float | None, int]:
    """Mean area under the ROC curve over classes or labels, and the number of those skipped.

    `scores` may be any numbers that rank the images. Classes that all images have, or none, are skipped; None
    if nothing is left.
    """
    from torchmetrics.functional.classification import multilabel_auroc

    present = labels[:, None] == np.arange(scores.shape[1]) if labels.ndim == 1 else labels == 1
    scored = _of_both_kinds(present)
    n_scored = int(scored.sum())
    if not n_scored:
        return None, len(scored)
    # only the order counts; torchmetrics squashes values outside [0, 1], which makes large scores tie
    ranks = rankdata(scores[:, scored], method="dense", axis=0) / len(scores)
    value = multilabel_auroc(
        torch.as_tensor(ranks, dtype=torch.float64),
        torch.as_tensor(present[:, scored].astype(np.int64)),
        num_labels=n_scored,
        average="none",
        validate_args=False,
    )
    return float(value.double().mean()), len(scored) - n_scored


def _of_both_kinds(labels: np.ndarray) -> np.ndarray:
    """Mask of the columns that hold both 0 and 1."""
    return np.logical_xor(labels.any(axis=0), labels.all(axis=0))


def calibration_error(
    probabilities: Float[np.ndarray, "n_images n_classes"], labels: np.ndarray, n_bins: int = N_BINS
) -> float:
    """ECE, the expected calibration error of the predicted class, in [0, 1] (Guo et al. 2017).

    Σ_b n_b/n |accuracy_b − confidence_b| over bins b of the images. Bins have equal width in the probability
    of the predicted class and include their upper end.
    """
    if not ((probabilities >= 0).all() and np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)):
        raise InputError("calibration error: found rows that are not probabilities, expected sums of 1")
    hit = probabilities.argmax(axis=1) == labels
    return label_calibration_error(probabilities.max(axis=1), hit.astype(np.int64), n_bins)


def label_calibration_error(
    probabilities: Float[np.ndarray, " n_images"], labels: np.ndarray, n_bins: int = N_BINS
) -> float:
    """ECE of the probability of one event, in [0, 1]; labels are 1 where it happened, else 0."""
    from torchmetrics.functional.classification import binary_calibration_error

    # torchmetrics' bins include their lower end, with one more for 1: nudge values down into the right bin
    below = np.nextafter(np.asarray(probabilities, dtype=np.float64), 0)
    value = binary_calibration_error(
        torch.as_tensor(below), torch.as_tensor(labels), n_bins=n_bins, norm="l1", validate_args=False
    )
    return float(value)
