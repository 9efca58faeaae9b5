"""The items that tracking is cut into: snapshots and refits of step 0, per subject."""

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
class WorkItem:
    """A snapshot to map for one subject (refit 0), or a refit of it for the noise floor."""

    subject: Subject
    step: int
    refit: int = 0

    @property
    def mapping(self) -> Path:
        """Folder of the fitted mapping."""
        return mapping_folder(self.subject.folder, self.step, self.refit)

    def seed(self, config: Config) -> int:
        """Seed of the mapping, different for every item: a snapshot's fit is drawn like a refit of step 0.

        Subjects differ too, because the effect of one draw on all of them would not average out.
        """
        label = (self.subject.label or "").encode()
        sequence = np.random.SeedSequence((config.seed, self.step, self.refit, *label))
        return int(sequence.generate_state(1, np.uint32)[0])


def plan_work(config: Config, subjects: Sequence[Subject], steps: Sequence[int]) -> list[WorkItem]:
    """All work items of a run: for each subject the refits of step 0, then every snapshot."""
    refits = [(0, refit) for refit in range(1, config.mapping.floor_refits + 1)]
    return [
        WorkItem(subject, *place)
        for subject in subjects
        for place in (*refits, *((step, 0) for step in steps))
    ]
