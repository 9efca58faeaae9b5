"""Runs of a study as job arrays of SLURM: submitted once, followed, taken up again."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from harness.config import SlurmConfig, StudyConfig
from harness.runs import is_finished
from harness.storage import (
    TERMINATED,
    InputError,
    hold_lock,
    make_folder,
    read_json,
    write_json,
)
from harness.studies.pool import Job, Listener
from harness.studies.run_process import (
    COMMAND,
    ORDERED,
    RunLog,
    log_size,
    name_variables,
)
from harness.studies.slurm_commands import check_slurm, list_queue, requeue
from harness.studies.slurm_run import (
    ENDED,
    SlurmRun,
)

FOLDER = ".slurm"
"""Folder of a study with its jobs: their numbers, submitit's files, and one folder per run."""
EXTRA = "palimpsest[slurm]"
LOOKS = 3  # at a queue without a job, until its files count as complete on a shared file system


@dataclass(frozen=True)
class Submitted:
    """A run's job.

    Attributes
    ----------
    job : Job
    number : str
        Of SLURM: ``12_3`` in an array, else ``12``.
    is_new : bool
        Whether it was submitted now, and not by an earlier call.
    printed : int
        Bytes of its log that are older.
    """

    job: Job
    number: str
    is_new: bool
    printed: int


def submit_missing(
    jobs: Sequence[Job], study: Path, config: StudyConfig, command: Sequence[str] = COMMAND
) -> list[Submitted]:
    """Submit the runs that are not in the queue, as one job array, or more if `array_size` asks for it.

    Parameters
    ----------
    jobs : sequence of Job
        Of unfinished runs, with their folders.
    study : Path
        Folder of the study, which all nodes see.
    config : StudyConfig
    command : sequence of str
        That the arguments of a job follow.

    Raises
    ------
    InputError
        If submitit or SLURM is missing, or refuses the jobs.
    """
    executor = _open_submitit(study, config)
    place, name = study / FOLDER, _job_name(config)
    by_run = {_run_of(job): job for job in jobs}
    # before a new job adds to them
    old = {run: log_size(place / run.name) for run in by_run}
    with hold_lock(place / ".lock"):  # two calls at a time would submit everything twice
        register = place / "jobs.json"
        known: dict[str, str] = read_json(register) if register.exists() else {}
        queue = list_queue(name)
        if queue is None:
            raise InputError("study.launcher: squeue does not answer, expected a SLURM cluster at work")
        new = [job for job in jobs if known.get(_run_of(job).name) not in queue]
        size = config.slurm.array_size
        for start in range(0, len(new), size):
            chunk = new[start : start + size]
            for job in chunk:
                (place / _run_of(job).name / ENDED).unlink(missing_ok=True)
            numbers = _submit(executor, [_as_slurm_run(job, command, place, config.slurm) for job in chunk])
            known |= dict(zip([_run_of(job).name for job in chunk], numbers, strict=True))
            write_json(register, known)
    fresh = {_run_of(job) for job in new}
    return [Submitted(job, known[run.name], run in fresh, old[run]) for run, job in by_run.items()]


def follow(
    submitted: Sequence[Submitted], study: Path, config: StudyConfig, listener: Listener
) -> Iterator[tuple[Job, int]]:
    """Yield every job and its run's exit status, in the order in which they end.

    A run that is killed without a word is queued again, `retries` times.

    Parameters
    ----------
    submitted : sequence of Submitted
    study : Path
    config : StudyConfig
    listener : Listener
    """
    left = [_Followed(one, study / FOLDER / _run_of(one.job).name) for one in submitted]
    silent = False
    while left:
        queue = list_queue(_job_name(config))
        if queue is None and not silent:
            listener.printed(left[0].job, "warning: squeue does not answer; runs go on without it")
        silent = queue is None
        for one in list(left):
            status = one.look(queue, config.slurm.retries, listener)
            if status is not None:
                left.remove(one)
                listener.ended(one.job, status)
                yield one.job, status
        if left:
            _wait(config.slurm.period, listener)


