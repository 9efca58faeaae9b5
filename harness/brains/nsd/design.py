"""The design matrices of the Natural Scenes Dataset: the image shown in every trial.

``nsd_expdesign.mat`` counts from 1, this module from 0. It uses these matrices (Allen et al. 2022, Nature
Neuroscience 25:116, and the data manual):

    masterordering   per trial, the index of the image among those of the subject
    subjectim        [n_subjects, n_pictures], the subject's images as numbers of the data set
    sharedix         images shown to all subjects
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

LARGEST = 2**31  # no valid count reaches it; NaN fails the comparison too
MATRICES = ("masterordering", "subjectim", "sharedix", "stimpattern")


@dataclass(frozen=True)
class Design:
    """The trials of a subject.

    Attributes
    ----------
    path : Path
    sessions : tuple of int array [n_trials]
        Per session of the design, held or not: the image of every trial (0-based row of the stimulus file).
    shared : int array [n_shared]
        Images shown to all subjects, 0-based, sorted.
    """

    path: Path
    sessions: tuple[Int[np.ndarray, " _"], ...]
    shared: Int[np.ndarray, " n_shared"]

    @property
    def last_picture(self) -> int:
        """Highest row of the stimulus file in any trial."""
        return max(int(pictures.max()) for pictures in self.sessions)


def read_design(path: Path, subject: int) -> Design:
    """Read the trials of a subject from ``nsd_expdesign.mat``.

    Parameters
    ----------
    path : Path
    subject : int
        1-based.

    Raises
    ------
    InputError
        If the file is missing or broken, lacks a matrix, counts from 0, or its matrices disagree.
    """
    from scipy.io import loadmat

    with as_input_error(path, "MATLAB file (version 5 to 7.2)"), path.open("rb") as file:
        content = loadmat(file, variable_names=MATRICES)
    found = {name: _whole_numbers(path, name, content.get(name)) for name in MATRICES}
    order, pictures = found["masterordering"].ravel(), found["subjectim"]
    slots, shared = found["stimpattern"], found["sharedix"].ravel()
    if pictures.ndim != 2 or slots.ndim != 3:
        raise InputError(
            f"{path}: found subjectim {pictures.shape} and stimpattern {slots.shape}, expected "
            "(n_subjects, n_pictures) and (n_sessions, n_runs, n_slots)"
        )
    if subject > len(pictures):
        raise InputError(f"{path}: found {len(pictures)} subjects, expected subject {subject} among them")
    for name, values, highest in (
        ("masterordering", order, pictures.shape[1]),
        ("subjectim", pictures, None),
        ("sharedix", shared, None),
    ):
        _check_counts_from_one(path, name, values, highest)
    if not np.isin(slots, (0, 1)).all() or slots.sum() != len(order):
        raise InputError(
            f"{path}: found {slots.sum()} trials in stimpattern and {len(order)} in masterordering, "
            "expected equal numbers, one per slot"
        )
    # if one of the two counted from 0, they would not match
    if not np.isin(shared, pictures[subject - 1]).all():
        raise InputError(
            f"{path}: found images in sharedix that are not in subjectim of subject {subject}; expected both "
            "to count from 1"
        )
    shown = pictures[subject - 1][order - 1] - 1
    ends = np.cumsum(slots.sum(axis=(1, 2)))
    return Design(path, tuple(np.split(shown, ends[:-1])), np.unique(shared) - 1)


def _whole_numbers(path: Path, name: str, values: np.ndarray | None) -> Int[np.ndarray, "..."]:
    if values is None:
        raise InputError(f"{path}: found no matrix {name}, expected {', '.join(MATRICES)}")
    whole = values.dtype.kind in "iuf" and values.size and (np.abs(values) < LARGEST).all()
    if not whole or (np.rint(values) != values).any():
        raise InputError(f"{path}: found {name} of {values.dtype} that are not counts, expected integers")
    return values.astype(np.int64)


def _check_counts_from_one(path: Path, name: str, values: np.ndarray, highest: int | None) -> None:
    low, high = int(values.min()), int(values.max())
    if low < 1 or (highest is not None and high > highest):
        bound = "up" if highest is None else str(highest)
        raise InputError(f"{path}: found {low} to {high} in {name}, expected 1 to {bound} (it counts from 1)")
