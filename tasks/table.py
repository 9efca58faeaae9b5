"""Images and labels listed in a table: one row per image, with its file and its label or labels."""

from __future__ import annotations

import csv
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd

from harness.config import TableTaskConfig
from harness.storage import (
    InputError,
    find_outside,
    refuse_endless,
    user_path,
)
from tasks.cells import (
    read_flags,
    read_numbers,
    shorten,
)
from tasks.external import build_external
from tasks.labels import check_columns
from tasks.splits import (
    choose_splits,
    spell_plainly,
)
from tasks.task import Task

log = logging.getLogger(__name__)

SEPARATORS = {".csv": ",;\t", ".tsv": "\t;,"}
"""Of the columns of a text file, by its suffix; the first with which the image column is found."""


def build(config: TableTaskConfig, at_most: bool = False) -> Task:
    """Load the images listed in a table.

    In text files, only an empty cell is a missing value, and labels are numbers only if all are: ``007``,
    ``NA`` and ``None`` stay as they are written.

    Raises
    ------
    InputError
        If the table is missing or broken, a column or a listed file is missing, a row has no split, or an
        image has two labels.
    """
    table = user_path(config.table)
    root = user_path(config.root) if config.root is not None else table.parent
    whole = read_table(table, config.image_column)
    parts = {str(table): whole}
    if config.test_table is not None:
        test = user_path(config.test_table)
        if test.resolve() == table.resolve():
            raise InputError(f"task.test_table: found {test}, the same as task.table; expected another file")
        parts[str(test)] = read_table(test, config.image_column)
    for place, frame in parts.items():
        check_columns(place, list(frame.columns), config, [config.split_column])
    if config.split_column is None:
        for setting, value, default in (("train", config.train, "train"), ("test", config.test, None)):
            if value != default:
                raise InputError(f"task.{setting}: found {value}, expected task.split_column with it")
    else:
        split = _read_splits(str(table), whole[config.split_column], config)
        train, test_name = choose_splits(str(table), Counter(split), config)
        of_row = pd.Series(split, index=whole.index)
        parts = {
            f"{table}, {config.split_column} {name}": whole[of_row == name]
            for name in (train, test_name)
            if name is not None
        }
    labels = _read_labels(parts, config)
    files = {place: _find_files(place, frame, root, config) for place, frame in parts.items()}
    _check_repeats(files, labels)
    return build_external(
        config,
        str(table),
        {
            place: _to_dataset(place, frame, files[place], labels[place], config)
            for place, frame in parts.items()
        },
        at_most,
    )


