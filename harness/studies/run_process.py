"""A run below a scheduler: a process of its own whose output is a file, which the study's process reads.

Records of its progress are in that file too, so that only the study's process writes to MLflow.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.config import PACKAGE_FOLDER
from harness.storage import (
    ERRORS_FOLDER,
    INTERRUPTED,
    PROGRESS_RECORDS,
    SEND_LATER,
    TERMINATED,
)
from harness.studies.pool import Job, Listener, tell

LOG = "log.txt"
GRACE = 60.0  # seconds that a run which is told to end may take
PERIOD = 0.1  # seconds between two looks at a run
SECONDS_BETWEEN_RECORDS = "15"
ORDERED = (TERMINATED, INTERRUPTED)
"""Exit statuses of runs that were told to end; others above 128 are of runs that were killed."""
COMMAND = (sys.executable, str(PACKAGE_FOLDER / "cli.py"), "finetune")


@dataclass(frozen=True)
class RunCommand:
    """A run, as a scheduler stores it.

    Attributes
    ----------
    command : tuple of str
    variables : mapping of str to str
        Of the environment, beside those of the job.
    folder : Path
        For the files that the study reads.
    working_folder : Path
        Where the study was started.
    """

    command: tuple[str, ...]
    variables: dict[str, str]
    folder: Path
    working_folder: Path


def name_variables(n_threads: int) -> dict[str, str]:
    """Name what a run's environment needs: a cluster may hand on no variables, or those of a login node."""
    own = {name: value for name, value in os.environ.items() if name.startswith("PALIMPSEST_")}
    return own | {"OMP_NUM_THREADS": str(max(1, n_threads))}


def run_logged(
    run: RunCommand,
    started: Callable[[subprocess.Popen[bytes]], None],
    before: Callable[[], None] | None = None,
) -> int:
    """Run to the end with all output in the log; return the exit status, as shells write it.

    Parameters
    ----------
    run : RunCommand
        Its folder exists.
    started : function of the process
        Called once, so that others can end it.
    before : function, optional
        Called in the new process first.
    """
    with tempfile.TemporaryDirectory() as errors, (run.folder / LOG).open("ab") as log:
        # a run with a folder for errors ends when this process does
        own = {PROGRESS_RECORDS: SECONDS_BETWEEN_RECORDS, SEND_LATER: "1", ERRORS_FOLDER: errors}
        process = subprocess.Popen(
            run.command,
            cwd=run.working_folder,
            env=os.environ | run.variables | own,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=before,
        )
        started(process)
        try:
            # not one long wait, which Ray cannot interrupt
            while not _has_ended(process.pid):
                time.sleep(PERIOD)
        finally:
            end_in_order(process)
        code = process.wait()
    return code if code >= 0 else 128 - code


def end_in_order(process: subprocess.Popen[bytes]) -> None:
    """End a process, unless it has ended; not by `Popen`, whose lock interrupted code may hold."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE
        if not _has_ended(process.pid):
            os.kill(process.pid, number)
        while not _has_ended(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)


def _has_ended(child: int) -> bool:
    try:
        # leaves its status to who waits for it
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


class RunLog:
    """Tells a listener what a run prints, from its log, and once that it has begun.

    Parameters
    ----------
    job : Job
    folder : Path
        Of the log.
    read : int, optional
        Bytes that are older; None: all that are there now.

    Attributes
    ----------
    begun : bool
        Whether the listener knows of the run.
    """

    def __init__(self, job: Job, folder: Path, read: int | None = None) -> None:
        self._job, self._file, self.begun = job, folder / LOG, False
        self._read = log_size(folder) if read is None else read

    def begin(self, listener: Listener) -> None:
        """Tell that the run has begun, unless the listener knows."""
        if not self.begun:
            listener.began(self._job)
        self.begun = True

    def tell(self, listener: Listener) -> None:
        """Tell the whole lines that have come since the last call."""
        try:
            with self._file.open("rb") as log:
                log.seek(self._read)
                found = log.read()
        except OSError:
            return
        lines = found[: found.rfind(b"\n") + 1]
        self._read += len(lines)
        if lines:
            self.begin(listener)
        # not splitlines, which takes the mark of a record for the end of a line
        for line in lines.decode(errors="replace").split("\n")[:-1]:
            tell(self._job, line, listener)


def log_size(folder: Path) -> int:
    """Bytes of a log, 0 if there is none."""
    file = folder / LOG
    return file.stat().st_size if file.exists() else 0
