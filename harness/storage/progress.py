"""Progress of long work: a bar on a terminal, lines in a log, records for the study that runs it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

# A study that runs us reads records instead of drawing our bars: the seconds between two of them.
PROGRESS_RECORDS = "PALIMPSEST_PROGRESS_RECORDS"
RECORD_MARK = "\x1e"  # ASCII's record separator
SECONDS_BETWEEN_LINES = 30.0


class _Lines(tqdm):
    """Progress in whole lines, so that a log has no carriage returns."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        total = "" if self.total is None else f"/{self.total}"
        self._write(f"{self.desc}: {self.n}{total}")

    def set_postfix(self, ordered_dict: Any = None, refresh: bool | None = True, **values: Any) -> None:
        """Change what stands behind a bar, without a line for it."""
        super().set_postfix(ordered_dict, False, **values)

    def close(self) -> None:
        """End without a last line of its own."""
        self.leave = False
        super().close()

    def clear(self, nolock: bool = False) -> None:
        """Do nothing: a line that is written stays."""

    @staticmethod
    def _write(line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class _Records(_Lines):
    """Progress as JSON, for the study that runs this process."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        record = {"label": self.desc, "n": self.n, "total": self.total}
        self._write(RECORD_MARK + json.dumps(record))


def progress_bar(
    work: Iterable[Any] | None = None,
    label: str | None = None,
    *,
    total: int | None = None,
    initial: int = 0,
    unit: str = "it",
    leave: bool = False,
) -> tqdm:
    """Show the progress of iterating over `work`, or of calls of ``update``.

    On a terminal this is tqdm's bar. Elsewhere it is a line every `SECONDS_BETWEEN_LINES`, from then on.

    Parameters
    ----------
    work : iterable, optional
    label : str, optional
        What is being done. None: nothing is shown.
    total, initial : int
        Number of units in all, and of those done before; `total` is taken from `work` if that has a length.
    unit : str
        Name of a unit.
    leave : bool
        Whether a terminal keeps the bar when the work is done.
    """
    settings: dict[str, Any] = {"desc": label, "total": total, "initial": initial, "unit": unit}
    if label is None:
        return tqdm(work, disable=True, **settings)
    if PROGRESS_RECORDS in os.environ:
        return _Records(work, mininterval=float(os.environ[PROGRESS_RECORDS]), **settings)
    if sys.stderr.isatty():
        return tqdm(work, leave=leave, **settings)
    return _Lines(work, mininterval=SECONDS_BETWEEN_LINES, delay=SECONDS_BETWEEN_LINES, **settings)
