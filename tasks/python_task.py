"""A task that a user's own function returns, checked, cut to size and fingerprinted."""

from __future__ import annotations

import datasets
import numpy as np

from harness.config import PythonTaskConfig
from harness.storage import (
    InputError,
    call_function,
)
from tasks.image_column import TaskImage
from tasks.pixel_hashes import hash_images
from tasks.subsets import (
    draw_per_class,
    draw_rows,
)
from tasks.task import (
    LabelledImages,
    Task,
    check_size,
    join_splits,
)


def build(config: PythonTaskConfig, at_most: bool = False) -> Task:
    """Call the function that a configuration names, and check the task that it returns.

    Sizes, seed and `leaks` hold as for every source. Hashes and fingerprint are computed from the images and
    labels in use, whatever the function filled in.

    Parameters
    ----------
    config : PythonTaskConfig
    at_most : bool
        Whether to take all images where sizes ask for more.

    Raises
    ------
    InputError
        As `harness.storage.call_function`, or if the task's columns, labels or sizes do not fit.
    """
    source = f"task.function: {config.function}"
    task = call_function("task", config.function, config.arguments, Task)
    if task.multi_label != config.multi_label:
        raise InputError(
            f"task.multi_label: found {config.multi_label}, expected {task.multi_label}, "
            f"as {config.function} returns it"
        )
    if not task.class_names:
        raise InputError(f"{source}: found no class_names, expected one per class")
    train, test = (_check(data, task, source) for data in (task.train, task.test))
    if config.n_per_class is not None:
        rows = draw_per_class(train, config.n_per_class, config.seed, task.class_names)
    else:
        n_train = check_size(config.name, "task.n_train", config.n_train, len(train), at_most)
        rows = draw_rows(len(train), n_train, config.seed)
    n_test = check_size(config.name, "task.n_test", config.n_test, len(test), at_most)
    parts = [
        _cut(data, labels, chosen, f"task {config.name}, {split}")
        for split, data, labels, chosen in (
            ("train", task.train, train, rows),
            ("test", task.test, test, draw_rows(len(test), n_test, config.seed)),
        )
    ]
    return join_splits(config.name, parts[0], parts[1], task.class_names, task.templates, config.leaks)


def _check(data: datasets.Dataset, task: Task, source: str) -> np.ndarray:
    """Labels of a split: [n_images] of class numbers, or [n_images, n_classes] of 0 and 1."""
    if not isinstance(data, datasets.Dataset) or not {"image", "label"} <= set(data.column_names):
        raise InputError(f"{source}: expected data sets with the columns image and label")
    if not isinstance(data.features["image"], datasets.Image):
        raise InputError(f"{source}: column image: found {data.features['image']}, expected datasets.Image()")
    if not len(data):
        raise InputError(f"{source}: found a split without images, expected one or more")
    labels = np.asarray(data["label"])
    n_classes = task.n_classes
    if task.multi_label:
        if labels.ndim != 2 or labels.shape[1] != n_classes or not np.isin(labels, (0, 1)).all():
            raise InputError(f"{source}: labels: expected {n_classes} numbers of 0 and 1 per image")
    elif labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= n_classes:
        raise InputError(f"{source}: labels: expected class numbers from 0 to {n_classes - 1}")
    return labels.astype(np.int64)


def _cut(data: datasets.Dataset, labels: np.ndarray, rows: np.ndarray, place: str) -> LabelledImages:
    chosen = data.select(rows).cast_column("image", TaskImage())
    return LabelledImages(chosen, labels[rows], hash_images(chosen, place))
