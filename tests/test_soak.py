"""A short part of `benchmarks/soak.py`: files of inputs and journals are damaged, and writes are killed."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from harness.runs import Journal, hold_run, read_rows
from harness.storage import write_atomically

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from soak_damage import SOURCES, DamagedInputs, damage, judge
from soak_process import Ended, KillAt, run_forked

ALLOWED = {"bit-identical", "one line", "clean"}
QUICK = ("arrays of a brain", "YAML")


def test_damaged_inputs_end_in_one_line_or_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soak_damage.SOURCES", {name: SOURCES[name] for name in QUICK})
    inputs = DamagedInputs(tmp_path)
    found = [fault for number in range(8) for fault in inputs.damage_one(random.Random(number))]
    assert [fault for fault in found if fault[1] not in ALLOWED] == []
    assert {fault[1] for fault in found} >= {"one line", "clean"}


def test_a_damaged_journal_is_refused_or_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Journal(path) as journal:
        for step in range(4):
            journal.log(step, {"train/loss": 1 / (step + 3), "brain/V1/r2": 0.25 * step})
    whole, rows = path.read_bytes(), read_rows(path)[0]
    changed = 0
    for number in range(150):
        path.write_bytes(whole)
        damage(
            path, ("bit flip", "text for a number", "another number")[number % 3], random.Random(number), []
        )
        try:
            # a line whose end is gone counts as not written, as after kill -9
            assert [row for row in read_rows(path)[0] if row not in rows] == []
        except ValueError as error:
            assert str(path) in str(error)
            changed += 1
    assert changed > 75


def test_a_write_that_is_killed_anywhere_is_whole_or_absent(tmp_path: Path) -> None:
    run = tmp_path / "runs/study/run"
    target = run / "snapshots/step-000001"

    def work() -> None:
        with hold_run(run):
            for content in ("old", "new"):
                with write_atomically(target) as temporary:
                    temporary.mkdir()
                    (temporary / "weights").write_text(content * 1000)
            with Journal(run / "results.jsonl") as journal:
                journal.log(1, {"train/loss": 0.5})

    counting = KillAt("files", None, tmp_path)
    assert run_forked(work, tmp_path / "output", 60, trigger=counting).status == 0
    n_changes = int((tmp_path / "output/counts").read_text())
    assert n_changes > 10
    for number in range(1, n_changes + 1, 2):
        killed = run_forked(work, tmp_path / "output", 60, trigger=KillAt("files", number, run))
        assert killed.status in (0, 137), killed.err
        if target.exists():
            assert (target / "weights").read_text() in ("old" * 1000, "new" * 1000)
    assert run_forked(work, tmp_path / "output", 60).status == 0
    assert (target / "weights").read_text() == "new" * 1000
    assert not list(tmp_path.rglob("*.partial"))
    assert [row["value"] for row in read_rows(run / "results.jsonl")[0]] == [0.5]


@pytest.mark.parametrize(
    ("status", "err", "different", "outcome"),
    [
        (0, "", [], "bit-identical"),
        (0, "", ["row"], "silent"),
        (0, "warning: a.json: not used\n", ["row"], "clean"),
        (0, " 50%|##  | 1/2 [00:00<00:00, 9.1it/s]\r", ["row"], "silent"),
        (2, "error: a.json: broken\n", [], "one line"),
        (2, "error: broken\n", [], "one line, no file"),
        (2, "error: a.json\nerror: b\n", [], "one line, no file"),
        (1, "Traceback (most recent call last):\n", [], "traceback"),
        (139, "", [], "traceback"),
        (None, "", [], "hang"),
    ],
)
def test_outcomes(status: int | None, err: str, different: list[str], outcome: str) -> None:
    assert judge(Ended(status, "", err, 1.0), ["a.json"], lambda: different)[0] == outcome
