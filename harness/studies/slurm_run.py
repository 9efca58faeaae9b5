"""A run as a job of SLURM: started on its node, ended in order, taken up again by the job's next start.

How it ended is a file, as what it prints (`harness.studies.run_process`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.storage import (
    TERMINATED,
    make_folder,
    write_json,
)
from harness.studies.run_process import (
    RunCommand,
    end_in_order,
    run_logged,
)
from harness.studies.slurm_commands import job_state, requeue

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission
else:
    DelayedSubmission = Any

ENDED = "ended.json"
# sent to all processes of a job before its time is up; NCCL uses the first for itself
_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class SlurmRun(RunCommand):
    """A run, as submitit stores and calls it."""

    _running: list[subprocess.Popen[bytes]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def __call__(self) -> None:
        """Run to the end; a run that fails ends the job with its exit status."""
        make_folder(self.folder)
        (self.folder / ENDED).unlink(missing_ok=True)
        try:
            status = run_logged(self, self._running.append, _ignore_warnings)
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

        for process in self._running:
            end_in_order(process)
        return DelayedSubmission(replace(self))

    def _write_end(self, status: int, reason: str = "") -> None:
        write_json(self.folder / ENDED, {"status": status, "reason": " ".join(reason.split())})


def _ignore_warnings() -> None:
    for number in _WARNINGS:
        signal.signal(number, signal.SIG_IGN)
