"""Linear probe: a linear layer trained afresh on frozen features, for every snapshot and task.

No function reads or changes a global random state.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional as F

from harness.config import Config
from harness.measures.label_scores import (
    LabelScores,
    mean_auroc,
    score_labels,
)
from harness.measures.probes.probed_task import (
    Classifier,
    ProbedTask,
    ProbeResult,
    check_features,
)
from harness.storage import InputError
from tasks import label_loss

LEARNING_RATES = (0.01, 0.05, 0.1, 0.5, 1.0)
"""The grid of LDIFS (Mukhoti et al., TMLR 2024)."""


def linear_probe(
    train: Float[np.ndarray, "n_train n_channels"],
    train_labels: Int[np.ndarray, "n_train *n_labels"],
    test: Float[np.ndarray, "n_test n_channels"],
    test_labels: Int[np.ndarray, "n_test *n_labels"],
    seed: int,
    *,
    steps: int = 1000,
    learning_rates: Sequence[float] = LEARNING_RATES,
    validation_fraction: float = 0.2,
    weight_decay: float = 0.01,
    device: str | torch.device = "cpu",
) -> ProbeResult:
    """Train and score a linear probe, by the protocol of LDIFS (Mukhoti et al., TMLR 2024).

    L2-normalised features, linear layer with bias, full-batch AdamW on cross-entropy. Every learning rate is
    tried on part of the training images. The one of best accuracy on the rest (if equal, of lower
    cross-entropy) is used to refit on all of them. The layer is zero-initialised, so only the choice of the
    validation part depends on the seed. For multi-label tasks, the loss is binary cross-entropy and mean
    AUROC chooses the rate.

    Parameters
    ----------
    train, test : float array [n_train, n_channels], [n_test, n_channels]
    train_labels, test_labels : int array [n_train], [n_test]
        Classes counted from 0; or [n_train, n_labels], [n_test, n_labels] of 0 and 1.
    seed : int
        Seed of the validation part, which is stratified if every class has at least two images and the part
        has room for all classes.
    steps : int
    learning_rates : sequence of float
    validation_fraction : float
    weight_decay : float
        AdamW's, on weights and bias; torch's default.
    device : str or torch.device

    Raises
    ------
    InputError
        If features are not finite, or labels negative.
    """
    for part, features, labels in (("training", train, train_labels), ("test", test, test_labels)):
        check_features(f"linear probe, {part} part", features, labels)
    several = train_labels.ndim == 2
    n_classes = train_labels.shape[1] if several else int(max(train_labels.max(), test_labels.max())) + 1
    layer, lr = train_layer(
        train,
        train_labels,
        n_classes,
        seed,
        steps=steps,
        learning_rates=learning_rates,
        validation_fraction=validation_fraction,
        weight_decay=weight_decay,
        device=device,
    )
    return ProbeResult(score_labels(apply_layer(layer, test, several), test_labels), lr)


def train_layer(
    train: Float[np.ndarray, "n_train n_channels"],
    train_labels: Int[np.ndarray, "n_train *n_labels"],
    n_classes: int,
    seed: int,
    *,
    steps: int,
    learning_rates: Sequence[float] = LEARNING_RATES,
    validation_fraction: float = 0.2,
    weight_decay: float = 0.01,
    device: str | torch.device = "cpu",
) -> tuple[Float[Tensor, "n_inputs n_classes"], float]:
    """Train the layer of `linear_probe`, whose parameters these are; return it and its learning rate.

    Its inputs are the L2-normalised channels and a one.
    """
    several = train_labels.ndim == 2
    fit_part, validation_part = _split(train_labels, validation_fraction, seed)

    x, y = _to_layer_input(train, device), torch.as_tensor(train_labels, device=device).long()
    tried = fit_linear_layers(x[fit_part], y[fit_part], n_classes, learning_rates, steps, weight_decay)
    target = y[validation_part]
    logits = torch.einsum("nc,lck->lnk", x[validation_part], tried)
    if several:
        labels = train_labels[validation_part]
        # labels that all validation images have, or none, leave it to the loss
        quality = [mean_auroc(of_rate.cpu().numpy(), labels)[0] or 0.0 for of_rate in logits]
    else:
        quality = (logits.argmax(-1) == target).double().mean(1).tolist()
    loss = [label_loss(of_rate, target).item() for of_rate in logits]
    best = min(range(len(learning_rates)), key=lambda i: (-quality[i], loss[i]))

    lr = learning_rates[best]
    (layer,) = fit_linear_layers(x, y, n_classes, [lr], steps, weight_decay)
    return layer, lr


def apply_layer(
    layer: Float[Tensor, "n_inputs n_classes"],
    features: Float[np.ndarray, "n_images n_channels"],
    several: bool = False,
) -> Float[np.ndarray, "n_images n_classes"]:
    """Probabilities of classes; with `several`, of labels, each by itself."""
    logits = (_to_layer_input(features, layer.device) @ layer).double()
    probabilities = logits.sigmoid() if several else logits.softmax(-1)
    return probabilities.cpu().numpy()


def fit_linear_layers(
    x: Float[Tensor, "n_images n_channels"],
    labels: Int[Tensor, " n_images"] | Int[Tensor, "n_images n_classes"],
    n_classes: int,
    learning_rates: Sequence[float],
    steps: int,
    weight_decay: float,
) -> Float[Tensor, "n_rates n_channels n_classes"]:
    """Train one zero-initialised linear layer per learning rate on `tasks.label_loss`, all at once.

    Steps are those of `torch.optim.AdamW` (betas .9 and .999, eps 1e-8), which takes only one rate per
    parameter tensor. Side by side in one matrix, with the loss's gradient written out, the layers train more
    than twice as fast.
    """
    n_images, n_rates = len(x), len(learning_rates)
    rate = torch.tensor(learning_rates, dtype=x.dtype, device=x.device).repeat_interleave(n_classes)
    several = labels.ndim == 2
    target = (labels if several else F.one_hot(labels, n_classes)).to(x.dtype)[:, None]
    n_terms = n_images * (n_classes if several else 1)
    weight = x.new_zeros(x.shape[1], n_rates * n_classes)
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, steps + 1):
        logits = (x @ weight).view(n_images, n_rates, n_classes)
        probabilities = logits.sigmoid() if several else logits.softmax(-1)
        gradient = x.T @ (probabilities - target).view(n_images, -1) / n_terms
        mean.lerp_(gradient, 0.1)
        square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        spread = (square / (1 - 0.999**step)).sqrt_().add_(1e-8)
        weight.mul_(1 - rate * weight_decay).sub_(rate / (1 - 0.9**step) * mean / spread)
    return weight.view(-1, n_rates, n_classes).permute(1, 0, 2)


def _split(labels: np.ndarray, validation_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    counts = np.unique(labels, return_counts=True)[1] if labels.ndim == 1 else np.zeros(1)
    n_validation = round(validation_fraction * len(labels))
    if not 0 < n_validation < len(labels):
        raise InputError(
            f"linear probe: found {len(labels)} training images, {n_validation} of them to validate on; "
            "expected at least one in both parts"
        )
    can_stratify = counts.min() >= 2 and min(n_validation, len(labels) - n_validation) >= len(counts)
    fit_part, validation_part = train_test_split(
        np.arange(len(labels)),
        test_size=n_validation,
        random_state=seed,
        stratify=labels if can_stratify else None,
    )
    return fit_part, validation_part


def _to_layer_input(features: np.ndarray, device: str | torch.device) -> Tensor:
    """L2-normalise features and append a column of ones for the bias."""
    unit = F.normalize(torch.as_tensor(features, dtype=torch.float32, device=device), dim=1)
    return F.pad(unit, (0, 1), value=1.0)


def classifier(probed: ProbedTask, config: Config) -> Classifier:
    """Train the linear probe and return it as a function of features; for tasks with one label per image."""
    check_features("linear probe, training part", probed.train, probed.train_labels)
    n_classes = int(max(probed.train_labels.max(), probed.test_labels.max())) + 1
    layer, _ = train_layer(
        probed.train, probed.train_labels, n_classes, config.seed, steps=config.probes.steps
    )
    return partial(apply_layer, layer)


def probe(probed: ProbedTask, config: Config) -> LabelScores:
    """Scores of the linear probe."""
    return linear_probe(
        probed.train,
        probed.train_labels,
        probed.test,
        probed.test_labels,
        config.seed,
        steps=config.probes.steps,
    ).scores
