"""Zero-shot probe: classification by text, with the pretrained text tower."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax
from sklearn.preprocessing import normalize

from harness.config import Config
from harness.measures.label_scores import (
    LabelScores,
    mean_auroc,
    score_labels,
)
from harness.measures.per_image import Ranks
from harness.measures.probes.probed_task import (
    Classifier,
    ProbedTask,
    ProbeResult,
    check_features,
)
from harness.storage import InputError


def zero_shot(
    image_features: Float[np.ndarray, "n_images n_channels"],
    class_text_features: Float[np.ndarray, "n_classes n_channels"],
    labels: Int[np.ndarray, "n_images *n_labels"],
    logit_scale: float,
) -> ProbeResult:
    """Classify images by the class text of highest cosine similarity (CLIP: Radford et al. 2021).

    Both kinds of features are L2-normalised here. `logit_scale` is the factor itself (CLIP: about 100), not
    its logarithm; it only affects the ece. For multi-label tasks, similarity ranks the images for every
    label, which gives auroc; scores that need a threshold are undefined.
    """
    check_features("zero-shot probe", image_features, labels)
    if not logit_scale > 0:
        raise InputError(f"zero-shot probe: found a logit scale of {logit_scale}, expected a positive one")
    n_classes = labels.shape[1] if labels.ndim == 2 else labels.max() + 1
    if n_classes > len(class_text_features):
        raise InputError(
            f"zero-shot probe: found label {n_classes - 1}, but text for {len(class_text_features)} classes"
        )
    similarity = _compare(image_features, class_text_features)
    if labels.ndim == 2:
        auroc, left_out = mean_auroc(similarity, labels)
        images = Ranks.of_scores(similarity, labels)
        return ProbeResult(LabelScores(None, None, auroc, None, left_out, images))
    return ProbeResult(score_labels(_classify(similarity, logit_scale), labels))


def _compare(
    features: Float[np.ndarray, "n_images n_channels"], texts: Float[np.ndarray, "n_classes n_channels"]
) -> Float[np.ndarray, "n_images n_classes"]:
    return normalize(features) @ normalize(texts).T


def _classify(
    similarity: Float[np.ndarray, "n_images n_classes"], logit_scale: float
) -> Float[np.ndarray, "n_images n_classes"]:
    return softmax(logit_scale * similarity.astype(np.float64), axis=1)


def classifier(probed: ProbedTask, config: Config) -> Classifier | None:
    """Zero-shot classification as a function of features; None without a text tower or prompt templates."""
    text, task = probed.text, probed.task
    if text is None or not task.templates:
        return None
    head, scale = text.embed_classes(task.class_names, task.templates).numpy(), text.logit_scale
    return lambda features: _classify(_compare(features, head), scale)


def probe(probed: ProbedTask, config: Config) -> LabelScores | None:
    """Zero-shot scores on the test images; None without a text tower or prompt templates."""
    text, task = probed.text, probed.task
    if text is None or not task.templates:
        return None
    head = text.embed_classes(task.class_names, task.templates).numpy()
    return zero_shot(probed.test, head, probed.test_labels, text.logit_scale).scores
