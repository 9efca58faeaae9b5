"""The table of stimuli: one row per map, as CSV or TSV."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from harness.storage import (
    InputError,
    as_input_error,
    unknown_name,
)

COLUMNS = ("image", "session", "repeat")


@dataclass(frozen=True)
class StimulusTable:
    """What each map was a response to.

    Attributes
    ----------
    path : Path
    image : str array [n_maps]
        File name of the image shown.
    session : int array [n_maps] or None
        Session number; None if the table has no such column.
    """

    path: Path
    image: Shaped[np.ndarray, " n_maps"]
    session: Int[np.ndarray, " n_maps"] | None


def read_table(path: Path) -> StimulusTable:
    """Read a table, separated by tabs in a ``.tsv`` file and by commas otherwise.

    Columns are found by name: ``image``, optionally ``session`` and ``repeat``; others are ignored. Sessions
    are integers, or names, which are numbered from 1 in natural order. With ``repeat``, no image may have the
    same repeat twice in a session.

    Raises
    ------
    InputError
        If the table is missing or broken, has no column ``image`` or no rows, or has an incomplete row.
    """
    with as_input_error(path, "table"), path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True))
    rows = [(number, row) for number, row in enumerate(lines, 1) if any(cell.strip() for cell in row)]
    if not rows:
        raise InputError(f"{path}: found no rows, expected a header and one row per map")
    header = [cell.strip() for cell in rows[0][1]]
    if "image" not in header:
        raise InputError(f"{path}: {unknown_name('column', 'image', header)}")
    columns: dict[str, list[str]] = {}
    for name in COLUMNS:
        if header.count(name) > 1:
            raise InputError(f"{path}: found column {name} twice")
        if name in header:
            columns[name] = _read_column(path, rows[1:], header.index(name), name)
    if not columns["image"]:
        raise InputError(f"{path}: found a header only, expected one row per map")
    if "repeat" in columns:
        _check_repeats(path, [number for number, _ in rows[1:]], columns)
    session = _number_sessions(columns["session"]) if "session" in columns else None
    return StimulusTable(path, np.array(columns["image"]), session)


def _read_column(path: Path, rows: list[tuple[int, list[str]]], place: int, name: str) -> list[str]:
    found = []
    for number, row in rows:
        value = row[place].strip() if place < len(row) else ""
        if not value or "\0" in value:
            raise InputError(f"{path}: line {number}: found no {name}")
        found.append(value)
    return found


def _check_repeats(path: Path, numbers: list[int], columns: dict[str, list[str]]) -> None:
    seen: dict[tuple[str, ...], int] = {}
    for number, *key in zip(numbers, *columns.values(), strict=True):
        first = seen.setdefault(tuple(key), number)
        if first != number:
            raise InputError(f"{path}: lines {first} and {number}: found {', '.join(key)} twice")


def _number_sessions(names: list[str]) -> Int[np.ndarray, " n_maps"]:
    if all(re.fullmatch(r"\d{1,9}", name) for name in names):
        return np.array([int(name) for name in names], dtype=np.int64)

    def natural(name: str) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]

    order = {name: place for place, name in enumerate(sorted(set(names), key=natural), 1)}
    return np.array([order[name] for name in names], dtype=np.int64)
