"""The journal of a run: ``results.jsonl``, the source of every table and figure, and of what MLflow shows."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import SupportsFloat, TypedDict

from harness.storage import (
    InputError,
    make_folder,
    refuse_endless,
)

# what MLflow accepts, without blanks: stage/measure up to stage/place/subject/layer/name
_METRIC_NAME = re.compile(r"[\w.\-]+(/[\w.\-]+){1,4}")


class Row(TypedDict):
    """A metric's value, such as ``stage/place/measure``, at an optimizer step; timestamp in ms since 1970."""

    name: str
    step: int
    value: float
    timestamp: int


class Journal:
    """The append-only ``results.jsonl`` of a run, open for writing by one process.

    Each `log` reaches the operating system before it returns, so ``kill -9`` loses at most the line being
    written, whose fragment is cut off at the next opening. Closing waits for the disk. An existing (name,
    step) is not written again, so a resumed run may repeat its rows.
    """

    def __init__(self, path: Path) -> None:
        make_folder(path.parent)
        rows, end = read_rows(path) if path.exists() else ([], 0)
        self._seen = {(row["name"], row["step"]) for row in rows}
        self._file = path.open("ab")
        self._file.truncate(end)

    def log(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Append `values`, by metric name, at an optimizer step: all of them, or none if one is bad.

        Raises
        ------
        ValueError
            If a value is not finite, or MLflow does not accept a name.
        """
        now = time.time_ns() // 1_000_000
        rows = []
        for name, number in values.items():
            value = float(number)
            if not _METRIC_NAME.fullmatch(name) or len(name) > 250:
                raise ValueError(f"metric {name!r}: expected a name such as stage/place/measure")
            if not math.isfinite(value):
                raise ValueError(f"metric {name} at step {step}: found {value}, expected a finite number")
            if (name, step) not in self._seen:
                rows.append(Row(name=name, step=int(step), value=value, timestamp=now))
        self._file.write("".join(_write_row(row) for row in rows).encode())
        self._file.flush()
        self._seen.update((row["name"], row["step"]) for row in rows)

    def close(self) -> None:
        """Wait until everything is on disk, then close."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_rows(path: Path, offset: int = 0) -> tuple[list[Row], int]:
    """Rows of a journal from byte `offset`, and the offset after its last complete line.

    Rows are unique by name and step: the first one counts, as in `Journal`.

    Raises
    ------
    InputError
        Names a file that is missing, or a line that is no row: with another name than a metric's, a step that
        is no whole number from 0, a value that is not finite, or another check sum than when it was written.
    """
    refuse_endless(path)
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    whole = data[: data.rfind(b"\n") + 1]
    rows: dict[tuple[str, int], Row] = {}
    for line in whole.splitlines():
        row = _read_row(line)
        if row is None:
            raise InputError(f"{path}: found {line[:80]!r}, expected a row written by Palimpsest")
        rows.setdefault((row["name"], row["step"]), row)
    return list(rows.values()), offset + len(whole)


class GrowingRows:
    """Rows of a journal that another process or thread writes; every line is read once.

    Parameters
    ----------
    path : Path
        Of the journal, which may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[tuple[str, int], Row] = {}
        self._end = 0

    def read(self) -> list[Row]:
        """All rows so far, in the order in which they were written; errors as for `read_rows`."""
        if not self._path.exists():
            return []
        if self._path.stat().st_size < self._end:
            # another journal than before
            self._rows, self._end = {}, 0
        rows, self._end = read_rows(self._path, self._end)
        for row in rows:
            self._rows.setdefault((row["name"], row["step"]), row)
        return list(self._rows.values())


def _write_row(row: Row) -> str:
    return json.dumps({**row, "crc": _check_sum(**row)}) + "\n"


def _check_sum(name: str, step: int, value: float, timestamp: int) -> int:
    return zlib.crc32(f"{name} {step} {value!r} {timestamp}".encode())


def _read_row(line: bytes) -> Row | None:
    try:
        content = json.loads(line)
        name, step, value, timestamp = (content[key] for key in ("name", "step", "value", "timestamp"))
    except (ValueError, TypeError, KeyError):
        return None
    right = (
        isinstance(name, str)
        and _METRIC_NAME.fullmatch(name) is not None
        # bool is an int to Python
        and all(type(number) is int and number >= 0 for number in (step, timestamp))
        and type(value) in (int, float)
        # also whole numbers that no float holds
        and abs(value) <= sys.float_info.max
        # rows of earlier versions have none
        and content.get("crc", crc := _check_sum(name, step, float(value), timestamp)) == crc
    )
    return Row(name=name, step=step, value=float(value), timestamp=timestamp) if right else None
