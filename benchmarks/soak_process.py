"""Commands in processes of their own that are killed, and what they leave: used by `soak.py`.

A command runs in a fork of this process, which has imported everything: seconds less per command.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from harness.runs import read_rows
from harness.storage import content_hash, exit_with_one_line

FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
BAR = re.compile(r"\d+%\||(it|s)/(s|it)\b|\d+it \[")


@dataclass(frozen=True)
class Ended:
    """How a command ended: `status` as in shells (137 after kill -9), None if it ran past its limit."""

    status: int | None
    out: str
    err: str
    seconds: float

    @property
    def words(self) -> list[str]:
        """Lines on standard error, without progress bars."""
        lines = re.split(r"[\r\n]", self.err)
        return [line.strip() for line in lines if line.strip() and not BAR.search(line)]


class KillAt:
    """Kills this process at its n-th change of files below a folder, or at its n-th SQL statement.

    Parameters
    ----------
    kind : str
        "files" or "sql".
    number : int or None
        None only counts.
    folder : Path
        Other files do not count.
    """

    def __init__(self, kind: str, number: int | None, folder: Path) -> None:
        self.kind, self.number, self.folder, self.count = kind, number, str(folder), 0

    def install(self) -> None:
        """Begin to count, until the process ends."""
        if self.kind == "files":
            sys.addaudithook(self._hear)
        elif self.kind == "sql":
            connect = sqlite3.connect

            def connect_traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
                connection = connect(*arguments, **options)
                connection.set_trace_callback(lambda _: self._step())
                return connection

            # of this process alone, which ends with the command
            sqlite3.connect = sqlite3.dbapi2.connect = connect_traced

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in FILE_EVENTS or not str(arguments[0]).startswith(self.folder):
            return
        if event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self._step()

    def _step(self) -> None:
        self.count += 1
        if self.count == self.number:
            os.kill(os.getpid(), signal.SIGKILL)


def import_everything() -> None:
    """Import what commands import, so that forks need not."""
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    import harness.finetuning as finetuning
    import harness.reporting as reporting
    import harness.tracking as tracking

    for package in (finetuning, reporting, tracking):
        for name in package.__all__:
            getattr(package, name)


def run_forked(
    work: Callable[[], object],
    folder: Path,
    limit: float,
    at: float | None = None,
    with_signal: int = signal.SIGKILL,
    trigger: KillAt | None = None,
    environment: dict[str, str] | None = None,
) -> Ended:
    """Run `work` in a fork as an entry point does, and say how it ended.

    Parameters
    ----------
    work : function
    folder : Path
        For its output.
    limit : float
        Seconds until it counts as hung and is killed.
    at : float, optional
        Seconds until it gets `with_signal`.
    with_signal : int
    trigger : KillAt, optional
        Kills it from within.
    environment : dict, optional
        Further variables.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "out", folder / "err", folder / "counts"
    files[2].unlink(missing_ok=True)
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads
        # until the child has a handler
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        process = os.fork()
    if process == 0:
        _be_child(work, files, trigger, environment or {})
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    sent = False
    while True:
        found, raw = os.waitpid(process, os.WNOHANG)
        seconds = time.monotonic() - began
        if found:
            break
        if at is not None and not sent and seconds >= at:
            os.kill(process, with_signal)
            sent = True
        if seconds > limit:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            break
        time.sleep(0.005)
    status = None if not found else os.waitstatus_to_exitcode(raw)
    if status is not None and status < 0:
        status = 128 - status
    out, err = (path.read_text("utf-8", "replace") if path.exists() else "" for path in files[:2])
    return Ended(status, out, err, seconds)


def _be_child(
    work: Callable[[], object],
    files: tuple[Path, Path, Path],
    trigger: KillAt | None,
    environment: dict[str, str],
) -> None:
    status = 1
    try:
        os.setsid()
        for number, path in enumerate(files[:2], 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ.update(environment)
        if trigger is not None:
            trigger.install()

        def work_open_to_signals() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
            work()

        try:
            exit_with_one_line(work_open_to_signals)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        if trigger is not None:
            files[2].write_text(str(trigger.count), encoding="utf-8")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def dispatching(arguments: Sequence[str]) -> Callable[[], object]:
    """Return a function that runs a command of `palimpsest`."""

    def work() -> None:
        from harness.cli import dispatch

        dispatch(arguments)

    return work


def read_results(run: Path) -> dict[str, str]:
    """Everything that a run has found, by place: hashes of files, and values of rows, without times."""
    found = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if name.endswith(".partial") or name.startswith("checkpoints"):
            found[f"left over {re.sub(r'[0-9a-f]+-?[0-9]*[.](replaced[.])?partial', 'partial', name)}"] = ""
            continue
        if not path.is_file() or name in (".lock", "sent.json", "trained_by.json", "results.jsonl"):
            continue
        try:
            found[name] = _hash_content(path)
        except (ValueError, AttributeError, SafetensorError):
            found[name] = "unreadable"
    for row in read_rows(run / "results.jsonl")[0]:
        name, step, value = row["name"], row["step"], row["value"]
        place = f"row {name} {step}"
        found[f"{place}, again" if place in found else place] = repr(value)
    return found


def _hash_content(path: Path) -> str:
    if path.name in ("manifest.json", "finished.json"):
        content = json.loads(path.read_bytes())
        for volatile in ("code_version", "commit", "sealed", "resumed"):
            content.pop(volatile, None)
        return json.dumps(content, sort_keys=True)
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            # the order of what describes the arrays is not fixed
            known = sorted((file.metadata() or {}).items())
        return content_hash(known, load_file(path))
    return content_hash(path.read_bytes())


def read_store(database: Path) -> dict[str, str]:
    """Everything that a SQLite store of MLflow holds of active runs, without times and identities."""
    with closing(sqlite3.connect(database)) as connection:
        runs = connection.execute(
            "SELECT run_uuid, name, status FROM runs WHERE lifecycle_stage = 'active' ORDER BY name, run_uuid"
        ).fetchall()
        found = {f"runs in MLflow of {name}": "" for _, name, _ in runs}
        for run, name, status in runs:
            found[f"runs in MLflow of {name}"] += f"{status} "
            for table, columns in (
                ("metrics", "key, step, value"),
                ("latest_metrics", "key, step, value"),
                ("params", "key, 0, value"),
                ("tags", "key, 0, value"),
            ):
                rows = connection.execute(
                    f"SELECT {columns} FROM {table} WHERE run_uuid = ? ORDER BY 1, 2, 3", (run,)
                )
                for key, step, value in rows:
                    if key in ("code_version", "mlflow.source.git.commit", "mlflow.parentRunId"):
                        continue
                    if key.startswith("system/"):  # the use of the machine
                        continue
                    place = f"{name} {table} {key} {step}"
                    found[f"{place}, again" if place in found else place] = str(value)
    return found


def compare(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return the places that differ."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
