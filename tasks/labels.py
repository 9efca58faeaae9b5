"""From labels as a data set spells them to class indices, or to 0 and 1 for every label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np

from harness.config import LabelConfig
from harness.storage import (
    InputError,
    unknown_name,
)


@dataclass(frozen=True)
class RawLabels:
    """Labels of one split as they were found.

    Attributes
    ----------
    place : str
        Where, for errors.
    values : list
        One label an image; a list of labels an image, if there may be several.
    names : tuple of str or None
        What the data set itself calls labels 0, 1, 2, ...; None where it does not say.
    """

    place: str
    values: list[Any]
    names: tuple[str, ...] | None


def check_columns(
    place: str, columns: Sequence[str], config: LabelConfig, others: Sequence[str | None] = ()
) -> None:
    """Refuse a column that is not there, with the nearest that is: those of `config`, and `others`."""
    wanted = [config.image_column, *(config.label_columns or [config.label_column]), config.group_column]
    for name in [name for name in [*wanted, *others] if name is not None]:
        if name not in columns:
            raise unknown_name(f"column of {place}", name, columns)


def read_labels(data: datasets.Dataset, place: str, config: LabelConfig) -> RawLabels:
    """Labels of a data set by the columns that `config` names, without decoding an image."""
    if config.label_columns is not None:
        columns = data.select_columns(list(config.label_columns))[:]
        values: list[Any] = [[] for _ in range(len(data))]
        for name in config.label_columns:
            for row, value in enumerate(columns[name]):
                if value not in (0, 1):
                    raise InputError(
                        f"{place}, row {row}: found {value!r} in column {name}, accepted: 0 or 1"
                    )
                if value:
                    values[row].append(name)
        return RawLabels(place, values, None)
    feature = data.features[config.label_column]
    inner = getattr(feature, "feature", None)
    values = data.select_columns([config.label_column])[:][config.label_column]
    if config.separator is not None:
        if not all(value is None or isinstance(value, str) for value in values):
            raise InputError(f"{place}, column {config.label_column}: found {feature}, accepted: texts")
        parts = [[part.strip() for part in (value or "").split(config.separator)] for value in values]
        return RawLabels(place, [[part for part in row if part] for row in parts], None)
    if (inner is not None) != config.multi_label:
        found, do = ("lists", "true") if inner is not None else ("single labels", "false")
        raise InputError(
            f"{place}, column {config.label_column}: found {found}, accepted with task.multi_label="
            f"{str(config.multi_label).lower()}: {'lists of labels' if config.multi_label else 'one label'}; "
            f"set task.multi_label={do}" + ("" if inner is not None else ", or task.separator")
        )
    names = getattr(feature if inner is None else inner, "names", None)
    return RawLabels(place, [value or [] for value in values] if inner else values, names and tuple(names))


def encode_labels(
    parts: Sequence[RawLabels], config: LabelConfig
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Turn the labels of all splits into numbers.

    Returns
    -------
    list of int array [n_images] of class indices, or [n_images, n_classes] of 0 and 1
    tuple of str [n_classes]
        Class names as they read in a sentence.

    Raises
    ------
    InputError
        For an image without a label, a label without a name, one class only, or a class that is nowhere in
        the training images, which are the first of `parts`.
    """
    for part in parts:
        if not part.values:
            raise InputError(f"{part.place}: found no images, accepted: one or more")
    several = config.multi_label
    rows = [[_keys(part, row, several) for row in range(len(part.values))] for part in parts]
    keys, names = _name_classes(parts, rows, config)
    # a label that says that there is none, such as "No Finding", is no class
    kept = [place for place, pair in enumerate(zip(keys, names, strict=True)) if config.no_label not in pair]
    index = {keys[place]: column for column, place in enumerate(kept)}
    known = {*keys, config.no_label}
    names = [names[place] for place in kept]
    arrays = []
    for part, labels in zip(parts, rows, strict=True):
        for row, found in enumerate(labels):
            for key in found:
                if key not in known:
                    listed = ", ".join(map(str, keys[:40]))
                    raise InputError(
                        f"{part.place}, row {row}: label {key!r} has no name; accepted: {listed}"
                    )
        if several:
            array = np.zeros((len(labels), len(names)), dtype=np.int64)
            for row, found in enumerate(labels):
                array[row, [index[key] for key in found if key in index]] = 1
        else:
            array = np.array([index[key] for (key,) in labels], dtype=np.int64)
        arrays.append(array)
    _check_classes(parts, arrays, names)
    return arrays, tuple(names)


