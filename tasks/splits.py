"""Training and test split: those a data set names, or one drawn by a seed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Int

from harness.config import ExternalTaskConfig
from harness.storage import (
    InputError,
    unknown_name,
)

TEST_SPLITS = ("test", "validation", "valid", "val")
"""Names a test split may have, first choice first."""
# `tasks.subsets` draws from stream 1 of the same seed
_STREAM = 2

Rows = Int[np.ndarray, "_"]


def choose_splits(place: str, names: Sequence[str], config: ExternalTaskConfig) -> tuple[str, str | None]:
    """Choose the training and the test split by name; None for the test split: it has to be drawn.

    Raises
    ------
    InputError
        If a named split does not exist, or both are the same.
    """
    if config.train not in names:
        raise unknown_name(f"split of {place}", config.train, names)
    if config.test is None:
        return config.train, next(
            (name for name in TEST_SPLITS if name in names and name != config.train), None
        )
    if config.test not in names:
        raise unknown_name(f"split of {place}", config.test, names)
    if config.test == config.train:
        raise InputError(
            f"task.test: found {config.test}, the same as task.train; expected a different split"
        )
    return config.train, config.test


def split_rows(
    labels: np.ndarray, test_share: float, seed: int, groups: Sequence[Hashable] | None = None
) -> tuple[Rows, Rows]:
    """Split rows into training and test rows by a seed.

    Every class gives the same share of its images (at least one; a class of one image gives none). With
    groups, whole groups are drawn from all classes together; with multiple labels, single images are.

    Parameters
    ----------
    labels : int array [n_images] or [n_images, n_classes]
    test_share : float in (0, 1)
    seed : int
    groups : sequence [n_images], optional
        Images of one group (one patient, say) are never on both sides.

    Raises
    ------
    InputError
        If either side would be empty.
    """
    rng = np.random.default_rng((seed, _STREAM))
    n_images = len(labels)
    is_test = np.zeros(n_images, dtype=bool)
    if groups is not None:
        places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
        of_image = np.array([places[group] for group in groups])
        order = rng.permutation(len(places))
        sizes = np.bincount(of_image)[order]
        # take groups as long as each brings the share closer
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
            + ", expected a share that leaves images on both sides"
        )
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)
