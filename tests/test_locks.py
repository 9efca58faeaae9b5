"""Locks: one holder at a time, with flock and on file systems without it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.runs.layout import hold_run
from harness.storage import locks
from harness.storage.errors import InputError
from harness.storage.locks import hold_lock
from harness.storage.shared import hold_cached


@pytest.fixture(params=[None, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """Take flock away, by the error that file systems without it give."""
    if request.param is not None:
        without_flock(monkeypatch, request.param)
    return request.param


def without_flock(monkeypatch: pytest.MonkeyPatch, code: int = errno.ENOLCK) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", fail)


def leave_behind(lock: Path, host: str, process: int) -> Path:
    held = lock.with_name(f"{lock.name}.held")
    held.write_text(json.dumps({"host": host, "process": process, "since": "2026-01-02 03:04:05"}))
    return held


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_one_holder_at_a_time(flock: int | None, tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    holder = rf"held by process {os.getpid()} on {re.escape(socket.gethostname())} since 20\d\d-"
    with hold_lock(lock), pytest.raises(TimeoutError, match=holder), hold_lock(lock, wait=0):
        pass
    with hold_lock(lock, wait=0):  # free again
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.lock"] and not lock.read_bytes()


def test_waiting_ends_with_the_holder(flock: int | None, tmp_path: Path) -> None:
    order: list[str] = []

    def hold() -> None:
        with hold_lock(tmp_path / "a.lock"):
            order.append("second")

    with hold_lock(tmp_path / "a.lock"):
        thread = threading.Thread(target=hold)
        thread.start()
        time.sleep(3 * locks.PAUSE)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_an_error_inside_frees_the_lock(flock: int | None, tmp_path: Path) -> None:
    with pytest.raises(KeyError), hold_lock(tmp_path / "a.lock"):
        raise KeyError
    with hold_lock(tmp_path / "a.lock", wait=0):
        pass


def test_left_by_a_dead_process_of_this_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_flock(monkeypatch)
    leave_behind(tmp_path / ".lock", socket.gethostname(), dead_process())
    with hold_run(tmp_path):
        assert json.loads((tmp_path / ".lock.held").read_text())["process"] == os.getpid()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_file_of_unknown_origin_is_kept(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_flock(monkeypatch)
    (tmp_path / ".lock.held").write_text(content)
    with pytest.raises(InputError, match=r"\.lock\.held: .* unknown host"), hold_run(tmp_path):
        pass


def test_left_by_another_host_is_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_flock(monkeypatch)
    held = leave_behind(tmp_path / ".lock", "node17", dead_process())
    with pytest.raises(InputError) as raised, hold_run(tmp_path):
        pass
    assert str(raised.value) == (
        f"{tmp_path}: another process is working on this run: {held}: held by process "
        f"{json.loads(held.read_text())['process']} on node17 since 2026-01-02 03:04:05; if it no longer "
        "runs, delete this file"
    )
    held.unlink()
    with hold_run(tmp_path):
        pass


def test_a_flock_of_another_host_is_named(tmp_path: Path) -> None:
    with hold_lock(tmp_path / ".lock"):
        (tmp_path / ".lock").write_text('{"host": "node17", "process": 3, "since": "2026-01-02 03:04:05"}')
        with (
            pytest.raises(InputError, match=r"process 3 on node17 since 2026-01-02 .*delete this file"),
            hold_run(tmp_path),
        ):
            pass


def test_waiting_for_long_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without_flock(monkeypatch)
    monkeypatch.setattr(locks, "SILENCE", 0.0)
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path))
    (tmp_path / "locks").mkdir()
    held = leave_behind(tmp_path / "locks" / "a", "node17", 3)
    threading.Timer(3 * locks.PAUSE, held.unlink).start()
    with hold_cached("a"):
        pass
    (record,) = caplog.records
    assert f"waiting for {held}: held by process 3 on node17" in record.getMessage()


def test_other_errors_are_not_taken_for_missing_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_flock(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"), hold_lock(tmp_path / "a.lock"):
        pass
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path))
    with hold_cached("a"):  # the cache is not needed
        pass
