"""From the labels of a data set to class indices, or to 0 and 1 for every label."""

from __future__ import annotations

import logging
import math
from collections import Counter
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
from tasks.cells import (
    LIKE_MISSING,
    shorten,
)

log = logging.getLogger(__name__)

BOOLS = ("False", "True")


@dataclass(frozen=True)
class RawLabels:
    """Labels of one split as stored.

    Attributes
    ----------
    place : str
        Source, named in errors.
    values : list
        One label per image; with multiple labels, a list per image.
    names : tuple of str or None
        The data set's own names of labels 0, 1, 2, ...; None if it has none.
    """

    place: str
    values: list[Any]
    names: tuple[str, ...] | None


def check_columns(
    place: str, columns: Sequence[str], config: LabelConfig, others: Sequence[str | None] = ()
) -> None:
    """Check that the columns of `config` and `others` exist; the error suggests the nearest name."""
    wanted = [config.image_column, *(config.label_columns or [config.label_column]), config.group_column]
    for name in [name for name in [*wanted, *others] if name is not None]:
        if name not in columns:
            raise unknown_name(f"column of {place}", name, columns)


def read_labels(data: datasets.Dataset, place: str, config: LabelConfig) -> RawLabels:
    """Read the labels from the columns named in `config`, without decoding images."""
    if config.label_columns is not None:
        columns = data.select_columns(list(config.label_columns))[:]
        values: list[Any] = [[] for _ in range(len(data))]
        for name in config.label_columns:
            for row, value in enumerate(columns[name]):
                if value not in (0, 1):
                    raise InputError(
                        f"{place}, row {row}: found {shorten(value)} in column {name}, expected 0 or 1"
                    )
                if value:
                    values[row].append(name)
        return RawLabels(place, values, None)
    feature = data.features[config.label_column]
    inner = getattr(feature, "feature", None)
    values = data.select_columns([config.label_column])[:][config.label_column]
    if config.separator is not None:
        if not all(value is None or isinstance(value, str) for value in values):
            raise InputError(f"{place}, column {config.label_column}: found {feature}, expected strings")
        parts = [[part.strip() for part in (value or "").split(config.separator)] for value in values]
        return RawLabels(place, [[part for part in row if part] for row in parts], None)
    if (inner is not None) != config.multi_label:
        found, do = ("lists", "true") if inner is not None else ("single labels", "false")
        raise InputError(
            f"{place}, column {config.label_column}: found {found}, expected with task.multi_label="
            f"{str(config.multi_label).lower()}: {'lists of labels' if config.multi_label else 'one label'}; "
            f"set task.multi_label={do}" + ("" if inner is not None else ", or task.separator")
        )
    names = getattr(feature if inner is None else inner, "names", None)
    return RawLabels(place, [value or [] for value in values] if inner else values, names and tuple(names))


