"""Class-incremental splits: one task becomes a sequence of stages with disjoint classes."""

from __future__ import annotations

import numpy as np

from harness.config.base import LONGEST_NAME
from harness.config.task import (
    ClassPart,
    EmbeddedTaskConfig,
    SequenceConfig,
    TaskConfig,
)
from harness.storage import InputError

EMBEDDED_CLASSES = {"digits": 10, "shapes": 12, "textures": 6, "counts": 3}
SETTING = "task.classes_per_stage"
# keeps the order of classes apart from other draws by the same seed
_STREAM = 8


def count_classes(task: TaskConfig) -> int | None:
    """Count a task's classes or labels; None: unknown before its images are loaded."""
    if task.part is not None:
        return len(task.part.classes)
    if isinstance(task, EmbeddedTaskConfig):
        return EMBEDDED_CLASSES.get(task.name)
    labels = getattr(task, "classes", None) or getattr(task, "label_columns", None)
    known = [names for names in (labels, getattr(task, "class_names", None)) if names is not None]
    if not known:
        return task.n_classes
    # a label that stands for "none of them" is not a class
    no_label = getattr(task, "no_label", None)
    return len(known[0]) - any(no_label in names for names in known)


def split_classes(task: TaskConfig | SequenceConfig) -> TaskConfig | SequenceConfig:
    """Split a task with ``classes_per_stage`` into the sequence of its stages; return any other unchanged.

    Raises
    ------
    InputError
        If the number of classes is unknown, does not give two stages or more, or leaves one class alone; for
        a multi-label task, a task with shifts, and a sequence.
    """
    if isinstance(task, SequenceConfig):
        if any(one.classes_per_stage is not None for one in task.tasks):
            raise InputError(f"{SETTING}: found with the sequence {task.name}, expected with a single task")
        return task
    per_stage = task.classes_per_stage
    if per_stage is None:
        return task
    if getattr(task, "multi_label", False):
        raise InputError(
            f"{SETTING}: found with the multi-label task {task.name}, expected one label an image"
        )
    if task.shifts or getattr(task, "variants", ()):
        raise InputError(
            f"{SETTING}: found with shifts of {task.name}, which its stages do not have; expected them of a "
            "probe (probes.tasks)"
        )
    n_classes = count_classes(task)
    if n_classes is None:
        raise InputError(
            f"{SETTING}: found {per_stage} with task {task.name}, whose number of classes no setting says; "
            "expected task.n_classes, or task.classes, beside it"
        )
    if per_stage >= n_classes or n_classes % per_stage == 1:
        found = "one stage" if per_stage >= n_classes else "a last stage of one class"
        raise InputError(
            f"{SETTING}: found {per_stage}, which makes {found} of the {n_classes} classes of {task.name}; "
            "expected two stages or more, each of two classes or more"
        )
    order = list(range(n_classes))
    if task.class_order_seed is not None:
        order = np.random.default_rng((task.class_order_seed, _STREAM)).permutation(n_classes).tolist()
    parts = [tuple(order[start : start + per_stage]) for start in range(0, n_classes, per_stage)]
    stages = []
    for number, classes in enumerate(parts, 1):
        name = f"{task.name}-{number}of{len(parts)}"
        if len(name) > LONGEST_NAME:
            raise InputError(f"task.name: found {task.name}, expected a shorter one for the names of stages")
        stages.append(
            task.model_copy(
                update={
                    "name": name,
                    "classes_per_stage": None,
                    "class_order_seed": None,
                    "n_classes": None,
                    "part": ClassPart(of=task.name, n_classes=n_classes, classes=classes),
                }
            )
        )
    return SequenceConfig(tasks=tuple(stages))
