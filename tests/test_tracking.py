"""The journal after a kill, and MLflow with the same rows after any interruption."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import harness.runs.journal as journal_module
from harness.commands.forward import main
from harness.config.compose import (
    load_config,
    to_yaml,
)
from harness.config.folders import REPOSITORY
from harness.config.run import Config
from harness.runs.journal import (
    GrowingRows,
    Journal,
    Row,
    read_rows,
)
from harness.runs.layout import (
    run_folder,
    run_name,
)
from harness.storage.errors import InputError
from harness.tracking.store import tracked_run
from harness.tracking.store.connection import (
    connect,
    database_file,
    tracking_uri,
)
from harness.tracking.store.experiments import find_or_create_experiment
from harness.tracking.store.histories import read_histories
from harness.tracking.store.sqlite_file import list_studies
from harness.tracking.store.tracked_run import TrackedRun
from harness.tracking.verdict_tags import tag_rows

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def test_journal_keeps_rows_in_order_with_all_kinds_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "run" / "results.jsonl"
    with Journal(path) as journal:
        journal.log(0, {"train/loss": 1.5, "brain/V1/r2": np.float32(0.25)})
        # rows can be read before the journal is closed
        assert len(read_rows(path)[0]) == 2
        journal.log(8, {"train/loss": torch.tensor(0.5), "brain/p9-46v/r2": 1})
    rows, end = read_rows(path)
    assert [(row["name"], row["step"], row["value"]) for row in rows] == [
        ("train/loss", 0, 1.5),
        ("brain/V1/r2", 0, 0.25),
        ("train/loss", 8, 0.5),
        ("brain/p9-46v/r2", 8, 1.0),
    ]
    assert end == path.stat().st_size
    lines = path.read_text().splitlines()
    assert all(list(json.loads(line)) == ["name", "step", "value", "timestamp", "crc"] for line in lines)


def test_journal_does_not_write_a_step_twice(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Journal(path) as journal:
        journal.log(1, {"train/loss": 1.0})
        journal.log(1, {"train/loss": 2.0, "train/lr": 0.1})
    before = path.read_bytes()
    with Journal(path) as journal:
        journal.log(1, {"train/loss": 3.0})
    assert path.read_bytes() == before
    assert [row["value"] for row in read_rows(path)[0]] == [1.0, 0.1]


def test_journal_drops_a_torn_last_line(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Journal(path) as journal:
        journal.log(1, {"train/loss": 1.0})
        journal.log(2, {"train/loss": 2.0})
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for cut in range(second + 1, len(whole)):
        path.write_bytes(whole[:cut])
        assert [row["step"] for row in read_rows(path)[0]] == [1]
    with Journal(path) as journal:
        journal.log(2, {"train/loss": 2.0})
    assert [(row["step"], row["value"]) for row in read_rows(path)[0]] == [(1, 1.0), (2, 2.0)]


@pytest.mark.parametrize("value", [math.nan, math.inf, torch.tensor(-math.inf)])
def test_journal_refuses_what_is_not_finite_and_writes_nothing_of_it(tmp_path: Path, value: object) -> None:
    path = tmp_path / "results.jsonl"
    with Journal(path) as journal:
        with pytest.raises(ValueError, match="brain/V1/r2 at step 3"):
            journal.log(3, {"train/loss": 1.0, "brain/V1/r2": value})  # type: ignore[dict-item]
        journal.log(3, {"train/loss": 1.0})
    assert [row["name"] for row in read_rows(path)[0]] == ["train/loss"]


@pytest.mark.parametrize(
    "name", ["loss", "a/b/c/d/e/f", "brain/V1 (left)/r2", "brain//r2", "", "train/" + "x" * 250]
)
def test_journal_refuses_names_that_mlflow_would(tmp_path: Path, name: str) -> None:
    with (
        Journal(tmp_path / "results.jsonl") as journal,
        pytest.raises(ValueError, match="stage/place/measure"),
    ):
        journal.log(0, {name: 1.0})


def test_a_broken_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with pytest.raises(InputError, match=r"results\.jsonl: no such file"):
        read_rows(path)
    path.write_text('{"name": "train/loss"}\n')
    with pytest.raises(InputError, match=r"results\.jsonl: found .*train/loss"):
        Journal(path)


def small_run(runs_dir: Path, *overrides: str, n_steps: int = 3) -> tuple[Config, Path]:
    """Make a run's folder with a configuration and a journal, as fine-tuning leaves it."""
    config = load_config([f"runs_dir={runs_dir}", *overrides])
    folder = run_folder(config)
    with Journal(folder / "results.jsonl") as journal:
        for step in range(n_steps):
            journal.log(step, {"train/loss": 1.0 / (step + 1), "rewiring/V1/wasserstein": 0.1 * step})
    (folder / "config.yaml").write_text(to_yaml(config))
    return config, folder


