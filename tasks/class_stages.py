"""A stage of a class-incremental sequence: some of a task's classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import datasets
import numpy as np

from harness.config import ClassPart
from harness.storage import (
    InputError,
    content_hash,
)
from tasks.task import (
    Task,
    label_feature,
)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Hide the bars of datasets, which copies the chosen rows."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def take_classes(task: Task, name: str, part: ClassPart) -> Task:
    """Return the images of some classes as a task, with labels counted from 0 in the order of `part.classes`.

    The number of leaked test images stays that of the whole task.

    Raises
    ------
    InputError
        If the task has several labels an image, another number of classes than the stages were made for, or
        no image of the stage in a split.
    """
    if task.multi_label:
        raise InputError(f"task.classes_per_stage: found the multi-label task {part.of}, expected one label")
    if task.n_classes != part.n_classes:
        raise InputError(
            f"task.n_classes: found {part.n_classes}, expected {task.n_classes}, the classes of {part.of}"
        )
    class_names = tuple(task.class_names[number] for number in part.classes)
    label_of = np.full(task.n_classes, -1)
    label_of[list(part.classes)] = np.arange(len(part.classes))
    splits: dict[str, Any] = {}
    hashes = []
    for split, data, known in zip(("train", "test"), (task.train, task.test), task.image_hashes, strict=True):
        labels = label_of[np.array(data["label"], dtype=np.int64)]
        rows = np.flatnonzero(labels >= 0)
        if not len(rows):
            raise InputError(
                f"task {part.of}: found no {split} image of {', '.join(class_names)}, the classes of {name}"
            )
        chosen, feature = data.select(rows).remove_columns("label"), label_feature(class_names, False)
        with _without_bars():
            splits[split] = chosen.add_column("label", labels[rows].tolist(), feature=feature)
        hashes.append(content_hash([known, rows.tolist()]))
    return replace(
        task,
        name=name,
        class_names=class_names,
        image_hashes=(hashes[0], hashes[1]),
        fingerprint=content_hash(task.fingerprint, list(part.classes)),
        **splits,
    )
