"""Test images of a task under distribution shifts: what a task's setting `shifts` asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from harness.config import (
    WORLD,
    WORLD_SHIFTS,
    TaskConfig,
    chosen_corruptions,
    chosen_world_shifts,
)
from harness.storage import InputError

if TYPE_CHECKING:
    from tasks.task import Task

WORLD_TASKS = ("shapes", "textures", "counts")
"""Tasks of the shapes world."""


@dataclass(frozen=True)
class Shift:
    """Test images of a task from another distribution.

    Attributes
    ----------
    name : str
        As in results: ``shift/<task>/<name>/accuracy``.
    images : sequence of PIL images [n_images]
    labels : int array [n_images]
        Classes of the shift, counted from 0.
    clean_rows : int array [n_clean]
        Test images of the task that their accuracy is compared with.
    fingerprint : str
        Hash of images and labels.
    columns : tuple of tuple of int, or None
        Classes of the task that each class of the shift stands for; None: both have the same classes.
    """

    name: str
    images: Sequence[Image.Image]
    labels: Int[np.ndarray, " n_images"]
    clean_rows: Int[np.ndarray, " n_clean"]
    fingerprint: str
    columns: tuple[tuple[int, ...], ...] | None = None

    def project(
        self, probabilities: Float[np.ndarray, "n_images n_classes"]
    ) -> Float[np.ndarray, "n_images n_shifted"]:
        """Restrict a task's probabilities to the classes of the shift: summed per class, then to a sum of 1.

        With one class of the task for each, this is the softmax of the restricted logits.
        """
        if self.columns is None:
            return probabilities
        found = np.stack([probabilities[:, list(own)].sum(axis=1) for own in self.columns], axis=1)
        total = found.sum(axis=1, keepdims=True)
        # nothing left by underflow: all classes alike
        return np.divide(found, total, out=np.full_like(found, 1 / len(self.columns)), where=total > 0)

    def relabel(self, labels: Int[np.ndarray, " n_images"]) -> Int[np.ndarray, " n_images"]:
        """Classes of the shift, from those of the task."""
        if self.columns is None:
            return labels
        of = {column: label for label, own in enumerate(self.columns) for column in own}
        return np.array([of[int(label)] for label in labels], dtype=np.int64)


def choose_applicable(shifts: Sequence[str], task: TaskConfig) -> tuple[str, ...]:
    """Keep the shifts that exist for a task: those of the shapes world only for its tasks.

    Texture is the class of the task ``textures``, and cannot be unseen there.
    """
    if task.source == "embedded" and task.name in WORLD_TASKS:
        return tuple(shift for shift in shifts if not (shift == task.name == "textures"))
    return tuple(shift for shift in shifts if shift not in (WORLD, *WORLD_SHIFTS))


def find_shifts(task: Task, config: TaskConfig) -> tuple[tuple[Shift, ...], tuple[str, ...]]:
    """Find the shifts that a task's settings name, and the corruptions.

    Raises
    ------
    InputError
        If the task is multi-label, or a shift does not exist for it.
    """
    if not config.shifts:
        return (), ()
    if task.multi_label:
        raise InputError(
            f"task.shifts: found {', '.join(config.shifts)} for {task.name}, whose images may have several "
            "labels; expected a task with one label per image"
        )
    for shift in config.shifts:
        if shift not in choose_applicable(config.shifts, config):
            raise InputError(
                f"task.shifts: found {shift} for {task.name}, expected corruptions, a group or names of them"
            )
    world = [shift for shift in chosen_world_shifts(config.shifts) if not shift == task.name == "textures"]
    if not world:
        return (), chosen_corruptions(config.shifts)
    from tasks import shape_tasks

    assert config.source == "embedded"
    return tuple(shape_tasks.build_shift(config, shift) for shift in world), chosen_corruptions(config.shifts)
