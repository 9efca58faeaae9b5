"""Runs of a study as tasks of Ray: on a running cluster, or on a Ray of its own on this machine.

Ray places the runs where their cores and GPUs are free; the study starts those again whose process or node
is lost. Unlike jobs of SLURM, runs end with the study's process.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import TextIOBase
from pathlib import Path
from typing import Any, TextIO

from harness.config import RayConfig, StudyConfig
from harness.finetuning import count_given_cores
from harness.storage import InputError
from harness.studies.pool import Job, Listener
from harness.studies.ray_run import run_once
from harness.studies.run_process import (
    COMMAND,
    GRACE,
    ORDERED,
    RunCommand,
    RunLog,
    name_variables,
)

FOLDER = ".ray"
"""Folder of a study with one folder per run."""
EXTRA = "palimpsest[ray]"
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
"""No reports of usage to Ray's makers unasked; runs at the priority of other processes, not at the least."""
LISTENER = "ray_listen_error_messages"
"""Thread of Ray that prints errors; if it has another name one day, they are printed."""
PERIOD = 1.0  # seconds between two looks at the runs' output
OBJECTS = 80 * 2**20  # bytes of Ray's object store, which runs do not use; its least

log = logging.getLogger(__name__)


def run_on_ray(
    jobs: Sequence[Job],
    study: Path,
    config: StudyConfig,
    listener: Listener,
    command: Sequence[str] = COMMAND,
) -> Generator[tuple[Job, int]]:
    """Run jobs on Ray; yield every job and its run's exit status, in the order in which they end.

    If the generator is closed, or interrupted, the runs end in order.

    Parameters
    ----------
    jobs : sequence of Job
        Of unfinished runs, with their folders.
    study : Path
        Folder of the study, which all nodes see.
    config : StudyConfig
    listener : Listener
    command : sequence of str
        That the arguments of a job follow.

    Raises
    ------
    InputError
        If Ray is missing, does not answer, or has no node that is large enough.
    """
    ray = _import_ray()
    with redirect_stdout(_WithoutRay(sys.stdout)), _connected(ray, config.ray):
        _check_nodes(ray.nodes(), config.ray)
        task = ray.remote(run_once).options(**_options(config.ray))
        waiting = [_Run(job, _as_command(job, command, study, config.ray)) for job in jobs]
        running: dict[Any, _Run] = {}
        try:
            while waiting or running:
                while waiting and len(running) < (config.workers or len(jobs)):
                    run = waiting.pop(0)
                    running[task.remote(run.command, run.job.run, run.n_lost > 0)] = run
                ended, _ = ray.wait(list(running), timeout=PERIOD)
                for run in running.values():
                    run.log.tell(listener)
                for result in ended:
                    run = running.pop(result)
                    status = run.end(ray, result, config.ray.retries, listener)
                    if status is None:
                        waiting.insert(0, run)
                    else:
                        listener.ended(run.job, status)
                        yield run.job, status
                if not ended:
                    listener.waited()
        finally:
            for result in running:
                ray.cancel(result)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=GRACE)


class _WithoutRay(TextIOBase):
    """Standard output without what Ray prints of a lost process or node: tens of lines of its state."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if threading.current_thread().name != LISTENER:
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    @property
    def closed(self) -> bool:
        # Ray's colorama keeps this stream, and asks once more when Python exits
        return self._stream.closed


class _Run:
    """A run, and what has been heard of it."""

    def __init__(self, job: Job, command: RunCommand) -> None:
        self.job, self.command, self.n_lost = job, command, 0
        self.log = RunLog(job, command.folder)

    def end(self, ray: Any, result: Any, retries: int, listener: Listener) -> int | None:
        """Tell what it has printed last; return its exit status, None: it was lost and is to start again."""
        try:
            status, reason = int(ray.get(result)), "killed"
        except ray.exceptions.RayTaskError:
            raise  # a mistake of ours
        except ray.exceptions.RayError as error:
            status, reason = 137, f"lost by Ray ({type(error).__name__})"
        self.log.tell(listener)
        self.log.begin(listener)
        if status <= 128 or status in ORDERED:
            return status
        self.n_lost += 1
        if self.n_lost <= retries:
            listener.printed(self.job, f"{reason}; started again")
            listener.heard(self.job, "to start again", 0, None)
            return None
        listener.printed(self.job, f"{reason} {self.n_lost} times")
        return status


def _import_ray() -> Any:
    # read when it is imported; for a Ray of one's own
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise InputError(f"study.launcher: found ray, which needs Ray: pip install '{EXTRA}'") from None
    return ray


@contextmanager
def _connected(ray: Any, settings: RayConfig) -> Iterator[None]:
    """Connect to the cluster, or start a Ray of this machine's cores, for the block."""
    address = settings.address or os.environ.get("RAY_ADDRESS")
    own = {
        "num_cpus": count_given_cores(),
        "include_dashboard": False,
        "object_store_memory": OBJECTS,
    }
    try:
        ray.init(
            # "local": not one that happens to run here
            address=address or "local",
            log_to_driver=False,
            # what befalls a task is told by its run
            logging_level=logging.CRITICAL,
            **({} if address else own),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        found = str(error).strip().splitlines()[0]
        raise InputError(f"study.ray.address: {address or 'a Ray of its own'}: {found}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_nodes(nodes: Sequence[Mapping[str, Any]], settings: RayConfig) -> None:
    """Refuse runs that no node has room for; in a cluster, which may grow, warn of them."""
    wanted = {"CPU": settings.cpus_per_task, "GPU": settings.gpus_per_task, **settings.resources}
    sizes = [node["Resources"] for node in nodes if node["Alive"]]
    if any(all(size.get(name, 0) >= amount for name, amount in wanted.items()) for size in sizes):
        return
    asked = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items() if amount)
    there = "; ".join(
        ", ".join(f"{size.get(name, 0):g} {name}" for name, amount in wanted.items() if amount)
        for size in sizes
    )
    message = f"study.ray: found no node with {asked}, which a run asks for; there are: {there}"
    if settings.address or os.environ.get("RAY_ADDRESS"):
        log.warning("warning: %s; runs wait until there is one", message)
    else:
        raise InputError(message)


def _options(settings: RayConfig) -> dict[str, Any]:
    memory = {} if settings.memory is None else {"memory": round(settings.memory * 2**30)}
    return {
        "num_cpus": settings.cpus_per_task,
        "num_gpus": settings.gpus_per_task,
        "resources": settings.resources,
        # by us: Ray prints every lost task
        "max_retries": 0,
        **memory,
    }


def _as_command(job: Job, command: Sequence[str], study: Path, settings: RayConfig) -> RunCommand:
    assert job.run is not None
    return RunCommand(
        (*command, *job.arguments),
        name_variables(settings.cpus_per_task // max(1, settings.gpus_per_task)),
        (study / FOLDER / job.run.name).absolute(),
        Path.cwd(),
    )
