"""Run entry points side by side, each in a process of its own.

Processes are forked from one that has imported everything and started nothing (`multiprocessing`'s fork
server), so only the first waits for imports.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
from threadpoolctl import threadpool_limits

from harness.storage import (
    PROGRESS_RECORDS,
    RECORD_MARK,
    exit_with_one_line,
)

BYTES_PER_RUN = 4 * 2**30
"""Main memory that a run on a CPU is given, when the number of runs side by side is chosen."""
SECONDS_BETWEEN_RECORDS = "0.5"
IMPORTED = (
    "torch",
    "accelerate",
    "timm",
    "open_clip",
    "mlflow.entities",
    "mlflow.store.tracking.sqlalchemy_store",
    "harness.backbones.backbone",
    "harness.commands.finetune",
    "harness.finetuning.loop",
    "harness.finetuning.reuse",
    "harness.tracking.tracker",
    "harness.tracking.store.tracked_run",
)
"""Modules that are imported once for all runs of a study; none starts threads or a GPU."""


@dataclass(frozen=True)
class Layout:
    """How many runs go side by side, and what each may use.

    Attributes
    ----------
    workers : int
        Runs at a time.
    threads : int
        Threads of each.
    gpus : int
        0: none. Else run k of a wave uses GPU k alone.
    """

    workers: int
    threads: int
    gpus: int = 0


def choose_layout(n_runs: int, n_cores: int, n_gpus: int, memory: int, workers: int | None = None) -> Layout:
    """Choose how many runs go side by side.

    With GPUs, one each. Without, cores are shared evenly if there are fewer runs than cores. Else every run
    has one thread, and somewhat more runs than cores take turns if that spares a last wave which leaves cores
    idle: 3 runs on 2 cores start together.

    Parameters
    ----------
    n_runs, n_cores, n_gpus : int
        `n_runs` and `n_cores` at least 1.
    memory : int
        Free main memory, bytes.
    workers : int, optional
        What the user wants.
    """
    if workers is None:
        fitting = n_gpus if n_gpus else max(1, memory // BYTES_PER_RUN)
        waves = max(1, n_runs // (n_gpus or n_cores))
        workers = min(-(-n_runs // waves), fitting)
    workers = max(1, min(workers, n_runs))
    return Layout(workers, max(1, n_cores // workers), n_gpus)


def free_memory() -> int:
    """Measure the main memory that new processes can use, bytes."""
    return int(psutil.virtual_memory().available)


@dataclass(frozen=True)
class Job:
    """A run of an entry point.

    Attributes
    ----------
    title : str
        As in messages.
    arguments : sequence of str
        Of the entry point.
    run : Path, optional
        Folder of the run, for who waits for it there.
    """

    title: str
    arguments: Sequence[str]
    run: Path | None = None


class Listener:
    """What a pool tells while it works; every method does nothing here."""

    def began(self, job: Job) -> None:
        """A job has begun."""

    def heard(self, job: Job, label: str, n: int, total: int | None) -> None:
        """A job tells its progress: `n` of `total` units of what `label` names."""

    def printed(self, job: Job, line: str) -> None:
        """A job has printed a line."""

    def ended(self, job: Job, status: int) -> None:
        """A job has ended with an exit status."""

    def waited(self) -> None:
        """Nothing has happened for a while."""


def prepare_server() -> None:
    """Start the process that runs are forked from, so that it imports while this process does other work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    # its libraries read this when they are loaded; each run sets its own number
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def run_jobs(name: str, jobs: Iterable[Job], layout: Layout, listener: Listener) -> dict[str, int]:
    """Run an entry point once per job; return the exit statuses by title.

    After Ctrl-C, which reaches the runs too, no new one begins. If this process ends early, so do the runs.

    Parameters
    ----------
    name : str
        Of a module of `harness.commands`.
    """
    prepare_server()
    context = multiprocessing.get_context("forkserver")
    waiting, running = list(jobs), list[_Running]()
    statuses: dict[str, int] = {}
    gpus = list(range(layout.gpus))
    variables = dict(os.environ) | {
        "OMP_NUM_THREADS": str(layout.threads),
        PROGRESS_RECORDS: SECONDS_BETWEEN_RECORDS,
    }
    interrupts = _Interrupts()
    try:
        while running or (waiting and not interrupts):
            while waiting and len(running) < layout.workers and not interrupts:
                gpu = gpus.pop(0) if gpus else None
                own = variables if gpu is None else variables | {"CUDA_VISIBLE_DEVICES": _name_gpu(gpu)}
                running.append(_start(context, name, waiting.pop(0), own, gpu))
                listener.began(running[-1].job)
            ready = wait([end for run in running for end in run.ends()], timeout=1.0)
            if not ready:
                listener.waited()
            for run in list(running):
                if run.output in ready:
                    run.read(listener)
                if run.process.sentinel in ready:
                    run.drain(listener)
                    statuses[run.job.title] = run.status()
                    listener.ended(run.job, statuses[run.job.title])
                    running.remove(run)
                    if run.gpu is not None:
                        gpus.append(run.gpu)
    finally:
        for run in running:
            run.process.terminate()
        for run in running:
            run.process.join()
        interrupts.restore()
    if interrupts:
        raise KeyboardInterrupt
    return statuses