def mlflow_rows(config: Config) -> list[tuple[str, int, float, int]]:
    rows = []
    for _, found in read_histories(tracking_uri(Path(config.runs_dir)), config.study.name, lambda name: True):
        rows += found[["name", "step", "value", "timestamp"]].itertuples(index=False, name=None)
    return sorted(rows)


def only_run(client: "MlflowClient") -> "Run":
    """Return the store's only run, apart from the study's parent run."""
    (experiment,) = client.search_experiments(filter_string="name != 'Default'")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`palimpsest.run` != ''")
    return run


def journal_rows(folder: Path) -> list[tuple[str, int, float, int]]:
    rows = read_rows(folder / "results.jsonl")[0]
    return sorted((row["name"], row["step"], row["value"], row["timestamp"]) for row in rows)


def test_mlflow_has_the_rows_of_the_journal_after_any_number_of_sendings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.tracking.store.tracked_run.BATCH_ROWS", 4)
    config, folder = small_run(tmp_path / "runs")
    journal = Journal(folder / "results.jsonl")
    with TrackedRun(config, folder) as run, journal:
        journal.log(3, {"train/loss": 0.25})
        assert run.forward()
        journal.log(4, {"train/loss": 0.2})
    assert mlflow_rows(config) == journal_rows(folder)
    assert len(journal_rows(folder)) == 8

    # again, as a resumed process and the replay command do
    with TrackedRun(config, folder):
        pass
    assert mlflow_rows(config) == journal_rows(folder)

    client = connect(tracking_uri(tmp_path / "runs"))
    found = only_run(client)
    # headlines are metrics; the others are in the artifact alone
    assert {key for key in found.data.metrics if not key.startswith("system/")} == {"train/loss"}
    assert len(client.get_metric_history(found.info.run_id, "train/loss")) == 5
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "mini_clip digits full seed 0"
    expected = {
        "palimpsest.run": run_name(config),
        "palimpsest.hash": run_name(config).rpartition("-")[2],
        "study": "default",
        "backbone": "mini_clip",
        "objective": "contrastive",
        "size": "mini",
    }
    assert expected.items() <= found.data.tags.items()
    assert [file.path for file in client.list_artifacts(found.info.run_id)] == [
        "config.yaml",
        "results.parquet",
        "tables",
    ]
    database = tracking_uri(tmp_path / "runs").removeprefix("sqlite:///")
    assert (Path(database).parent / "mlartifacts" / "default").is_dir()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_that_ends_early_says_so(tmp_path: Path, error: type[BaseException], status: str) -> None:
    config, folder = small_run(tmp_path / "runs")
    client = connect(tracking_uri(tmp_path / "runs"))
    with pytest.raises(error), TrackedRun(config, folder) as run:
        assert run.forward()
        running = only_run(client)
        assert running.info.status == "RUNNING"
        raise error("out of paper")
    ended = client.get_run(running.info.run_id)
    assert ended.info.status == status and ended.info.end_time >= ended.info.start_time
    assert ended.data.tags["error"] == f"{error.__name__}: out of paper"
    # the same run goes on
    with TrackedRun(config, folder) as run:
        assert run.forward()
        assert client.get_run(running.info.run_id).info.status == "RUNNING"
    ended = client.get_run(running.info.run_id)
    assert ended.info.status == "FINISHED" and "error" not in ended.data.tags


