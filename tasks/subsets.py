"""Subsets of a split: a number of images, or a number of every class; drawn by a seed and nested.

The subset of a number is part of the subset of every larger number drawn with the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from harness.config import ExternalTaskConfig
from harness.storage import InputError
from tasks.task import (
    LabelArray,
    check_size,
)

# `tasks.splits` draws from stream 2 of the same seed
_STREAM = 1

Rows = Int[np.ndarray, "_"]


def draw_rows(n_available: int, n: int, seed: int) -> Rows:
    """Draw `n` of `n_available` rows; all of them keep their order."""
    if n >= n_available:
        return np.arange(n_available)
    return np.random.default_rng((seed, _STREAM)).permutation(n_available)[:n]


def spread_rows(n_available: int, n: int) -> Rows:
    """Return `n` of `n_available` rows, evenly spaced from the first to the last."""
    return np.linspace(0, n_available - 1, n).round().astype(int)


def first_per_class(labels: np.ndarray, n_per_class: int) -> Bool[np.ndarray, " n_images"]:
    """Find the first `n_per_class` images of every class, or all that a class has.

    With multiple labels, the union of the first of every label and as many without a label.
    """
    if labels.ndim == 1:
        members = labels[:, None] == np.unique(labels)
    else:
        members = np.concatenate([labels == 1, ~labels.any(axis=1, keepdims=True)], axis=1)
    return (members & (members.cumsum(axis=0) <= n_per_class)).any(axis=1)


def draw_per_class(
    labels: np.ndarray, n_per_class: int, seed: int | None, class_names: Sequence[str]
) -> Rows:
    """Draw rows with `n_per_class` images of every class.

    Parameters
    ----------
    labels : int array [n_images] of class indices, or [n_images, n_classes] of 0 and 1
        With multiple labels, the union of the first `n_per_class` images of every label and as many images
        without a label (or all there are); a label then has `n_per_class` images or more.
    n_per_class : int
    seed : int or None
        Orders the images before the draw; None: their own order.
    class_names : sequence of str [n_classes]

    Raises
    ------
    InputError
        If a class has fewer images.
    """
    n_images = len(labels)
    order = np.arange(n_images)
    if seed is not None:
        order = np.random.default_rng((seed, _STREAM)).permutation(n_images)
    members = labels[:, None] == np.arange(len(class_names)) if labels.ndim == 1 else labels == 1
    counts = members.sum(axis=0)
    if counts.min() < n_per_class:
        scarce = int(counts.argmin())
        raise InputError(
            f"task.n_per_class: found {n_per_class}, expected at most {counts[scarce]}, the training images "
            f"of {class_names[scarce]!r}"
        )
    return order[first_per_class(labels[order], n_per_class)]


def choose_rows(
    config: ExternalTaskConfig,
    labels: Sequence[LabelArray],
    rows: Sequence[np.ndarray],
    class_names: Sequence[str],
    at_most: bool,
) -> list[np.ndarray]:
    """Draw the rows to use from the rows of the training and the test split, given their labels."""
    train, test = rows
    n_test = check_size(config.name, "task.n_test", config.n_test, len(test), at_most)
    if config.n_per_class is not None:
        chosen = draw_per_class(labels[0], config.n_per_class, config.seed, class_names)
    else:
        n_train = check_size(config.name, "task.n_train", config.n_train, len(train), at_most)
        chosen = draw_rows(len(train), n_train, config.seed)
    return [train[chosen], test[draw_rows(len(test), n_test, config.seed)]]
