"""A run as a job of SLURM: started on its node, ended in order, taken up again by the job's next start.

What it prints, records of its progress among it, and how it ended are files that the study's process reads,
so that only that process writes to MLflow.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.storage import (
    ERRORS_FOLDER,
    PROGRESS_RECORDS,
    SEND_LATER,
    TERMINATED,
    make_folder,
    write_json,
)
from harness.studies.slurm_commands import job_state, requeue

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission
else:
    DelayedSubmission = Any

LOG, ENDED = "log.txt", "ended.json"
GRACE = 60.0  # seconds that a run which is told to end may take
SECONDS_BETWEEN_RECORDS = "15"
# sent to all processes of a job before its time is up; NCCL uses the first for itself
_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class SlurmRun:
    """A run, as submitit stores and calls it.

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
    _running: list[subprocess.Popen[bytes]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def __call__(self) -> None:
        """Run to the end; a run that fails ends the job with its exit status."""
        make_folder(self.folder)
        (self.folder / ENDED).unlink(missing_ok=True)
        try:
            status = self._run()
        except Exception as error:  # of submitit, when the time was up too often
            self._write_end(TERMINATED, str(error))
            raise
        if status == TERMINATED and job_state(os.environ["SLURM_JOB_ID"]) == "RUNNING":
            # SLURM means to preempt the job, and would take its early end for the last
            requeue(os.environ["SLURM_JOB_ID"])
        else:
            self._write_end(status)
        if status:
            sys.exit(status)

    def checkpoint(self) -> DelayedSubmission:
        """End the run, for submitit to queue the job again; the run itself keeps what it needs to resume."""
        from submitit.core.utils import DelayedSubmission

        self._end()
        return DelayedSubmission(replace(self))

    def _run(self) -> int:
        with tempfile.TemporaryDirectory() as errors, (self.folder / LOG).open("ab") as log:
            # a run with a folder for errors ends when this process does
            own = {PROGRESS_RECORDS: SECONDS_BETWEEN_RECORDS, SEND_LATER: "1", ERRORS_FOLDER: errors}
            process = subprocess.Popen(
                self.command,
                cwd=self.working_folder,
                env=os.environ | self.variables | own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_ignore_warnings,
            )
            self._running.append(process)
            try:
                code = process.wait()
            finally:
                self._end()
        return code if code >= 0 else 128 - code  # as shells write a signal

    def _end(self) -> None:
        """End what runs, in order; not by `Popen`, whose lock the code that a signal interrupts may hold."""
        for process in self._running:
            for number in (signal.SIGTERM, signal.SIGKILL):
                deadline = time.monotonic() + GRACE
                if not _has_ended(process.pid):
                    os.kill(process.pid, number)
                while not _has_ended(process.pid) and time.monotonic() < deadline:
                    time.sleep(0.05)

    def _write_end(self, status: int, reason: str = "") -> None:
        write_json(self.folder / ENDED, {"status": status, "reason": " ".join(reason.split())})


def _has_ended(child: int) -> bool:
    try:
        # leaves its status to who waits for it
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _ignore_warnings() -> None:
    for number in _WARNINGS:
        signal.signal(number, signal.SIG_IGN)