def read_table(path: Path, image_column: str) -> pd.DataFrame:
    """Read a csv, tsv or parquet file; `InputError` names one that is missing, broken or empty.

    Cells of text files stay text. Their columns may also be separated by semicolons or tabs.
    """
    suffix = path.suffix.lower()
    if suffix not in (*SEPARATORS, ".parquet"):
        raise InputError(f"{path}: expected a file ending in {', '.join((*SEPARATORS, '.parquet'))}")
    refuse_endless(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        if suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            separator = _find_separator(path, SEPARATORS[suffix], image_column)
            frame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except InputError:
        raise
    except Exception as error:  # pandas and pyarrow raise anything on a broken file
        raise InputError(f"{path}: not a readable table ({' '.join(str(error).split())})") from None
    if frame.empty:
        raise InputError(f"{path}: found no rows, expected one per image")
    return frame


def _find_separator(path: Path, separators: str, image_column: str) -> str:
    with path.open(encoding="utf-8-sig", newline="") as file:
        headers = {}
        for separator in separators:
            file.seek(0)
            headers[separator] = next(csv.reader(file, delimiter=separator), [])
    found = next((one for one, names in headers.items() if image_column in names), separators[0])
    for name, count in Counter(headers[found]).items():
        if count > 1:
            raise InputError(f"{path}: found column {name} twice, expected unique names")
    return found


def _read_splits(place: str, column: pd.Series, config: TableTaskConfig) -> list[str]:
    """Split of every row; names that differ only in case or blanks are one split."""
    values = ["" if _is_missing(value) else shorten(_whole(value)) for value in column.tolist()]
    empty = [row for row, value in enumerate(values) if not value.strip()]
    if empty:
        raise InputError(
            f"{place}: found {len(empty)} of {len(values)} rows without a split in column {column.name}, "
            f"such as row {empty[0]}; expected a name in every row"
        )
    spelled: dict[str, Counter[str]] = {}
    for value in values:
        spelled.setdefault(spell_plainly(value), Counter())[value] += 1
    chosen: dict[str, str] = {}
    for plain, counts in spelled.items():
        wanted = [name for name in (config.train, config.test) if name is not None and name in counts]
        chosen[plain] = wanted[0] if wanted else max(counts, key=lambda name: counts[name])
        others = {name: count for name, count in counts.items() if name != chosen[plain]}
        if others:
            listed = ", ".join(f"{name!r} ({count} rows)" for name, count in others.items())
            log.warning("warning: %s: %s read as split %r", place, listed, chosen[plain])
    return [chosen[spell_plainly(value)] for value in values]


def _whole(value: Any) -> Any:
    """Folds are stored as 0.0 where a column had missing values."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Columns = dict[str, list[Any]]


def _read_labels(parts: Mapping[str, pd.DataFrame], config: TableTaskConfig) -> dict[str, Columns]:
    """Label columns of every part, missing values as None; texts are numbers in all parts or in none."""
    found: dict[str, Columns] = {place: {} for place in parts}
    for name in config.label_columns or [config.label_column]:
        values = {place: [_plain(value) for value in frame[name].tolist()] for place, frame in parts.items()}
        if config.label_columns is not None:
            read = {place: read_flags(f"{place}", name, column) for place, column in values.items()}
        elif config.separator is None and not config.multi_label:
            read = dict(zip(values, read_numbers(list(values.values())), strict=True))
        else:
            read = values
        for place, column in read.items():
            found[place][name] = column
    return found


def _plain(value: Any) -> Any:
    """Return a cell without pandas: None where it is missing, and lists of labels as lists."""
    return None if _is_missing(value) else value.tolist() if isinstance(value, np.ndarray) else value


def _is_missing(value: Any) -> bool:
    """Whether a cell is empty; lists of labels are no missing values."""
    if isinstance(value, str):
        return not value
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _find_files(place: str, frame: pd.DataFrame, root: Path, config: TableTaskConfig) -> list[str]:
    column = config.image_column
    files, missing = [], []
    for row, name in enumerate(frame[column].tolist()):
        if isinstance(name, dict):
            raise InputError(
                f"{place}, row {row}: found the content of an image in column {column}, as datasets writes "
                "it; expected a file name, or task=hub task.root=FOLDER with the folder of such parquet files"
            )
        if not isinstance(name, str) or not name:
            raise InputError(
                f"{place}, row {row}: found {shorten(name)} in column {column}, expected a file name"
            )
        files.append(os.path.normpath(root / name))
        if not os.path.isfile(files[-1]):
            refuse_endless(Path(files[-1]))
            missing.append(row)
    if missing:
        raise InputError(
            f"{place}, row {missing[0]}: {files[missing[0]]}: no such file ({len(missing)} of {len(files)} "
            "are missing); expected file names below task.root, by default the table's folder"
        )
    outside = [] if config.allow_outside_root else find_outside(root, files)
    if outside:
        row = outside[0]
        raise InputError(
            f"{place}, row {row}: found {frame[column].iloc[row]}, which leads out of {root} to "
            f"{os.path.realpath(files[row])} ({len(outside)} of {len(files)} do); expected files in "
            "task.root, by default the table's folder: set it to a folder that holds them, or "
            "task.allow_outside_root=true"
        )
    return files


def _check_repeats(files: Mapping[str, list[str]], labels: Mapping[str, Columns]) -> None:
    """Refuse files with two labels; count files listed several times."""
    seen: dict[str, tuple[str, list[Any]]] = {}
    torn: dict[str, str] = {}
    again = 0
    for place, names in files.items():
        columns = labels[place].values()
        for row, (name, *cells) in enumerate(zip(names, *columns, strict=True)):
            if name not in seen:
                seen[name] = (f"{place}, row {row}", cells)
                continue
            again += 1
            first, other = seen[name]
            if repr(cells) != repr(other):
                one, two = ("/".join(map(shorten, label)) for label in (other, cells))
                torn.setdefault(name, f"{one} in {first}, {two} in {place}, row {row}")
    if torn:
        name, told = next(iter(torn.items()))
        raise InputError(
            f"{name}: found two labels of one image, {told} ({len(torn)} such images); expected one row per "
            "image, and several labels of an image as one cell (task.separator) or as task.label_columns"
        )
    if again:
        log.warning(
            "warning: %s: %d rows list an image again, with the same label; they are kept",
            next(iter(files)),
            again,
        )


def _to_dataset(
    place: str, frame: pd.DataFrame, files: list[str], labels: Columns, config: TableTaskConfig
) -> datasets.Dataset:
    content = dict(labels)
    if config.group_column is not None:
        values: Iterable[Any] = frame[config.group_column].tolist()
        content.setdefault(config.group_column, [_plain(value) for value in values])
    content.pop(config.image_column, None)
    try:
        data = datasets.Dataset.from_dict(content)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{place}: found columns of mixed types ({' '.join(str(error).split())})") from None
    return data.add_column(config.image_column, files).cast_column(config.image_column, datasets.Image())
