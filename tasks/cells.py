"""Cells of text tables: numbers, flags, and labels that look like missing values."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from typing import Any

from harness.storage import InputError

LIKE_MISSING = ("NA", "N/A", "n/a", "<NA>", "#N/A", "NaN", "nan", "None", "null", "NULL")
"""What pandas reads as a missing value by default; as a label, each of them is a class."""

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.0+)?")
_FRACTION = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.?[0-9]+)([eE][-+]?[0-9]+)?")
_FLAGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


def read_numbers(columns: Sequence[list[Any]]) -> list[list[Any]]:
    """Read the columns of a label, one per split, as numbers if all their texts are numbers.

    Numbers with leading zeros, such as ``007``, are names, and so is everything in a column with another
    text. Where all others are numbers, a text such as ``NA`` is a missing value, None. Values that are no
    texts stay.
    """
    texts = {value for column in columns for value in column if value is not None}
    if not all(isinstance(text, str) for text in texts):
        return list(columns)
    numbers = texts - set(LIKE_MISSING)
    if numbers and all(_INTEGER.fullmatch(text) for text in numbers):
        known: dict[str, Any] = {text: int(text.partition(".")[0]) for text in numbers}
    elif any("." in text for text in numbers) and all(_FRACTION.fullmatch(text) for text in numbers):
        known = {text: float(text) for text in numbers}
    else:
        return list(columns)
    return [[known.get(value) for value in column] for column in columns]


def read_flags(place: str, name: str, column: list[Any]) -> list[Any]:
    """Read a column of texts as 0 and 1; true and false mean the same. Values that are no texts stay.

    Raises
    ------
    InputError
        If a text is neither.
    """
    found = []
    for row, value in enumerate(column):
        if isinstance(value, str):
            if value.strip().casefold() not in _FLAGS:
                raise InputError(f"{place}, row {row}: found {value[:40]} in column {name}, expected 0 or 1")
            value = _FLAGS[value.strip().casefold()]
        found.append(value)
    return found


def shorten(value: Any) -> str:
    """Return a cell as a short text for a message."""
    return value if isinstance(value, str) and len(value) <= 80 else reprlib.repr(value)
