"""From data sets of any source to a `Task`: splits, labels, subsets; images are decoded on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import datasets
import numpy as np

from harness.config import (
    LabelConfig,
    OutsideTaskConfig,
)
from harness.storage import (
    InputError,
    unknown_name,
)
from tasks.contents import hash_pixels
from tasks.labels import (
    check_columns,
    encode_labels,
    read_labels,
)
from tasks.subsets import (
    draw_per_class,
    draw_rows,
    split_rows,
)
from tasks.task import (
    LabelArray,
    Split,
    Task,
    check_size,
    join_splits,
    label_feature,
)

TEST_SPLITS = ("test", "validation", "valid", "val")
"""What a test split may be called, first choice first."""


def choose_splits(place: str, names: Sequence[str], config: OutsideTaskConfig) -> tuple[str, str | None]:
    """Names of the training and the test split; None for the latter: it has to be split off.

    Raises
    ------
    InputError
        If a split that is named is not there, or both are the same.
    """
    if config.train not in names:
        raise unknown_name(f"split of {place}", config.train, names)
    if config.test is None:
        return config.train, next(
            (name for name in TEST_SPLITS if name in names and name != config.train), None
        )
    if config.test not in names:
        raise unknown_name(f"split of {place}", config.test, names)
    if config.test == config.train:
        raise InputError(f"task.test: found {config.test}, which is task.train, accepted: another split")
    return config.train, config.test


def build_outside(
    config: LabelConfig, place: str, splits: Mapping[str, datasets.Dataset], at_most: bool = False
) -> Task:
    """Build a task from one or two data sets.

    Parameters
    ----------
    config : LabelConfig
    place : str
        Where the data comes from.
    splits : dict of str to datasets.Dataset
        The training split and the test split by where each comes from; with one only, a test split is drawn.
    at_most : bool
        Whether `n_train` and `n_test` may be more than there is.
    """
    for where, data in splits.items():
        check_columns(where, data.column_names, config)
    labels, class_names = encode_labels(
        [read_labels(data, where, config) for where, data in splits.items()], config
    )
    tables = [
        _join(data, config.image_column, array, class_names)
        for data, array in zip(splits.values(), labels, strict=True)
    ]
    if len(tables) == 2:
        rows = [np.arange(len(data)) for data in tables]
    else:
        groups = None
        if config.group_column is not None:
            (data,) = splits.values()
            groups = data.select_columns([config.group_column])[:][config.group_column]
        rows = list(split_rows(labels[0], config.test_share, config.seed, groups))
        tables, labels = tables * 2, list(labels) * 2
    rows = choose_rows(
        config, [array[part] for array, part in zip(labels, rows, strict=True)], rows, class_names, at_most
    )
    parts = []
    for data, array, part in zip(tables, labels, rows, strict=True):
        chosen = data.select(part)
        parts.append(Split(chosen, array[part], hash_pixels(chosen, place)))
    return join_splits(config.name, parts[0], parts[1], class_names, config.templates, config.leaks)


def choose_rows(
    config: OutsideTaskConfig,
    labels: Sequence[LabelArray],
    rows: Sequence[np.ndarray],
    class_names: Sequence[str],
    at_most: bool,
) -> list[np.ndarray]:
    """Of the rows of training and test split, with these labels, those that are used."""
    train, test = rows
    n_test = check_size(config.name, "task.n_test", config.n_test, len(test), at_most)
    if config.n_per_class is not None:
        chosen = draw_per_class(labels[0], config.n_per_class, config.seed, class_names)
    else:
        n_train = check_size(config.name, "task.n_train", config.n_train, len(train), at_most)
        chosen = draw_rows(len(train), n_train, config.seed)
    return [train[chosen], test[draw_rows(len(test), n_test, config.seed)]]


def _join(
    data: datasets.Dataset, image_column: str, labels: LabelArray, class_names: Sequence[str]
) -> datasets.Dataset:
    """The images and their labels, side by side; nothing is copied or decoded."""
    feature = label_feature(class_names, labels.ndim == 2)
    images = data.select_columns([image_column])
    if image_column != "image":
        images = images.rename_column(image_column, "image")
    return images.cast_column("image", datasets.Image(mode="RGB")).add_column(
        "label", labels.tolist(), feature=feature
    )
