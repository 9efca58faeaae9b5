"""SLURM's own commands: what is in the queue, and what is to go there again."""

from __future__ import annotations

import shutil
import subprocess

from harness.storage import InputError

NEEDED = ("sbatch", "squeue", "scontrol", "srun")
LIMIT = 60.0  # seconds that a command may take
_ERRORS = (OSError, subprocess.SubprocessError)


def check_slurm() -> None:
    """Raise an `InputError` if SLURM's commands are not at hand."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        raise InputError(
            f"study.launcher: found slurm without {', '.join(missing)} on this machine, expected a login "
            "node of a cluster, or study.launcher=local"
        )


def list_queue(name: str) -> dict[str, str] | None:
    """Return the states of the user's jobs of a name, by number; None if SLURM does not answer.

    Parameters
    ----------
    name : str
        Of the jobs, so that a number of another cluster is not taken for one of this.

    Returns
    -------
    dict of str to str, or None
        ``{"12_0": "RUNNING", "12_1": "PENDING"}``. Jobs that have ended are not among them.
    """
    try:
        found = _call("squeue", "--me", "--noheader", "--array", "--format=%i|%T|%j")
    except _ERRORS:
        return None
    lines = (line.strip().split("|", 2) for line in found.splitlines() if line.count("|") >= 2)
    return {number: state for number, state, own in lines if own == name}


def job_state(number: str) -> str:
    """Return the state of a job in the queue, such as RUNNING; empty: it is not there, or no answer."""
    try:
        return _call("squeue", "--noheader", f"--jobs={number}", "--format=%T").strip()
    except _ERRORS:
        return ""


def requeue(number: str) -> bool:
    """Queue a job again that is running or has just ended; returns whether SLURM does."""
    try:
        _call("scontrol", "requeue", number)
    except _ERRORS:
        return False
    return True


def _call(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT).stdout