def _name_gpu(place: int) -> str:
    """Name a GPU in ``CUDA_VISIBLE_DEVICES``, which may already choose among those of the machine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[place] if visible else str(place)


class _Interrupts:
    """Counts Ctrl-C instead of raising it: the runs, which get it too, end first."""

    def __init__(self) -> None:
        self._n = 0
        # an empty handler and not SIG_IGN, which the runs would inherit
        self._before = (
            signal.signal(signal.SIGINT, self._count)
            if threading.current_thread() is threading.main_thread()
            else None
        )

    def _count(self, *_: object) -> None:
        self._n += 1

    def __bool__(self) -> bool:
        return self._n > 0

    def restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


@dataclass
class _Running:
    """A job's process, and what it has printed."""

    job: Job
    process: BaseProcess
    output: Connection
    gpu: int | None
    rest: bytes = b""
    open: bool = True

    def ends(self) -> list[Connection | int]:
        return [self.process.sentinel, *([self.output] if self.open else [])]

    def read(self, listener: Listener) -> None:
        found = os.read(self.output.fileno(), 1 << 16)
        if not found:
            self.open = False
        *lines, self.rest = (self.rest + found).split(b"\n")
        for line in lines:
            tell(self.job, line.decode(errors="replace"), listener)

    def drain(self, listener: Listener) -> None:
        """Read what is left; a process of its own that the run has left behind may keep the pipe open."""
        while self.open and self.output.poll():
            self.read(listener)
        if self.rest:
            tell(self.job, self.rest.decode(errors="replace"), listener)
        self.output.close()

    def status(self) -> int:
        self.process.join()
        code = self.process.exitcode or 0
        return code if code >= 0 else 128 - code  # as shells write a signal


def tell(job: Job, line: str, listener: Listener) -> None:
    """Tell what a line of a job's output is: a record of its progress, or a line for the reader."""
    if not line.startswith(RECORD_MARK):
        listener.printed(job, line)
        return
    record = json.loads(line[1:])
    listener.heard(job, record["label"], record["n"], record["total"])


def _start(
    context: multiprocessing.context.ForkServerContext,
    name: str,
    job: Job,
    variables: dict[str, str],
    gpu: int | None,
) -> _Running:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(name, list(job.arguments), variables, theirs))
    process.start()
    theirs.close()
    return _Running(job, process, ours, gpu)


def _run(name: str, arguments: list[str], variables: dict[str, str], output: Connection) -> None:
    """Be the process of a run."""
    sys.stdout.flush()
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    output.close()
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = [f"{name}.py", *arguments]
    threadpool_limits(int(variables["OMP_NUM_THREADS"]))
    threading.Thread(target=_end_with_the_study, daemon=True).start()
    module = importlib.import_module(f"harness.commands.{name}")
    main: Callable[[], object] = module.main
    exit_with_one_line(main)


def _end_with_the_study() -> None:
    """End this process as soon as the study's process is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        os.kill(os.getpid(), signal.SIGKILL)
