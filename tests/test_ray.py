"""Runs as tasks of a real Ray: how they end, runs that are lost, and what Ray has no room for."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest
from made_jobs import ENTRY, Heard, make_jobs

from harness.config import RayConfig, StudyConfig
from harness.storage.errors import InputError
from harness.storage.files import read_json
from harness.storage.launchers import SEND_LATER
from harness.storage.locks import hold_lock
from harness.studies import ray_run
from harness.studies.pool import Job
from harness.studies.ray_cluster import run_on_ray
from harness.studies.ray_run import run_once
from harness.studies.run_process import RunCommand

STUDY = Path("runs/tiny")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "entry.py").write_text(ENTRY)


def configure(workers: int | None = None, **settings: object) -> StudyConfig:
    chosen = {"cpus_per_task": 1, "gpus_per_task": 0, "retries": 1, **settings}
    return StudyConfig(name="tiny", launcher="ray", workers=workers, ray=RayConfig(**chosen))


def find_processes(job: Job) -> list[psutil.Process]:
    """Find the processes of a run by their arguments."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(job.run) in (process.info["cmdline"] or ()) and process.status() != psutil.STATUS_ZOMBIE
    ]


def test_runs_end_as_they_end_and_lost_ones_start_again(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    names = ("good", "bad", "dies", "orphaned", "preempted", "hopeless")
    heard = Heard()
    jobs = make_jobs(*names)
    ends = run_on_ray(jobs, STUDY, configure(), heard, [sys.executable, "entry.py"])
    statuses = {job.arguments[0]: status for job, status in ends}
    assert statuses == dict.fromkeys(names, 0) | {"bad": 1, "preempted": 143, "hopeless": 137}
    assert ("bad", "error: seed: found -1, expected 0 or more") in heard.told
    assert ("hopeless", "killed 2 times") in heard.told
    assert ("orphaned", "lost by Ray (WorkerCrashedError); started again") in heard.told
    # once per start
    starts = {name: heard.told.count((name, f"working on {name}")) for name in names}
    assert starts == dict.fromkeys(names, 1) | {"dies": 2, "orphaned": 2, "hopeless": 2}
    for name in names:
        assert heard.told.index((name, "began")) < heard.told.index((name, f"working on {name}"))
        assert sum(told == (name, "began") for told in heard.told) == 1
        again = [line for told, line in heard.told if told == name and line.endswith("; started again")]
        assert len(again) == starts[name] - 1
    assert ("good", "fine-tuning") in heard.told
    seen = read_json(STUDY / "good/begun")
    assert (seen["OMP_NUM_THREADS"], seen[SEND_LATER]) == ("1", "1")

    # nothing of Ray's own account of lost processes
    assert capfd.readouterr().out == ""

    # in the same test, since a Ray takes seconds to start: a limit, and a study that is stopped
    jobs = make_jobs("waits", "late")

    class Waiting(Heard):
        def waited(self) -> None:
            if (STUDY / "waits/begun").exists():
                assert find_processes(jobs[0]) and not (STUDY / "late").exists()
                raise KeyboardInterrupt

    ends = run_on_ray(jobs, STUDY, configure(workers=1), Waiting(), [sys.executable, "entry.py"])
    with pytest.raises(KeyboardInterrupt):
        list(ends)
    assert not find_processes(jobs[0])

    with pytest.raises(
        InputError, match=r"study.ray: found no node with 1 CPU, 3 GPU.*; there are: .* 0 GPU"
    ):
        list(run_on_ray(jobs, STUDY, configure(gpus_per_task=3), Heard()))


def test_a_cluster_that_does_not_answer_is_one_line() -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match=r"^study.ray.address: auto: ") as error:
        list(run_on_ray(make_jobs("good"), STUDY, configure(address="auto"), Heard()))
    assert "\n" not in str(error.value)


def test_a_missing_ray_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"needs Ray: pip install 'palimpsest\[ray\]'"):
        list(run_on_ray(make_jobs("good"), STUDY, configure(), Heard()))


def test_a_repetition_waits_until_the_lost_run_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_run, "GRACE", 0.2)
    place = tmp_path / "run"
    place.mkdir()
    run = RunCommand(("true",), {}, tmp_path / "job", tmp_path)
    begin = time.monotonic()
    with hold_lock(place / ".lock"):
        assert run_once(run, place, False) == 0  # the first start has nothing to wait for
        first = time.monotonic() - begin
        assert run_once(run, place, True) == 0  # waits in vain: the run itself says who holds the lock
        assert time.monotonic() - begin - first >= 0.4
    assert os.listdir(place) == [".lock"]