def test_rows_are_in_the_store_while_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.tracking.store.tracked_run.PERIOD", 0.05)
    config, folder = small_run(tmp_path / "runs")

    def arrived() -> bool:
        # the store and the study are made meanwhile
        with suppress(InputError):
            return mlflow_rows(config) == journal_rows(folder)
        return False

    with TrackedRun(config, folder), Journal(folder / "results.jsonl") as journal:
        for step in (3, 4):
            journal.log(step, {"train/loss": 1.0 / (step + 1)})
            deadline = time.monotonic() + 120
            while not arrived():
                assert time.monotonic() < deadline
                time.sleep(0.1)


def test_a_run_that_is_sent_late_has_the_times_of_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = small_run(tmp_path / "runs")
    journal = folder / "results.jsonl"
    rows = [{**row, "timestamp": 1_700_000_000_000 + n} for n, row in enumerate(read_rows(journal)[0])]
    journal.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(sys, "argv", ["tracking", str(folder)])
    main()
    client = connect(tracking_uri(tmp_path / "runs"))
    run = only_run(client)
    assert (run.info.start_time, run.info.end_time) == (1_700_000_000_000, 1_700_000_000_000 + len(rows) - 1)


def test_a_deleted_experiment_comes_back(tmp_path: Path) -> None:
    config, folder = small_run(tmp_path / "runs")
    assert TrackedRun(config, folder).forward("FINISHED")
    client = connect(tracking_uri(tmp_path / "runs"))
    client.delete_experiment(client.get_experiment_by_name("default").experiment_id)  # type: ignore[union-attr]
    assert TrackedRun(config, folder).forward("FINISHED")
    assert mlflow_rows(config) == journal_rows(folder)


def test_a_dead_server_costs_one_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # nothing listens on the discard port
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    config, folder = small_run(tmp_path / "runs")
    with caplog.at_level(logging.WARNING, "harness"), TrackedRun(config, folder) as run:
        assert not run.forward()
    (warning,) = [record for record in caplog.records if record.name.startswith("harness")]
    message = warning.getMessage()
    assert "\n" not in message
    assert "http://127.0.0.1:9" in message
    assert f"palimpsest forward {folder}" in message
    with pytest.raises(InputError, match="does not answer"):
        mlflow_rows(config)

    # later, from another folder, with the store in the folder that holds the run
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tracking", str(folder.relative_to(tmp_path))])
    main()
    printed = capfd.readouterr()
    assert "6 rows" in printed.out
    assert printed.err == ""
    assert mlflow_rows(config) == journal_rows(folder)


def test_a_server_that_never_ends_its_answer_does_not_hold_a_run_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked, ended = threading.Event(), threading.Event()

    def connect(uri: str) -> object:
        asked.set()
        ended.wait(60)
        raise OSError("closed at last")

    monkeypatch.setattr(tracked_run, "connect", connect)
    monkeypatch.setattr(tracked_run, "PATIENCE", 0.2)
    config, folder = small_run(tmp_path / "runs")
    with caplog.at_level(logging.WARNING, "harness"), TrackedRun(config, folder):
        assert asked.wait(60)
    assert not ended.is_set()  # the run has ended, and the answer has not
    (warning,) = [record for record in caplog.records if record.name.startswith("harness")]
    assert f"not done after 0 s); results are safe in {folder}" in warning.getMessage()
    ended.set()


