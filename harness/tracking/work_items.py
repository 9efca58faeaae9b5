"""The pieces that tracking is cut into: of every subject, snapshots and refits of step 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.config import Config
from harness.runs import (
    Subject,
    mapping_folder,
)


@dataclass(frozen=True)
class Unit:
    """One piece of tracking: of one subject, a snapshot (refit 0) or a refit of it for the noise floor."""

    subject: Subject
    step: int
    refit: int = 0

    @property
    def mapping(self) -> Path:
        """Folder of what is fitted."""
        return mapping_folder(self.subject.folder, self.step, self.refit)

    def seed(self, config: Config) -> int:
        """Seed of its mapping: its own, so that a snapshot's fit is drawn as the refits of step 0 are.

        Subjects have other ones, too: what a draw has added to all of them would not average out.
        """
        of_subject = (self.subject.label or "").encode()
        sequence = np.random.SeedSequence((config.seed, self.step, self.refit, *of_subject))
        return int(sequence.generate_state(1, np.uint32)[0])


def plan_units(config: Config, subjects: Sequence[Subject], steps: Sequence[int]) -> list[Unit]:
    """All units of a run: of each subject the refits of step 0, then every snapshot."""
    refits = [(0, refit) for refit in range(1, config.mapping.floor_refits + 1)]
    return [
        Unit(subject, *place) for subject in subjects for place in (*refits, *((step, 0) for step in steps))
    ]
