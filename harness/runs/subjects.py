"""The subjects of a run: their brains, where what is fitted to them lies, and what their rows are called.

A run of one subject has everything in its own folder, and rows of plain names. With several
(``brain.subjects``), each has a folder with a split and mappings of its own, and rows of its own beside
those of their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.brains import (
    Brain,
    load_brain,
)
from harness.config import (
    BrainConfig,
    one_by_one,
)
from harness.runs.layout import subject_folder


@dataclass(frozen=True)
class Subject:
    """One subject of a run.

    Attributes
    ----------
    label : str or None
        What tells it from the run's other subjects, in folders and metric names; None: there is no other.
    brain : BrainConfig
        The settings of it alone.
    folder : Path
        Where its split and mappings lie.
    """

    label: str | None
    brain: BrainConfig
    folder: Path


def list_subjects(config: BrainConfig, run: Path) -> tuple[Subject, ...]:
    """The subjects of a run, in the order of the settings."""
    labels = label_subjects(config) or (None,)
    return tuple(
        Subject(label, brain, subject_folder(run, label))
        for label, brain in zip(labels, one_by_one(config), strict=True)
    )


def label_subjects(config: BrainConfig) -> tuple[str, ...]:
    """Labels of several subjects: ``subj01`` for a number, else its name; none where there is but one."""
    if config.subjects is None or len(config.subjects) == 1:
        return ()
    return tuple(f"subj{subject:02d}" if isinstance(subject, int) else subject for subject in config.subjects)


def name_of_subject(metric: str, label: str) -> str:
    """Name of one subject's value: ``rewiring/V1/wasserstein`` → ``rewiring/V1/subj01/wasserstein``."""
    where, measure = metric.rsplit("/", 1)
    return f"{where}/{label}/{measure}"


class Brains:
    """The brains of subjects, of which one at a time is in memory: a subject's responses can be gigabytes."""

    def __init__(self, subjects: Sequence[Subject]) -> None:
        self.subjects = tuple(subjects)
        self._held: tuple[Subject, Brain] | None = None

    def load(self, subject: Subject) -> Brain:
        """The brain of a subject; the one before is let go."""
        if self._held is None or self._held[0] != subject:
            self._held = None  # before the next one comes
            self._held = (subject, load_brain(subject.brain))
        return self._held[1]

    def fingerprint(self) -> dict[str, Any]:
        """Fingerprints of brains and of their files, by subject if there are several; all are loaded for it.

        Raises
        ------
        InputError
            If the data of any are not as they should be.
        """
        brain: dict[str | None, str] = {}
        files: dict[str | None, dict[str, str]] = {}
        for subject in self.subjects:
            brain[subject.label] = self.load(subject).fingerprint
            files[subject.label] = dict(self.load(subject).fingerprints)
        if len(self.subjects) == 1:
            return {"brain": brain[None], "brain_files": files[None]}
        return {"brain": brain, "brain_files": files}
