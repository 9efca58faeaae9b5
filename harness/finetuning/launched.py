"""How this process was launched: its threads, and the processes it works with."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import joblib
import psutil

from harness.storage import InputError

# set by `accelerate launch` and torchrun in each of their processes
LAUNCHER_VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_NUMBERS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT")
# set by MPI, which accelerate understands too
_MPI_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
SECONDS_UNTIL_NOTICE = 15.0
LONGEST_WAIT = timedelta(minutes=10)  # for processes that import from a slow disk
# processes wait for each other while one fits mappings
LONGEST_WORK = timedelta(hours=12)


def count_given_cores() -> int:
    """Count the threads that the user, a job scheduler or a container allows this process.

    ``OMP_NUM_THREADS`` decides if the user has set it. Else it is this process's share of the cores that
    processor affinity and control groups leave to it.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if wanted.isdecimal() and int(wanted) > 0 and not _threads_are_the_launchers():
        return int(wanted)
    return max(1, joblib.cpu_count() // int(os.environ.get("WORLD_SIZE") or "1"))


def use_given_cores() -> None:
    """Let torch use the threads of `count_given_cores`."""
    import torch

    torch.set_num_threads(count_given_cores())


def _threads_are_the_launchers() -> bool:
    """Whether ``OMP_NUM_THREADS`` is a default of the launcher, which sets it to 1, and not the user's."""
    if not any(name.startswith(("ACCELERATE_", "TORCHELASTIC_")) for name in os.environ):
        return False
    try:
        launcher = psutil.Process(os.getppid())
        # as the launcher itself was started
        return "OMP_NUM_THREADS" not in launcher.environ() and not any(
            argument.replace("-", "_").startswith("__num_cpu_threads_per_process")
            for argument in launcher.cmdline()
        )
    except psutil.Error:
        return False


def check_launcher_variables() -> None:
    """Refuse a launcher's variables that no launcher has set: the process would wait for others forever.

    Raises
    ------
    InputError
        If a variable is no whole number, ``RANK`` is not below ``WORLD_SIZE``, or a launch of several
        processes lacks some of them.
    """
    found = {name: os.environ[name] for name in LAUNCHER_VARIABLES if name in os.environ}
    if not found or any(name in os.environ for name in _MPI_VARIABLES):
        return
    cure = f"; if no launcher has started this process: unset {' '.join(found)}"
    for name in _NUMBERS:
        if name in found and not found[name].isdecimal():
            raise InputError(f"environment: {name}={found[name]!r}, expected a whole number{cure}")
    size = int(found.get("WORLD_SIZE", "1"))
    if int(found.get("RANK", "0")) >= size:
        raise InputError(
            f"environment: RANK={found.get('RANK', 0)}, expected less than WORLD_SIZE={size}{cure}"
        )
    missing = [name for name in LAUNCHER_VARIABLES if not found.get(name)]
    if missing and (size > 1 or "LOCAL_RANK" in found):
        given = ", ".join(f"{name}={text}" for name, text in found.items())
        raise InputError(f"environment: {given} without {', '.join(missing)}{cure}")


def join_launch() -> None:
    """Meet the other processes of this launch, before anything is loaded.

    Raises
    ------
    InputError
        If they do not all come within `LONGEST_WAIT`.
    """
    check_launcher_variables()
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size < 2 or not os.environ.get("RANK"):
        return
    import torch
    from torch.distributed.rendezvous import rendezvous

    if torch.distributed.is_initialized():
        return
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    waited_for = f"{size} processes (WORLD_SIZE={size}) at {address}"
    cure = f"if no launcher has started this process: unset {' '.join(LAUNCHER_VARIABLES)}"
    with _notice(f"waiting for {waited_for}; {cure}"):
        try:
            store, rank, size = next(rendezvous("env://", timeout=LONGEST_WAIT))
        except (RuntimeError, ValueError) as error:  # torch's DistError is a RuntimeError
            first = str(error).splitlines()[0]
            raise InputError(f"launch: {waited_for} did not meet: {first}; {cure}") from None
    store.set_timeout(LONGEST_WORK)
    torch.distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        timeout=LONGEST_WORK,
    )


@contextmanager
def _notice(message: str) -> Iterator[None]:
    """Print a message if the block takes long."""
    timer = threading.Timer(SECONDS_UNTIL_NOTICE, lambda: print(message, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