class _Followed:
    """A run in the queue, and what has been heard of it."""

    def __init__(self, submitted: Submitted, folder: Path) -> None:
        self.job, self._number, self._folder = submitted.job, submitted.number, folder
        self._log = RunLog(self.job, folder, submitted.printed)
        self._state: str | None = None
        self._missed = self._retried = 0

    def look(self, queue: Mapping[str, str] | None, retries: int, listener: Listener) -> int | None:
        """Tell what is new; return the exit status of a run that has ended."""
        finished = is_finished(_run_of(self.job))
        state = None if queue is None else queue.get(self._number)
        if finished or state == "RUNNING":
            self._log.begin(listener)
        # its last lines come after its last file
        whole = finished and (state is None or (self._folder / ENDED).exists())
        self._tell(state, listener)
        if whole:
            return 0
        if queue is None or state is not None:
            self._missed = 0
            return None
        self._missed += 1
        if self._missed < LOOKS:
            return None
        self._log.begin(listener)
        status, reason = self._read_end()
        if status > 128 and status not in ORDERED and self._retried < retries and requeue(self._number):
            self._retried, self._missed = self._retried + 1, 0
            listener.printed(self.job, f"{reason or 'killed'}; queued again as job {self._number}")
            self._state = "PENDING"
            return None
        if reason:
            listener.printed(self.job, reason)
        return status

    def _tell(self, state: str | None, listener: Listener) -> None:
        if state == "PENDING" and self._log.begun and self._state != "PENDING":
            listener.printed(self.job, f"in the queue again as job {self._number}")
        if state == "PENDING" and self._log.begun:
            listener.heard(self.job, "in the queue again", 0, None)
        self._state = state or self._state
        self._log.tell(listener)

    def _read_end(self) -> tuple[int, str]:
        """Return the exit status that the job has noted, else that of a process which was killed."""
        try:
            found = read_json(self._folder / ENDED)
        except InputError:
            found = None  # not there
        if found is None and self._state in (None, "PENDING"):
            return TERMINATED, f"job {self._number} was cancelled before it began"
        if found is None:
            return 137, f"job {self._number} ended without a word"
        # the run says itself that it has finished
        return found["status"] or 1, found["reason"]


def _open_submitit(study: Path, config: StudyConfig) -> Any:
    check_slurm()
    try:
        import submitit
    except ModuleNotFoundError as error:
        if error.name != "submitit":
            raise
        raise InputError(
            f"study.launcher: found slurm, which needs submitit: pip install '{EXTRA}'"
        ) from None
    folder = study / FOLDER / "submitit"
    make_folder(folder)
    settings = config.slurm
    executor = submitit.SlurmExecutor(folder, max_num_timeout=settings.timeouts)
    optional = {"partition": settings.partition, "account": settings.account, "qos": settings.qos}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        executor.update_parameters(
            job_name=_job_name(config),
            time=settings.time,
            nodes=1,
            ntasks_per_node=1,
            cpus_per_task=settings.cpus_per_task,
            mem=f"{round(settings.memory * 1024)}M",
            signal_delay_s=settings.signal,
            array_parallelism=config.workers or settings.array_size,
            # since 22.05 srun asks for one core if it is not told
            srun_args=[f"--cpus-per-task={settings.cpus_per_task}"],
            setup=settings.setup or None,
            wckey=None,  # submitit's own is unknown to clusters that check them
            additional_parameters={"requeue": True} | settings.extra,
            # a run has one task, and its node
            **({"gpus_per_node": settings.gpus_per_task} if settings.gpus_per_task else {}),
            **{name: value for name, value in optional.items() if value is not None},
        )
    return executor


def _submit(executor: Any, runs: list[SlurmRun]) -> list[str]:
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        # submitit prints what its error says
        with redirect_stderr(StringIO()):
            return [str(job.job_id) for job in executor.submit_array(runs)]
    except (FailedJobError, FailedSubmissionError) as error:
        said = [line.removeprefix("sbatch: error: ").strip() for line in str(error).splitlines()]
        found = "; ".join(filter(None, said)) or "sbatch has failed without a word"
        raise InputError(f"study.slurm: {found}") from None


def _as_slurm_run(job: Job, command: Sequence[str], place: Path, settings: SlurmConfig) -> SlurmRun:
    return SlurmRun(
        (*command, *job.arguments),
        name_variables(settings.cpus_per_task // max(1, settings.gpus_per_task)),
        (place / _run_of(job).name).absolute(),
        Path.cwd(),
    )


def _job_name(config: StudyConfig) -> str:
    return f"palimpsest-{config.name}"


def _run_of(job: Job) -> Path:
    assert job.run is not None
    return job.run


def _wait(seconds: float, listener: Listener) -> None:
    end = time.monotonic() + seconds
    while (rest := end - time.monotonic()) > 0:
        time.sleep(min(1.0, rest))
        listener.waited()
