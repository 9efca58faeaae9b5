"""Runs side by side: how many, their output, exit statuses and ends."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.storage.files import read_json
from harness.studies.pool import (
    BYTES_PER_RUN,
    Layout,
    Listener,
    choose_layout,
)

PLENTY = 100 * BYTES_PER_RUN
# an entry point that does what its argument says
ENTRY = """
import json, os, pathlib, signal, sys, time
from harness.storage import InputError, progress_bar
def main():
    what = sys.argv[1]
    print("working on", what)
    for _ in progress_bar(range(2), f"tracking 1/1: {what}"):
        pass
    pathlib.Path(f"{what}.json").write_text(json.dumps(dict(os.environ)))
    if what == "bad":
        raise InputError("seed: found -1, expected 0 or more")
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    while what.startswith("long"):
        time.sleep(0.05)
"""

# what these entry points do needs no imports
LIGHT = "from harness.studies import pool\npool.IMPORTED = ()\n"


@pytest.mark.parametrize(
    ("n_runs", "cores", "gpus", "expected"),
    [
        (1, 2, 0, Layout(1, 2)),
        (2, 2, 0, Layout(2, 1)),
        (3, 2, 0, Layout(3, 1)),  # takes turns on two cores: no last wave with an idle core
        (4, 2, 0, Layout(2, 1)),
        (5, 2, 0, Layout(3, 1)),
        (3, 16, 0, Layout(3, 5)),
        (18, 16, 0, Layout(18, 1)),
        (33, 16, 0, Layout(17, 1)),
        (9, 16, 4, Layout(4, 4, 4)),
        (2, 16, 8, Layout(2, 8, 8)),
        (3, 16, 1, Layout(1, 16, 1)),
    ],
)
def test_runs_share_the_machine_evenly(n_runs, cores, gpus, expected):
    found = choose_layout(n_runs, cores, gpus, PLENTY)
    assert found == expected
    # never more threads than cores, but for one thread each
    assert found.workers * found.threads <= max(cores, found.workers)


def test_memory_and_the_user_limit_runs_at_a_time():
    assert choose_layout(8, 8, 0, 3 * BYTES_PER_RUN).workers == 3
    assert choose_layout(8, 8, 0, BYTES_PER_RUN // 2) == Layout(1, 8)
    assert choose_layout(8, 8, 0, 0, workers=2) == Layout(2, 4)
    assert choose_layout(3, 2, 0, PLENTY, workers=10) == Layout(3, 1)


class Heard(Listener):
    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def began(self, job):
        self.told.append(("began", job.title))

    def heard(self, job, label, n, total):
        self.told.append(("heard", job.title, label, n, total))

    def printed(self, job, line):
        self.told.append(("printed", job.title, line))

    def ended(self, job, status):
        self.told.append(("ended", job.title, status))


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write the entry point where processes of the pool find it; return its name."""
    # beside the real commands, since a pool imports harness.commands.NAME
    (tmp_path / "harness_commands").mkdir()
    (tmp_path / "harness_commands" / "scripted.py").write_text(ENTRY)
    (tmp_path / "sitecustomize.py").write_text(
        f"import harness.commands\nharness.commands.__path__.append({str(tmp_path / 'harness_commands')!r})\n"
    )
    return "scripted"


def test_jobs_end_with_their_status_and_their_lines_are_passed_on(entry, tmp_path):
    code = (
        f"{LIGHT}from test_pool import Heard\n"
        "heard = Heard()\n"
        "jobs = [pool.Job(name, [name]) for name in ('good', 'bad', 'killed')]\n"
        f"print(pool.run_jobs({entry!r}, jobs, pool.Layout(2, 3), heard))\n"
        "print(heard.told)"
    )
    statuses, told = run_in_process(code, tmp_path)
    assert statuses == {"good": 0, "bad": 2, "killed": 137}
    for name in statuses:
        assert ("printed", name, f"working on {name}") in told
        assert told.index(("began", name)) < told.index(("ended", name, statuses[name]))
    assert ("heard", "good", "tracking 1/1: good", 0, 2) in told
    assert ("printed", "bad", "error: seed: found -1, expected 0 or more") in told
    # each with its share of the threads
    assert read_json(tmp_path / "good.json")["OMP_NUM_THREADS"] == "3"
    # two at a time: the third begins when one of the first two has ended, whichever it is
    ended = [told.index(("ended", name, statuses[name])) for name in ("good", "bad")]
    assert told.index(("began", "killed")) > min(ended)


def test_runs_have_a_gpu_each(entry, tmp_path):
    code = (
        f"{LIGHT}jobs = [pool.Job(name, [name]) for name in ('one', 'two', 'three')]\n"
        f"print(pool.run_jobs({entry!r}, jobs, pool.Layout(2, 1, 2), pool.Listener()))"
    )
    run_in_process(code, tmp_path, CUDA_VISIBLE_DEVICES="5,7")
    seen = [read_json(tmp_path / f"{name}.json")["CUDA_VISIBLE_DEVICES"] for name in ("one", "two", "three")]
    assert seen[:2] == ["5", "7"] and seen[2] in seen[:2]


def run_in_process(code: str, folder: Path, **variables: str) -> list[object]:
    """Run code that prints Python literals, line by line, with the pool's entry point at hand."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=pool_environment(folder) | variables,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return [ast.literal_eval(line) for line in done.stdout.splitlines()]


def pool_environment(folder: Path) -> dict[str, str]:
    paths = [str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def start_pool(entry: str, folder: Path) -> subprocess.Popen[str]:
    code = (
        f"{LIGHT}from harness.storage import exit_with_one_line\n"
        # ignored by all that a shell starts in the background, these tests perhaps included
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "jobs = [pool.Job(name, [name]) for name in ('long1', 'long2', 'long3')]\n"
        f"exit_with_one_line(lambda: pool.run_jobs({entry!r}, jobs, pool.Layout(2, 1), pool.Listener()))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=pool_environment(folder),
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.time() + 200
    while not all((folder / f"long{place}.json").exists() for place in (1, 2)):
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.05)
    return process


def count_session(session: int) -> int:
    """Count the living processes of a session, its fork server and resource tracker included."""
    found = subprocess.run(["ps", "-o", "stat=", "-s", str(session)], capture_output=True, text=True)
    return sum(not state.startswith("Z") for state in found.stdout.split())


def wait_for_none(session: int) -> None:
    deadline = time.time() + 60
    while count_session(session):
        assert time.time() < deadline
        time.sleep(0.05)


def test_interrupting_a_pool_ends_its_runs_and_begins_no_other(entry, tmp_path):
    process = start_pool(entry, tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # to all processes, as a terminal does
    _, message = process.communicate(timeout=100)
    assert (process.returncode, message) == (130, "interrupted\n")
    assert not (tmp_path / "long3.json").exists()
    wait_for_none(process.pid)


def test_runs_end_with_a_pool_that_is_killed(entry, tmp_path):
    process = start_pool(entry, tmp_path)
    assert count_session(process.pid) > 2
    process.kill()
    process.communicate(timeout=100)
    wait_for_none(process.pid)
