"""Which images of a data set are used: all, so many, or so many of every class; drawn by a seed, and nested.

Pure functions on labels. Whatever is chosen for a number is part of what is chosen for any larger number
with the same seed.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Int

from harness.storage import InputError

# other streams of random numbers of one seed
_SUBSET, _SPLIT = 1, 2

Rows = Int[np.ndarray, "_"]


def draw_rows(n_available: int, n: int, seed: int) -> Rows:
    """Draw `n` of `n_available` rows; with all of them, in their own order."""
    if n >= n_available:
        return np.arange(n_available)
    return np.random.default_rng((seed, _SUBSET)).permutation(n_available)[:n]


def draw_per_class(
    labels: np.ndarray, n_per_class: int, seed: int | None, class_names: Sequence[str]
) -> Rows:
    """Rows with `n_per_class` images of every class.

    Parameters
    ----------
    labels : int array [n_images] of class indices, or [n_images, n_classes] of 0 and 1
        Where images have several labels, the first `n_per_class` images of every label are taken together,
        and as many without any (if there are so many); a label then has `n_per_class` images or more.
    n_per_class : int
    seed : int or None
        Of the order in which images are taken; None: as they come.
    class_names : sequence of str [n_classes]

    Raises
    ------
    InputError
        If a class has fewer images.
    """
    n_images = len(labels)
    order = np.arange(n_images)
    if seed is not None:
        order = np.random.default_rng((seed, _SUBSET)).permutation(n_images)
    if labels.ndim == 1:
        members = labels[order][:, None] == np.arange(len(class_names))
    else:
        members = labels[order] == 1
    counts = members.sum(axis=0)
    if counts.min() < n_per_class:
        scarce = int(counts.argmin())
        raise InputError(
            f"task.n_per_class: found {n_per_class}, accepted: at most {counts[scarce]}, the training images "
            f"of {class_names[scarce]!r}"
        )
    if labels.ndim == 2:
        members = np.concatenate([members, ~members.any(axis=1, keepdims=True)], axis=1)
    first = members & (members.cumsum(axis=0) <= n_per_class)
    return order[first.any(axis=1)]


def split_rows(
    labels: np.ndarray, test_share: float, seed: int, groups: Sequence[Hashable] | None = None
) -> tuple[Rows, Rows]:
    """Split rows into training and test rows by a seed.

    Every class gives the share of its images (one at least, none if it has only one). With groups, or
    where images have several labels, whole groups (else single images) are drawn from all classes together.

    Parameters
    ----------
    labels : int array [n_images] or [n_images, n_classes]
    test_share : float in (0, 1)
    seed : int
    groups : sequence [n_images], optional
        Images of one group (a patient, say) are never on both sides.

    Raises
    ------
    InputError
        If either side would be empty.
    """
    rng = np.random.default_rng((seed, _SPLIT))
    n_images = len(labels)
    is_test = np.zeros(n_images, dtype=bool)
    if groups is not None:
        places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
        of_image = np.array([places[group] for group in groups])
        order = rng.permutation(len(places))
        sizes = np.bincount(of_image)[order]
        # a group is taken as long as that brings the share closer
        taken = order[sizes.cumsum() - sizes / 2 <= test_share * n_images]
        is_test = np.isin(of_image, taken)
    elif labels.ndim == 2:
        is_test[rng.permutation(n_images)[: max(1, round(test_share * n_images))]] = True
    else:
        for value in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == value))
            n_test = min(max(1, round(test_share * len(rows))), len(rows) - 1)
            is_test[rows[:n_test]] = True
    if is_test.all() or not is_test.any():
        raise InputError(
            f"task.test_share: found {test_share} of {n_images} images"
            + ("" if groups is None else f" in {len(places)} groups")
            + ", accepted: a share that leaves images on both sides"
        )
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)
