"""Everything in a run has one place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.config.compose import (
    config_hash,
    load_config,
)
from harness.runs.layout import (
    figure_file,
    hold_run,
    is_finished,
    list_snapshots,
    mapping_folder,
    probes_file,
    refit_folders,
    run_folder,
    run_name,
    snapshot_folder,
)
from harness.storage.errors import InputError
from harness.storage.files import partial_suffix


def test_names_of_runs_and_folders() -> None:
    config = load_config(["runs_dir=/data/runs", "study=demo", "seed=3"])
    assert run_name(config) == f"mini_clip-digits-full-seed3-{config_hash(config)[:8]}"
    assert run_folder(config) == Path("/data/runs/demo") / run_name(config)


def test_places_in_a_run() -> None:
    run = Path("run")
    assert snapshot_folder(run, 128) == Path("run/snapshots/step-000128")
    assert mapping_folder(run, 128) == Path("run/mappings/step-000128")
    assert mapping_folder(run, 0, 2) == Path("run/mappings/step-000000-refit-2")
    assert probes_file(run, 7) == Path("run/probes/step-000007.json")
    assert figure_file(run, "readout-V1", 7) == Path("run/figures/readout-V1-step-000007.png")


def test_what_is_there_is_listed_by_number(tmp_path: Path) -> None:
    assert list_snapshots(tmp_path) == []
    assert refit_folders(tmp_path) == []
    assert not is_finished(tmp_path)
    for step in (1_500_000, 0, 16):
        snapshot_folder(tmp_path, step).mkdir(parents=True)
    for refit in (10, 2, 1):
        mapping_folder(tmp_path, 0, refit).mkdir(parents=True)
    mapping_folder(tmp_path, 0).mkdir()
    mapping_folder(tmp_path, 16, 3).mkdir()  # a different step: not part of the floor
    (tmp_path / "finished.json").write_text("{}")
    assert list_snapshots(tmp_path) == [0, 16, 1_500_000]
    assert refit_folders(tmp_path) == [mapping_folder(tmp_path, 0, refit) for refit in (1, 2, 10)]
    assert is_finished(tmp_path)


def test_whoever_holds_a_run_cleans_up_behind_killed_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    suffix = partial_suffix().replace(str(os.getpid()), str(killed.pid))
    run = tmp_path / "runs/study/run"
    folders = [run, run / "snapshots", run.parent, run.parents[1] / ".trained", tmp_path / "cache/mappings"]
    left = [folder / f".step-1{suffix}" for folder in folders]
    for path in left:
        path.mkdir(parents=True)
    with hold_run(run):
        assert [path.exists() for path in left] == [False] * len(left)
        # nobody else gets that far
        left[0].mkdir()
        with pytest.raises(InputError, match="another process is working on this run"), hold_run(run):
            pass
        assert left[0].exists()


def test_a_run_in_the_place_of_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with (
        pytest.raises(NotADirectoryError, match="found a file, expected a folder"),
        hold_run(tmp_path / "runs/a/b"),
    ):
        pass