def encode_labels(
    parts: Sequence[RawLabels], config: LabelConfig
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Encode the labels of all splits as numbers.

    Returns
    -------
    list of int array [n_images] of class indices, or [n_images, n_classes] of 0 and 1
    tuple of str [n_classes]
        Class names as they read in a sentence.

    Raises
    ------
    InputError
        If an image has no label, a label no name, or there is only one class, or a class is missing from the
        training images, the first of `parts`.
    """
    for part in parts:
        if not part.values:
            raise InputError(f"{part.place}: found no images, expected one or more")
    several = config.multi_label
    rows = [[_keys(part, row, several) for row in range(len(part.values))] for part in parts]
    keys, names = _name_classes(parts, rows, config)
    # a label that stands for no label, such as "No Finding", is not a class
    kept = [place for place, pair in enumerate(zip(keys, names, strict=True)) if config.no_label not in pair]
    index = {keys[place]: column for column, place in enumerate(kept)}
    known = {*keys, config.no_label}
    names = [names[place] for place in kept]
    _warn_of_spellings(parts[0].place, Counter(key for part in rows for row in part for key in row))
    arrays = []
    for part, labels in zip(parts, rows, strict=True):
        for row, found in enumerate(labels):
            for key in found:
                if key not in known:
                    listed = ", ".join(map(str, keys[:40]))
                    raise InputError(
                        f"{part.place}, row {row}: found label {key!r}, which has no name; expected {listed}"
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
            raise InputError(f"{part.place}, row {row}: found no label, expected one")
        if isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str | int):
            raise InputError(
                f"{part.place}, row {row}: found label {shorten(value)}, expected a string or an integer"
            )
        keys.append(value)
    return keys


def _name_classes(
    parts: Sequence[RawLabels], rows: Sequence[Sequence[list[str | int]]], config: LabelConfig
) -> tuple[list[str | int], list[str]]:
    """Labels in the order of class indices, and their names."""
    known = parts[0].names
    if any(part.names != known for part in parts):
        raise InputError(f"{parts[-1].place}: found other classes, expected those of {parts[0].place}")
    present = {key for part in rows for row in part for key in row}
    if len({type(key) for key in present}) > 1:
        raise InputError(f"{parts[0].place}: found strings and numbers as labels, expected one type")
    numbers = known is not None or any(isinstance(key, int) for key in present)
    if config.classes is not None:
        keys: list[str | int] = [_number(name) if numbers else name for name in config.classes]
    elif known is not None:
        keys = list(range(len(known)))
    elif config.class_names is not None and numbers:
        keys = list(range(len(config.class_names)))
    elif config.class_names is not None and present <= set(BOOLS):
        keys = list(BOOLS)
    elif config.label_columns is not None:
        keys = list(config.label_columns)
    else:
        keys = sorted(present, key=lambda key: (str(type(key)), key))
    if config.class_names is not None:
        if config.classes is None and not numbers and config.label_columns is None and keys != list(BOOLS):
            raise InputError(
                "task.class_names: the labels are strings; expected also task.classes, labels in the order "
                f"of the names, such as {', '.join(map(str, keys[:3]))}"
            )
        names = list(config.class_names)
        if len(names) != len(keys):
            raise InputError(f"task.class_names: found {len(names)}, expected {len(keys)}, one per class")
    elif known is not None:
        names = [known[int(key)] if 0 <= int(key) < len(known) else str(key) for key in keys]
    else:
        names = [str(key) for key in keys]
    names = [" ".join(name.replace("_", " ").split()) for name in names]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(f"{parts[0].place}: found two classes named {min(twice)!r}, expected unique names")
    return keys, names


def _warn_of_spellings(place: str, counts: Counter[str | int]) -> None:
    """Warn of labels that may be meant as missing values, or as one label."""
    texts = {key: count for key, count in counts.items() if isinstance(key, str)}
    for text in LIKE_MISSING:
        if text in texts:
            log.warning(
                "warning: %s: label %r (%d images) is a class; missing is only an empty label",
                *(place, text, texts[text]),
            )
    alike: dict[str, list[str]] = {}
    for text in sorted(texts):
        alike.setdefault(" ".join(text.replace("_", " ").casefold().split()), []).append(text)
    for same in alike.values():
        if len(same) > 1:
            listed = " and ".join(f"{text!r} ({texts[text]} images)" for text in same)
            log.warning("warning: %s: labels %s are different classes", place, listed)


def _number(name: str) -> int:
    try:
        return int(name)
    except ValueError:
        raise InputError(f"task.classes: found {name!r}, expected the integer labels of the data") from None


def _check_classes(parts: Sequence[RawLabels], arrays: Sequence[np.ndarray], names: Sequence[str]) -> None:
    counts = [
        array.sum(axis=0) if array.ndim == 2 else np.bincount(array, minlength=len(names)) for array in arrays
    ]
    if (counts[0] > 0).sum() < (1 if arrays[0].ndim == 2 else 2):
        total = int(counts[0].sum())
        which = f": all {total} images are {names[int(counts[0].argmax())]!r}" if total else ""
        raise InputError(f"{parts[0].place}: found one class, expected two or more{which}")
    for part, count in zip(parts, counts, strict=True):
        for name, here, in_train in zip(names, count, counts[0], strict=True):
            if here and not in_train:
                raise InputError(
                    f"{part.place}: found {here} images of {name!r}, but none in the training images "
                    f"({parts[0].place}); expected every class in both"
                )
