"""How a process ends: in order after SIGTERM, and together with the process that launched it."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

# Processes of one launch share this folder and print each error once.
ERRORS_FOLDER = "PALIMPSEST_ERRORS_FOLDER"
# The process that started this one sends its rows to MLflow later.
SEND_LATER = "PALIMPSEST_SEND_LATER"
TERMINATED = 128 + signal.SIGTERM  # exit status after SIGTERM, as in shells
GRACE = 60.0  # seconds until a process that its launcher has left ends in the middle of its work
PERIOD = 0.5  # seconds between two looks at the launcher
_NAMES = ("accelerate", "accelerate-launch", "torchrun")
_MODULES = ("accelerate.commands.launch", "accelerate.commands.accelerate_cli", "torch.distributed.run")


class Terminated(KeyboardInterrupt):
    """SIGTERM has come: the process ends as it does after Ctrl-C."""


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Raise `Terminated` in the block after SIGTERM, or when the launcher of this process has ended.

    Has no effect outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:
            # a fork that does not run our code
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        # a second one, of a launcher or a scheduler, must not cut the end off
        signal.signal(number, lambda *_: None)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        with _following(find_launcher()):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def find_launcher() -> int | None:
    """Return the number of the process that launched this one, if its end is to end this one.

    That is a launch of ours, `accelerate launch` or `torchrun`, but not a shell or a scheduler.
    """
    parent = os.getppid()
    return parent if ERRORS_FOLDER in os.environ or _is_accelerate(parent) else None


def silence_launcher() -> None:
    """Keep `accelerate launch` from printing a traceback because this process has failed or was interrupted.

    With one process it waits for that alone, then raises a `CalledProcessError` whatever the status, and
    prints it below our line. No option of the environment prevents that, so it is ended: its own status is
    143 then, where it would be 1. With several processes torch's agent reports them, and is left alone.
    """
    if ERRORS_FOLDER in os.environ or any(name.startswith("TORCHELASTIC_") for name in os.environ):
        return
    launcher = os.getppid()
    if _is_accelerate(launcher):
        sys.stdout.flush()
        sys.stderr.flush()
        with suppress(OSError):
            os.kill(launcher, signal.SIGTERM)


def _is_accelerate(process: int) -> bool:
    if not any(name.startswith(("ACCELERATE_", "TORCHELASTIC_")) for name in os.environ):
        return False
    import psutil

    try:
        begin = psutil.Process(process).cmdline()[:4]
    except psutil.Error:
        return False
    return any(Path(part).name in _NAMES or part in _MODULES for part in begin)


@contextmanager
def _following(launcher: int | None) -> Iterator[None]:
    """End this process in order when its launcher has ended; the launcher silently after Ctrl-C."""
    if launcher is None:
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # tells of Ctrl-C at once, also while this thread computes; the launcher's traceback comes after 0.25 s
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    stop = threading.Event()
    threading.Thread(target=_follow, args=(launcher, reader, stop), name="launcher", daemon=True).start()
    try:
        yield
    finally:
        stop.set()
        signal.set_wakeup_fd(before)
        os.close(writer)


def _follow(launcher: int, reader: int, stop: threading.Event) -> None:
    while not stop.is_set():
        ready, _, _ = select.select([reader], [], [], PERIOD)
        received = os.read(reader, 64) if ready else b""
        if stop.is_set():
            break
        if signal.SIGINT in received:
            silence_launcher()
            break
        if os.getppid() != launcher:
            os.kill(os.getpid(), signal.SIGTERM)
            # the main thread may be waiting, in a library, for a process that is gone
            if not stop.wait(GRACE):
                os._exit(TERMINATED)
            break
    os.close(reader)
