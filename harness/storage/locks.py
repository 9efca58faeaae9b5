"""Locks between processes, also on file systems that have none.

A lock is `flock` on its file, in which the holder notes host, process and time. Some network file systems
have no flock (NFS without its lock service, Lustre, some of FUSE). There a second file, ``<lock>.held``, is
created by one process only, and removed at the end. One left by a process of this host that is dead is taken
over. Of a process on another host nobody here knows whether it lives, so the user is told.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

WITHOUT_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
PAUSE = 0.05  # seconds between tries
SILENCE = 10.0  # seconds of waiting until a line says what for


@contextmanager
def hold_lock(path: Path, wait: int | float | None = None) -> Iterator[None]:
    """Hold a lock against other processes, and against other threads of this one.

    Parameters
    ----------
    path : Path
        File of the lock, in a folder that exists. It stays.
    wait : number, optional
        Seconds to wait for another holder; by default without end.

    Raises
    ------
    TimeoutError
        If another process holds the lock for longer; it names the file, the holder and the time.
    OSError
        If the file cannot be written.
    """
    start, said = time.monotonic(), False
    while (release := _take(path)) is None:
        waited = time.monotonic() - start
        if wait is not None and waited >= wait:
            raise TimeoutError(_describe(path))
        if waited >= SILENCE and not said:
            log.warning("warning: waiting for %s", _describe(path))
            said = True
        time.sleep(PAUSE)
    try:
        yield
    finally:
        release()


def _take(path: Path) -> Callable[[], None] | None:
    """Take a lock and return what gives it back; None if another holds it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if error.errno in WITHOUT_FLOCK:
            return _create(_held(path))
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return None
        raise
    if not os.fstat(file).st_nlink:  # deleted since it was opened: the next one would lock another file
        os.close(file)
        return None
    os.ftruncate(file, 0)
    os.pwrite(file, _note(), 0)

    def release() -> None:
        os.ftruncate(file, 0)
        fcntl.flock(file, fcntl.LOCK_UN)  # copies of the descriptor in forked processes would keep it
        os.close(file)

    return release


def _create(held: Path) -> Callable[[], None] | None:
    """Create the file that stands for a lock; None if there is one of a process that may live."""
    _remove_left_over(held)
    try:
        file = os.open(held, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return None
    try:
        os.write(file, _note())
    finally:
        os.close(file)
    return lambda: held.unlink(missing_ok=True)


def _remove_left_over(held: Path) -> None:
    """Remove the file of a process of this host that is dead."""
    note = _read(held)
    if note.get("host") != socket.gethostname() or _lives(note.get("process")):
        return
    aside = held.with_name(f"{held.name}.{os.getpid()}")
    with suppress(FileNotFoundError):  # another process was faster
        held.rename(aside)
        if _read(aside) != note:  # and holds the lock already
            with suppress(FileExistsError):
                os.link(aside, held)
        aside.unlink()


def _lives(process: Any) -> bool:
    if type(process) is not int or process <= 0:
        return True  # unknown
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _held(path: Path) -> Path:
    return path.with_name(f"{path.name}.held")


def _note() -> bytes:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": now}).encode()


def _read(file: Path) -> dict[str, Any]:
    try:
        note = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _describe(path: Path) -> str:
    """Say which lock is held, by whom and since when, and what to do if the holder may be gone."""
    held = _held(path)
    file = held if held.exists() else path
    note = _read(file)
    host = note.get("host", "an unknown host")
    found = f"{file}: held by process {note.get('process', '?')} on {host} since {note.get('since', '?')}"
    # the kernel frees what processes of this host have locked
    if file == held or host != socket.gethostname():
        found += "; if it no longer runs, delete this file"
    return found
