"""A run as a task of Ray, on the node that Ray has chosen."""

from __future__ import annotations

from pathlib import Path

from harness.runs import wait_for_run
from harness.storage import make_folder
from harness.studies.run_process import (
    GRACE,
    RunCommand,
    run_logged,
)


def run_once(run: RunCommand, place: Path, again: bool) -> int:
    """Run to the end; return the exit status.

    Parameters
    ----------
    run : RunCommand
    place : Path
        Folder of the run's results.
    again : bool
        Whether Ray has lost an earlier start, whose process may still be saving what it has done.
    """
    make_folder(run.folder)
    if again:
        wait_for_run(place, 2 * GRACE)
    return run_logged(run, lambda process: None)