def test_lines_of_a_growing_journal_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.jsonl"
    rows = GrowingRows(path)
    offsets: list[int] = []
    assert rows.read() == []

    def read(path: Path, offset: int = 0) -> tuple[list[Row], int]:
        offsets.append(offset)
        return read_rows(path, offset)

    monkeypatch.setattr(journal_module, "read_rows", read)
    with Journal(path) as journal:
        journal.log(0, {"train/loss": 3.0})
    assert [row["value"] for row in rows.read()] == [3.0]
    first = path.stat().st_size
    with Journal(path) as journal:
        journal.log(1, {"train/loss": 2.0})
    # a line that is still being written is none yet
    with path.open("a") as file:
        file.write('{"name": "train/loss"')
    offsets.clear()
    assert [(row["step"], row["value"]) for row in rows.read()] == [(0, 3.0), (1, 2.0)]
    assert offsets == [first]
    # a shorter journal is another one
    path.unlink()
    with Journal(path) as journal:
        journal.log(7, {"train/loss": 1.0})
    assert [row["step"] for row in rows.read()] == [7]


def test_a_run_can_be_searched_by_its_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = small_run(tmp_path / "runs")
    assert tag_rows(config, read_rows(folder / "results.jsonl")[0]) == {}
    with Journal(folder / "results.jsonl") as journal:
        journal.log(40, {"brain/all/r2": 0.3, "verdict/V4/kind": 2, "verdict/all/kind": 2})
        journal.log(
            50, {"brain/all/r2": 0.2, "verdict/V4/kind": 3, "verdict/V1/kind": 0, "verdict/all/kind": 3}
        )
    expected = {"verdict": "rewired: V4", "rewired_regions": "V4"}
    assert tag_rows(config, read_rows(folder / "results.jsonl")[0]) == expected
    monkeypatch.setattr(sys, "argv", ["tracking", str(folder)])
    main()
    client = connect(tracking_uri(tmp_path / "runs"))
    experiment = client.get_experiment_by_name(config.study.name)
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id], "tags.verdict = 'rewired: V4'")
    assert expected.items() <= found.data.tags.items()


FIRST_WRITER = """
import sys
import mlflow.store.tracking.sqlalchemy_store
from harness.commands.forward import main
print("ready", flush=True)
sys.stdin.readline()
main()
"""


def test_two_first_writers_do_not_race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    runs = [small_run(tmp_path / "runs", f"seed={seed}") for seed in (0, 1)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ExitStack() as stack:
        writers = []
        for _, folder in runs:
            command = [sys.executable, "-c", FIRST_WRITER, str(folder)]
            writer = stack.enter_context(subprocess.Popen(command, text=True, cwd=REPOSITORY, **pipes))  # type: ignore[call-overload]
            stack.callback(writer.kill)
            writers.append(writer)
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        errors = [writer.communicate(timeout=300)[1] for writer in writers]
        assert [writer.returncode for writer in writers] == [0, 0], errors
    expected = sorted(row for _, folder in runs for row in journal_rows(folder))
    assert mlflow_rows(runs[0][0]) == expected


@pytest.mark.parametrize("name", ["my runs (1), [new]", 'é#=x & "y"', "100%20", "a?b;c"])
def test_a_store_in_a_folder_of_any_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _own_tracking_store: None
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    runs_dir = tmp_path / "here" / name
    assert database_file(tracking_uri(runs_dir)) == runs_dir / "mlflow.db"
    client = connect(tracking_uri(runs_dir))
    run = client.create_run(find_or_create_experiment(client, "mine"))
    client.log_text(run.info.run_id, "text", "a.txt")
    assert [path.name for path in (runs_dir / "mlartifacts" / "mine").rglob("*.txt")] == ["a.txt"]
    assert client.list_artifacts(run.info.run_id)[0].path == "a.txt"
    assert list_studies(runs_dir / "mlflow.db") == {"mine": int(run.info.experiment_id)}
    assert [path.name for path in runs_dir.parent.iterdir()] == [name]  # no folder of the encoded name
