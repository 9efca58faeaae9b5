"""Which picture was shown in which trial of the Natural Scenes Dataset: its design matrices.

``nsd_expdesign.mat`` counts from 1, everything here from 0. Of its matrices are used (Allen et al. 2022,
Nature Neuroscience 25:116, and the data manual):

    masterordering   for every trial, which of a subject's pictures was shown
    subjectim        [n_subjects, n_pictures], which of the data set's pictures these are
    sharedix         the pictures that all subjects saw
    stimpattern      [n_sessions, n_runs, n_slots], 1 where a slot has a trial
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from harness.storage import (
    InputError,
    as_input_error,
)

LARGEST = 2**31  # beyond which a number counts nothing here; NaN is not below it
MATRICES = ("masterordering", "subjectim", "sharedix", "stimpattern")


@dataclass(frozen=True)
class Design:
    """What a subject was shown.

    Attributes
    ----------
    path : Path
    sessions : tuple of int array [n_trials]
        For every session of the design, whether it took place or not, the data set's pictures (0-based, row
        of the stimulus file) in the order of trials.
    shared : int array [n_shared]
        Pictures that all subjects saw, 0-based, sorted.
    """

    path: Path
    sessions: tuple[Int[np.ndarray, " _"], ...]
    shared: Int[np.ndarray, " n_shared"]

    @property
    def last_picture(self) -> int:
        """The highest row of the stimulus file that was shown."""
        return max(int(pictures.max()) for pictures in self.sessions)


def read_design(path: Path, subject: int) -> Design:
    """Read a subject's trials from ``nsd_expdesign.mat``.

    Parameters
    ----------
    path : Path
    subject : int
        Counted from 1.

    Raises
    ------
    InputError
        If the file is missing or broken, lacks a matrix, counts from 0, or its matrices do not fit together.
    """
    from scipy.io import loadmat

    with as_input_error(path, "MATLAB file (version 5 to 7.2)"), path.open("rb") as file:
        content = loadmat(file, variable_names=MATRICES)
    found = {name: _whole_numbers(path, name, content.get(name)) for name in MATRICES}
    order, pictures = found["masterordering"].ravel(), found["subjectim"]
    slots, shared = found["stimpattern"], found["sharedix"].ravel()
    if pictures.ndim != 2 or slots.ndim != 3:
        raise InputError(
            f"{path}: found subjectim {pictures.shape} and stimpattern {slots.shape}, accepted: "
            "(n_subjects, n_pictures) and (n_sessions, n_runs, n_slots)"
        )
    if subject > len(pictures):
        raise InputError(f"{path}: found {len(pictures)} subjects, none is subject {subject}")
    for name, values, highest in (
        ("masterordering", order, pictures.shape[1]),
        ("subjectim", pictures, None),
        ("sharedix", shared, None),
    ):
        _check_counts_from_one(path, name, values, highest)
    if not np.isin(slots, (0, 1)).all() or slots.sum() != len(order):
        raise InputError(
            f"{path}: found {slots.sum()} trials in stimpattern and {len(order)} in masterordering, "
            "accepted: as many, one per slot"
        )
    # were one of the two counted from 0, they would hardly meet
    if not np.isin(shared, pictures[subject - 1]).all():
        raise InputError(
            f"{path}: found pictures in sharedix that subject {subject} has not in subjectim; "
            "do both count from 1?"
        )
    shown = pictures[subject - 1][order - 1] - 1
    ends = np.cumsum(slots.sum(axis=(1, 2)))
    return Design(path, tuple(np.split(shown, ends[:-1])), np.unique(shared) - 1)


def _whole_numbers(path: Path, name: str, values: np.ndarray | None) -> Int[np.ndarray, "..."]:
    if values is None:
        raise InputError(f"{path}: found no matrix {name}, accepted: {', '.join(MATRICES)}")
    whole = values.dtype.kind in "iuf" and values.size and (np.abs(values) < LARGEST).all()
    if not whole or (np.rint(values) != values).any():
        raise InputError(
            f"{path}: found {name} of {values.dtype} that are no counts, accepted: whole numbers"
        )
    return values.astype(np.int64)


def _check_counts_from_one(path: Path, name: str, values: np.ndarray, highest: int | None) -> None:
    low, high = int(values.min()), int(values.max())
    if low < 1 or (highest is not None and high > highest):
        bound = "up" if highest is None else str(highest)
        raise InputError(
            f"{path}: found {low} to {high} in {name}, accepted: 1 to {bound} (it counts from 1)"
        )
