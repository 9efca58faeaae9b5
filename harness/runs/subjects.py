"""Subjects of a run: their brains, folders and metric names.

A run of one subject keeps everything in its own folder, under plain metric names. With several subjects
(``brain.subjects``), each has a folder with its own split and mappings, and its own metrics beside the means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.brains import (
    Brain,
    load_brain,
)
from harness.config import (
    BrainConfig,
    one_by_one,
)
from harness.runs.layout import (
    list_snapshots,
    mapping_folder,
    subject_folder,
)
from harness.storage import (
    InputError,
    content_hash,
    unknown_name,
)


@dataclass(frozen=True)
class Subject:
    """One subject of a run.

    Attributes
    ----------
    label : str or None
        Label in folders and metric names; None in a single-subject run.
    brain : BrainConfig
        Settings of this subject alone.
    folder : Path
        Folder of its split and mappings.
    """

    label: str | None
    brain: BrainConfig
    folder: Path


def list_subjects(config: BrainConfig, run: Path) -> tuple[Subject, ...]:
    """List the subjects of a run, in the order of the settings."""
    labels = label_subjects(config) or (None,)
    return tuple(
        Subject(label, brain, subject_folder(run, label))
        for label, brain in zip(labels, one_by_one(config), strict=True)
    )


def label_subjects(config: BrainConfig) -> tuple[str, ...]:
    """Return labels of several subjects, ``subj01`` or a name; none for a single subject."""
    if config.subjects is None or len(config.subjects) == 1:
        return ()
    return tuple(f"subj{subject:02d}" if isinstance(subject, int) else subject for subject in config.subjects)


def choose_subject(subjects: Sequence[Subject], label: str | None) -> Subject:
    """Return the subject of ``--subject``, or the first.

    Raises
    ------
    InputError
        For an unknown label, or any label in a single-subject run.
    """
    if label is None:
        return subjects[0]
    known = {subject.label: subject for subject in subjects if subject.label is not None}
    if not known:
        raise InputError(f"--subject: found {label}; single-subject run, omit --subject")
    if label not in known:
        raise unknown_name("subject", label, known)
    return known[label]


def choose_step(run: Path, subject: Subject, step: int | None) -> int:
    """Return the step of ``--step``, or that of a subject's last snapshot with a mapping.

    Raises
    ------
    InputError
        If there is no mapping of a snapshot, or none of this step.
    """
    steps = [found for found in list_snapshots(run) if mapping_folder(subject.folder, found).exists()]
    if not steps:
        raise InputError(f"{run}: found no mapping of a snapshot, expected the folder of a tracked run")
    if step is not None and step not in steps:
        raise InputError(f"--step: found {step}, expected {', '.join(map(str, steps))}")
    return steps[-1] if step is None else step


def name_of_subject(metric: str, label: str) -> str:
    """Name one subject's metric: ``rewiring/V1/wasserstein`` → ``rewiring/V1/subj01/wasserstein``."""
    stage, place, measure = metric.split("/", 2)  # a measure may have two parts: layer/blocks.3
    return f"{stage}/{place}/{label}/{measure}"


class Brains:
    """Brains of subjects, one at a time in memory: responses can be gigabytes."""

    def __init__(self, subjects: Sequence[Subject]) -> None:
        self.subjects = tuple(subjects)
        self._held: tuple[Subject, Brain] | None = None

    def load(self, subject: Subject) -> Brain:
        """Load the brain of a subject and release the previous one."""
        if self._held is None or self._held[0] != subject:
            self._held = None  # release it before the next one is loaded
            self._held = (subject, load_brain(subject.brain))
        return self._held[1]

    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint brains and their files, by subject if there are several; loads all brains.

        Raises
        ------
        InputError
            If any subject's data are missing or broken.
        """
        brain: dict[str | None, str] = {}
        about: dict[str | None, str] = {}
        files: dict[str | None, dict[str, str]] = {}
        for subject in self.subjects:
            loaded = self.load(subject)
            brain[subject.label] = loaded.fingerprint
            about[subject.label] = _hash_description(loaded)
            files[subject.label] = dict(loaded.fingerprints)
        if len(self.subjects) == 1:
            return {"brain": brain[None], "brain_description": about[None], "brain_files": files[None]}
        return {"brain": brain, "brain_description": about, "brain_files": files}


def _hash_description(brain: Brain) -> str:
    """Hash what says where voxels lie and how they were measured; results depend on it as on responses."""
    ceiling = () if brain.noise_ceiling is None else brain.noise_ceiling
    rows = [
        part if part is None else np.asarray(part) for part in (brain.n_repeats, brain.session, brain.shared)
    ]
    return content_hash(
        [[roi.name, repr(roi.rank), roi.voxels] for roi in brain.rois],
        *(
            brain.bounding_box,
            np.asarray(ceiling),
            brain.hemisphere.tolist(),
            np.asarray(brain.stimulus_ids).tolist(),
        ),
        rows,
    )
