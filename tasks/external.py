"""From data sets of any source to a `Task`: splits, labels and subsets, with images decoded on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import datasets
import numpy as np

from harness.config import LabelConfig
from tasks.image_column import TaskImage
from tasks.labels import (
    check_columns,
    encode_labels,
    read_labels,
)
from tasks.pixel_hashes import hash_images
from tasks.splits import split_rows
from tasks.subsets import choose_rows
from tasks.task import (
    LabelArray,
    LabelledImages,
    Task,
    join_splits,
    label_feature,
)


def build_external(
    config: LabelConfig, place: str, splits: Mapping[str, datasets.Dataset], at_most: bool = False
) -> Task:
    """Build a task from one or two data sets.

    Parameters
    ----------
    config : LabelConfig
    place : str
        Where the data comes from.
    splits : dict of str to datasets.Dataset
        Training and test split, each by where it comes from; a missing test split is drawn.
    at_most : bool
        Whether `n_train` and `n_test` may exceed the images available.
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
        parts.append(LabelledImages(chosen, array[part], hash_images(chosen, place)))
    return join_splits(config.name, parts[0], parts[1], class_names, config.templates, config.leaks)


def _join(
    data: datasets.Dataset, image_column: str, labels: LabelArray, class_names: Sequence[str]
) -> datasets.Dataset:
    """The images and their labels, side by side; nothing is copied or decoded."""
    feature = label_feature(class_names, labels.ndim == 2)
    images = data.select_columns([image_column])
    if image_column != "image":
        images = images.rename_column(image_column, "image")
    return images.cast_column("image", TaskImage()).add_column("label", labels.tolist(), feature=feature)