def _keys(part: RawLabels, row: int, several: bool) -> list[str | int]:
    found = part.values[row] if several else [part.values[row]]
    keys: list[str | int] = []
    for value in found:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        missing = value is None or value == "" or (isinstance(value, float) and math.isnan(value))
        if missing or (part.names is not None and value == -1):
            raise InputError(f"{part.place}, row {row}: has no label")
        if isinstance(value, bool):
            value = int(value)
        if not isinstance(value, str | int):
            raise InputError(
                f"{part.place}, row {row}: found label {value!r}, accepted: a text or a whole number"
            )
        keys.append(value)
    return keys


def _name_classes(
    parts: Sequence[RawLabels], rows: Sequence[Sequence[list[str | int]]], config: LabelConfig
) -> tuple[list[str | int], list[str]]:
    """Labels in the order of their class indices, and their names."""
    known = parts[0].names
    if any(part.names != known for part in parts):
        raise InputError(f"{parts[-1].place}: its classes are not those of {parts[0].place}")
    present = {key for part in rows for row in part for key in row}
    if len({type(key) for key in present}) > 1:
        raise InputError(f"{parts[0].place}: found labels that are texts and labels that are numbers")
    numbers = known is not None or any(isinstance(key, int) for key in present)
    if config.classes is not None:
        keys: list[str | int] = [_number(name) if numbers else name for name in config.classes]
    elif known is not None:
        keys = list(range(len(known)))
    elif config.class_names is not None and numbers:
        keys = list(range(len(config.class_names)))
    elif config.label_columns is not None:
        keys = list(config.label_columns)
    else:
        keys = sorted(present, key=lambda key: (str(type(key)), key))
    if config.class_names is not None:
        if config.classes is None and not numbers and config.label_columns is None:
            raise InputError(
                "task.class_names: the labels are texts, so which name is whose? accepted: task.classes with "
                f"the labels in the order of the names, such as {', '.join(map(str, keys[:3]))}"
            )
        names = list(config.class_names)
        if len(names) != len(keys):
            raise InputError(
                f"task.class_names: found {len(names)}, accepted: {len(keys)}, one for every class"
            )
    elif known is not None:
        names = [known[int(key)] if 0 <= int(key) < len(known) else str(key) for key in keys]
    else:
        names = [str(key) for key in keys]
    names = [" ".join(name.replace("_", " ").split()) for name in names]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(
            f"{parts[0].place}: two classes are called {min(twice)!r}; accepted: different names"
        )
    return keys, names


def _number(name: str) -> int:
    try:
        return int(name)
    except ValueError:
        raise InputError(f"task.classes: found {name!r}, accepted: the numbers that the data has") from None


def _check_classes(parts: Sequence[RawLabels], arrays: Sequence[np.ndarray], names: Sequence[str]) -> None:
    counts = [
        array.sum(axis=0) if array.ndim == 2 else np.bincount(array, minlength=len(names)) for array in arrays
    ]
    if (counts[0] > 0).sum() < (1 if arrays[0].ndim == 2 else 2):
        raise InputError(f"{parts[0].place}: found one class only, accepted: two or more")
    for part, count in zip(parts, counts, strict=True):
        for name, here, in_train in zip(names, count, counts[0], strict=True):
            if here and not in_train:
                raise InputError(
                    f"{part.place}: found {name!r} on {here} images, but on no training image "
                    f"({parts[0].place}); accepted: classes that can be learned"
                )
