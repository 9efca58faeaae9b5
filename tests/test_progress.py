"""Progress: bars on a terminal, lines in a log, records for a study, and a study's own line."""

from __future__ import annotations

import io
import json

import pytest

from harness.storage import progress
from harness.storage.progress import (
    PROGRESS_RECORDS,
    RECORD_MARK,
    progress_bar,
)
from harness.studies.pool import Job
from harness.studies.progress_line import TRAINING_SHARE, StudyProgress

ONE, TWO = Job("[1/2] clip", []), Job("[2/2] random", [])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, label: str | None = "fitting") -> str:
    monkeypatch.setattr("sys.stderr", stream)
    assert list(progress_bar(range(3), label)) == [0, 1, 2]
    with progress_bar(label=label, total=3, initial=1) as bar:
        bar.update(2)
        bar.set_postfix(loss="0.1")
    return stream.getvalue()


def test_a_terminal_has_a_bar(monkeypatch):
    assert "\rfitting:" in work(Terminal(), monkeypatch)


def test_a_log_has_whole_lines_and_only_of_long_work(monkeypatch):
    assert work(io.StringIO(), monkeypatch) == ""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    written = work(io.StringIO(), monkeypatch)
    assert "\r" not in written and written.endswith("\n")
    assert "fitting: 3/3" in written.splitlines()
    assert len(written.splitlines()) <= 8  # the number behind a bar has no line of its own


def test_nothing_is_shown_without_a_label(monkeypatch):
    for stream in (Terminal(), io.StringIO()):
        assert work(stream, monkeypatch, None) == ""


def test_a_study_reads_records(monkeypatch):
    monkeypatch.setenv(PROGRESS_RECORDS, "0")
    lines = work(io.StringIO(), monkeypatch).rstrip("\n").split("\n")
    assert all(line.startswith(RECORD_MARK) for line in lines)
    records = [json.loads(line[1:]) for line in lines]
    assert {"label": "fitting", "n": 0, "total": 3} in records
    assert {"label": "fitting", "n": 3, "total": 3} in records


def follow(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> tuple[StudyProgress, list[float]]:
    monkeypatch.setattr("sys.stderr", stream)
    now = [0.0]
    return StudyProgress(2, lambda: now[0]), now


def test_a_study_of_many_runs_has_a_line_too(monkeypatch):
    shown, _ = follow(io.StringIO(), monkeypatch)
    for number in range(1, 13):
        shown.began(Job(f"[{number}/12] run", []))
    assert shown.describe().endswith(" · [8/12] starting · and 4 more")


def test_a_study_says_what_is_done_and_how_long_the_rest_takes(monkeypatch):
    shown, now = follow(io.StringIO(), monkeypatch)
    shown.began(ONE)
    shown.began(TWO)
    assert shown.describe() == "0 of 2 runs done · 0:00 so far · [1/2] starting · [2/2] starting"
    now[0] = 60
    shown.heard(ONE, "fine-tuning", 50, 75)
    shown.heard(TWO, "tracking 3/6: step 15, mapping", 5, 100)
    share = TRAINING_SHARE * 50 / 75 + TRAINING_SHARE + (1 - TRAINING_SHARE) * 2 / 6
    left = round(60 * (2 - share) / share)
    text = f"0 of 2 runs done · 1:00 so far · about {left // 60}:{left % 60:02} left"
    assert shown.describe() == f"{text} · [1/2] fine-tuning 50/75 · [2/2] tracking 3/6: step 15, mapping"
    shown.ended(TWO, 0)
    now[0] = 3700
    assert shown.describe().startswith("1 of 2 runs done · 1:01:40 h so far · about ")


def test_a_log_of_a_study_has_no_carriage_returns_and_few_lines(monkeypatch):
    stream = io.StringIO()
    shown, now = follow(stream, monkeypatch)
    shown.began(ONE)
    for second in range(200):
        now[0] = second
        shown.heard(ONE, "fine-tuning", second, 200)
    shown.printed(ONE, "warning: MLflow does not answer")
    shown.printed(ONE, "interrupted")  # the study says so itself
    shown.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == ONE.title and lines[-1] == "[1/2] warning: MLflow does not answer"
    assert len(lines) == 5 and "\r" not in stream.getvalue()


def test_a_terminal_of_a_study_has_one_line_that_gives_way(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    shown, _ = follow(stream, monkeypatch)
    shown.began(ONE)
    shown.heard(ONE, "fine-tuning", 1, 200)
    assert stream.getvalue().rpartition("\r\x1b[K")[2] == shown.describe()[:39]
    shown.printed(ONE, "said")
    assert stream.getvalue().endswith("\r\x1b[K[1/2] said\n")
