"""One line for the progress of a whole study: runs done, what the others do, the time left."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable

from harness.studies.pool import Job, Listener

TRAINING_SHARE = 0.15
"""Share of a run's time before tracking begins, for the estimate of the time left."""
MOST_NAMED = 8  # runs in a line
SECONDS_BETWEEN_LINES = 60.0  # where there is no terminal
_ITEM = re.compile(r"tracking (\d+)/(\d+): ")
_ENDINGS = ("interrupted", "terminated")  # the study says so once


class StudyProgress(Listener):
    """Prints what runs print, and a line of progress: rewritten on a terminal, now and then in a log.

    Parameters
    ----------
    n_jobs : int
        Runs to do.
    clock : function
        Gives seconds.
    """

    def __init__(self, n_jobs: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._n_jobs, self._stream, self._clock = n_jobs, sys.stderr, clock
        self._began = self._written = clock()
        self._stage: dict[str, str] = {}
        self._share: dict[str, float] = {}
        self._ended = 0
        self._live = self._stream.isatty()

    def began(self, job: Job) -> None:
        """Name the run that begins."""
        self._stage[job.title], self._share[job.title] = "starting", 0.0
        self._print(job.title)

    def heard(self, job: Job, label: str, n: int, total: int | None) -> None:
        """Note how far a run is."""
        done = n / total if total else 0.0
        item = _ITEM.match(label)
        if label == "fine-tuning":
            self._share[job.title] = TRAINING_SHARE * done
            label += f" {n}/{total}"
        elif item is not None:
            place, n_items = int(item[1]), int(item[2])
            self._share[job.title] = TRAINING_SHARE + (1 - TRAINING_SHARE) * (place - 1) / n_items
        self._stage[job.title] = label
        self._show()

    def printed(self, job: Job, line: str) -> None:
        """Pass a line on."""
        if line.strip() and line not in _ENDINGS:
            place = job.title.split()[0] if job.title.startswith("[") else job.title
            self._print(f"{place} {line}")

    def ended(self, job: Job, status: int) -> None:
        """Count a run that has ended."""
        del self._stage[job.title]
        self._share[job.title] = 1.0
        self._ended += 1
        self._show()

    def waited(self) -> None:
        """Renew the time left."""
        self._show()

    def close(self) -> None:
        """Take the line away."""
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def describe(self) -> str:
        """Write the line."""
        took = self._clock() - self._began
        share = sum(self._share.values())
        left = took * (self._n_jobs - share) / share if share > 0.05 else None
        parts = [f"{self._ended} of {self._n_jobs} runs done", f"{_minutes(took)} so far"]
        if left is not None:
            parts.append(f"about {_minutes(left)} left")
        stages = [f"{title.split()[0]} {stage}" for title, stage in self._stage.items()]
        parts += stages[:MOST_NAMED]
        if len(stages) > MOST_NAMED:
            parts.append(f"and {len(stages) - MOST_NAMED} more")
        return " · ".join(parts)

    def _show(self) -> None:
        now = self._clock()
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\x1b[K{self.describe()[:width]}")
            self._stream.flush()
        elif now - self._written >= SECONDS_BETWEEN_LINES:
            self._written = now
            self._print(self.describe())

    def _print(self, line: str) -> None:
        self.close()
        self._stream.write(f"{line}\n")
        self._stream.flush()


def _minutes(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02} h" if hours else f"{rest // 60}:{rest % 60:02}"
