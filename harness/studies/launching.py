"""Launch an entry point: one process per GPU, by `accelerate launch` where one process is not enough.

Standard error then holds only what the run prints: not the launcher's defaults, log lines and tracebacks.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import yaml

from harness.config import PACKAGE_FOLDER
from harness.storage import (
    ERRORS_FOLDER,
    TERMINATED,
    hugging_face_home,
)


def accelerate_settings() -> Path:
    """Return the file that `accelerate config` writes, without importing accelerate, which takes seconds."""
    return hugging_face_home() / "accelerate" / "default_config.yaml"


def count_gpus() -> int:
    """Count the GPUs that torch sees, without importing it on machines that have no driver of any."""
    if "torch" not in sys.modules and not _has_driver():
        return 0
    import torch

    return torch.cuda.device_count()


def _has_driver() -> bool:
    # AMD's, or NVIDIA's as torch loads it
    if Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def launch_options() -> list[str] | None:
    """Choose the options of `accelerate launch`; None where one process without a launcher is enough.

    A configuration of accelerate that the user has written decides everything.
    """
    if accelerate_settings().exists():
        return []
    n_processes = count_gpus()
    if n_processes < 2:
        return None
    options = ["--multi_gpu", "--num_processes", str(n_processes), "--num_machines", "1"]
    # a free port, so that several runs fit on a machine
    return [*options, "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]


def count_processes() -> int:
    """Count the processes that `launch` starts: one per GPU, unless accelerate's configuration says other."""
    configured = accelerate_settings()
    if configured.exists():
        return int((yaml.safe_load(configured.read_text(encoding="utf-8")) or {}).get("num_processes", 1))
    return max(count_gpus(), 1)


def launch(name: str, arguments: Sequence[str]) -> int:
    """Run an entry point, ``harness/{name}.py``, in processes of its own; return its exit status."""
    script = str(PACKAGE_FOLDER / f"{name}.py")
    options = launch_options()
    with _one_message(), _leave_signals_to_the_run():
        if options is None:
            status = subprocess.run([sys.executable, script, *arguments]).returncode
        else:
            status = _launch_with_accelerate([*options, script, *arguments])
    # minus the number of a signal: as shells write it
    return status if status >= 0 else 128 - status


def _launch_with_accelerate(arguments: list[str]) -> int:
    """Run `accelerate launch` in this process: importing it in another would cost every run seconds."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    for logger in ("accelerate.commands.launch", "torch.distributed"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    try:
        launch_command(launch_command_parser().parse_args(arguments))
    except subprocess.CalledProcessError as error:
        return error.returncode
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode
    except SignalException as error:
        if error.sigval == signal.SIGTERM:
            raise SystemExit(TERMINATED) from None
        return -error.sigval
    return 0


@contextmanager
def _one_message() -> Iterator[None]:
    """Let the processes of a launch print an error that all of them meet once."""
    before = os.environ.get(ERRORS_FOLDER)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[ERRORS_FOLDER] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[ERRORS_FOLDER]
            else:
                os.environ[ERRORS_FOLDER] = before


@contextmanager
def _leave_signals_to_the_run() -> Iterator[None]:
    """Keep Ctrl-C, which reaches the run as well, from ending this process before the run has ended.

    SIGTERM is passed on to the run; when that has ended, so does this process.
    """
    terminated = False

    def pass_on(*_: object) -> None:
        nonlocal terminated
        terminated = True
        for child in psutil.Process().children():
            child.terminate()

    before = {
        # an empty handler and not SIG_IGN, which the run would inherit
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, pass_on),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if terminated:
        raise SystemExit(TERMINATED)  # the run has said so
