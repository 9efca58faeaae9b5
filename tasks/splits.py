"""Training and test split: those a data set names, or one drawn by a seed."""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from harness.config import ExternalTaskConfig
from harness.storage import (
    InputError,
    unknown_name,
)

log = logging.getLogger(__name__)

SPLIT_NAMES = (
    ("train", "training"),
    ("test", "testing", "eval", "evaluation"),
    ("validation", "valid", "val", "dev"),
)
"""Names of the training, test and validation split in any case, as in `datasets`; first choice first."""
# `tasks.subsets` draws from stream 1 of the same seed
_STREAM = 2

Rows = Int[np.ndarray, "_"]


def choose_splits(place: str, sizes: Mapping[str, int], config: ExternalTaskConfig) -> tuple[str, str | None]:
    """Choose the training and the test split by name; None for the test split: it has to be drawn.

    Case and blanks around a name do not count, and a split has all names of its kind (`SPLIT_NAMES`). A
    warning says which splits are read under another name, and counts what is left out.

    Parameters
    ----------
    place : str
        Where the data comes from.
    sizes : dict of str to int
        Number of images of every split.
    config : ExternalTaskConfig

    Raises
    ------
    InputError
        If a named split does not exist, several names differ only in case, or both splits are the same.
    """
    train = find_split(place, config.train, sizes)
    if train is None:
        raise unknown_name(f"split of {place}", config.train, sizes)
    if config.test is None:
        others = [name for name in sizes if name != train]
        found = (find_split(place, kind[0], others) for kind in SPLIT_NAMES[1:])
        test = next((name for name in found if name is not None), None)
    else:
        test = find_split(place, config.test, sizes)
        if test is None:
            raise unknown_name(f"split of {place}", config.test, sizes)
        if test == train:
            raise InputError(
                f"task.test: found {config.test}, the same as task.train; expected a different split"
            )
    known = {config.train, config.test or "test", *SPLIT_NAMES[2]}
    renamed = [
        f"{name!r} ({sizes[name]} images) is read as the {kind} split"
        for name, kind in ((train, "training"), (test, "test"))
        if name is not None and name not in known
    ]
    unused = [f"{name!r} ({size} images)" for name, size in sizes.items() if name not in (train, test)]
    parts = renamed + ([f"left out: {', '.join(unused)}"] if unused else [])
    if parts:
        log.warning("warning: %s: splits: %s", place, "; ".join(parts))
    return train, test


def find_split(place: str, wanted: str, names: Iterable[str]) -> str | None:
    """Find a split by its name or another name of its kind; None if there is none.

    Raises
    ------
    InputError
        If several names differ only in case or blanks, and none is `wanted`.
    """
    names = list(names)
    if wanted in names:
        return wanted
    plain = spell_plainly(wanted)
    kind = next((kind for kind in SPLIT_NAMES if plain in kind), ())
    for spelling in (plain, *kind):
        same = [name for name in names if spell_plainly(name) == spelling]
        if len(same) > 1:
            raise InputError(
                f"{place}: found splits {', '.join(map(repr, same))}, which differ only in case or blanks; "
                "expected one of them"
            )
        if same:
            return same[0]
    return None


def spell_plainly(name: str) -> str:
    """Return the name of a split in lower case, without blanks around it."""
    return name.strip().casefold()


def split_kind(name: str) -> int | None:
    """Place in `SPLIT_NAMES` of the kind that a word of a name tells (``Train-2017``: 0), or None."""
    words = re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold())
    return next((place for place, kind in enumerate(SPLIT_NAMES) if set(kind) & set(words)), None)


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
