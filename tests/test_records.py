"""Damaged, exchanged or edited files of a run, and inputs that changed: one line, nothing silent."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from overrides import SMALL_TRACKING, TINY

from harness.commands import forward, track
from harness.commands.finetune import run
from harness.config.compose import load_config, to_yaml
from harness.config.run import Config
from harness.finetuning.checkpoints import checkpoint_step
from harness.finetuning.snapshots import read_manifest
from harness.reporting.run_results import read_run
from harness.runs import (
    begin_record,
    describe_run,
    finish_record,
    hold_run,
    probes_file,
    read_run_config,
    read_run_manifest,
    read_values,
)
from harness.runs.inputs import load_inputs
from harness.runs.journal import Journal, read_rows
from harness.runs.layout import list_snapshots, run_folder
from harness.runs.subjects import Brains, list_subjects
from harness.storage.errors import InputError
from harness.storage.files import read_json, write_json
from harness.tracking.results import derive_rows

STEP, OTHER = "step-000001", "step-000002"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    runs_dir = tmp_path_factory.mktemp("runs")
    config = load_config([*TINY, *SMALL_TRACKING, "finetune.epochs=1", f"runs_dir={runs_dir}"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{runs_dir}/mlflow.db")
        return config, run(config)


@pytest.fixture
def copied(finished: tuple[Config, Path], tmp_path: Path) -> tuple[Config, Path]:
    config, folder = finished
    copy = config.model_copy(update={"runs_dir": str(tmp_path / "runs")})
    target = run_folder(copy)
    shutil.copytree(folder, target)
    # the folder of all runs is no setting of a result, but stands in the file
    (target / "manifest.json").unlink()
    begin_record(copy, target, read_json(folder / "manifest.json"))
    return copy, target


def derive(config: Config, folder: Path) -> None:
    brains = Brains(list_subjects(config.brain, folder))
    assert list(derive_rows(config, folder, brains, list_snapshots(folder)))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(bytes(content))


def change_number(path: Path) -> None:
    """Change one number, or one text, deep inside a JSON file."""
    content = json.loads(path.read_text())
    place: Any = content
    key: Any = min(content)
    while isinstance(place[key], dict | list):
        place = place[key]
        key = min(place) if isinstance(place, dict) else 0
    place[key] = place[key] + 1 if isinstance(place[key], float) else f"{place[key]}x"
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        (f"mappings/{STEP}/mapping.safetensors", flip),
        ("mappings/step-000000-refit-1/mapping.safetensors", flip),
        (f"evidence/{STEP}.safetensors", flip),
        ("evidence/controls/controls.safetensors", flip),
        ("evidence/controls/controls.json", change_number),
        (f"probes/{STEP}.json", change_number),
        ("probes/step-000000.json", change_number),
    ],
)
def test_one_damaged_file_is_named(
    copied: tuple[Config, Path], file: str, damage: Callable[[Path], None]
) -> None:
    config, folder = copied
    damage(folder / file)
    with pytest.raises(InputError, match=rf"{Path(file).name}: content does not match the hash in it"):
        derive(config, folder)


@pytest.mark.parametrize("part", ["mappings/{}", "evidence/{}.safetensors", "probes/{}.json", "snapshots/{}"])
def test_exchanged_files_are_named(copied: tuple[Config, Path], part: str) -> None:
    config, folder = copied
    one, other = (folder / part.format(step) for step in (STEP, OTHER))
    one.rename(folder / "kept")
    other.rename(one)
    (folder / "kept").rename(other)
    with pytest.raises(InputError, match=f"{STEP}.*exchanged"):
        read_manifest(one) if part.startswith("snapshots") else derive(config, folder)


def test_a_renamed_checkpoint_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "step-00000004"
    folder.mkdir()
    (folder / "progress.json").write_text(json.dumps({"step": 2, "scaler": None, "notes": None}))
    with pytest.raises(InputError, match="found the checkpoint of step 2"):
        checkpoint_step(folder)


def test_edited_settings_are_refused_by_whoever_reads_them(copied: tuple[Config, Path]) -> None:
    config, folder = copied
    assert read_run_config(folder) == config
    (folder / "config.yaml").write_text(to_yaml(config).replace("seed: 0", "seed: 1", 1))
    for read in (
        read_run,
        lambda folder: forward.main([str(folder)]),
        lambda folder: track.main([str(folder)]),
    ):
        with pytest.raises(
            InputError, match=r"config\.yaml: differs from the settings that the run began with"
        ):
            read(folder)


def test_a_renamed_run_is_refused(copied: tuple[Config, Path]) -> None:
    _, folder = copied
    other = folder.rename(folder.with_name("mini_clip-digits-full-seed3-00000000"))
    with pytest.raises(InputError, match=f"belongs to {folder.name}|files of run {folder.name}"):
        read_run(other)


@pytest.mark.parametrize(
    "row",
    [
        {"name": "train/loss", "step": "1", "value": 0.5, "timestamp": 1},
        {"name": "train/loss", "step": -1, "value": 0.5, "timestamp": 1},
        {"name": "train/loss", "step": 1.5, "value": 0.5, "timestamp": 1},
        {"name": "train/loss", "step": True, "value": 0.5, "timestamp": 1},
        {"name": "train/loss", "step": 1, "value": "0.5", "timestamp": 1},
        {"name": "train/loss", "step": 1, "value": float("nan"), "timestamp": 1},
        {"name": "train/loss", "step": 1, "value": float("inf"), "timestamp": 1},
        {"name": "train/loss", "step": 1, "value": None, "timestamp": 1},
        {"name": "train/loss", "step": 1, "value": 10**400, "timestamp": 1},
        {"name": "train/loss", "step": 1, "value": 0.5, "timestamp": 1, "crc": 7},
        {"name": "no place", "step": 1, "value": 0.5, "timestamp": 1},
        {"name": 3, "step": 1, "value": 0.5, "timestamp": 1},
        {"name": "train/loss", "step": 1, "value": 0.5},
        ["train/loss", 1, 0.5, 1],
    ],
)
def test_a_row_that_is_none_is_named(tmp_path: Path, row: object) -> None:
    journal = tmp_path / "results.jsonl"
    journal.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=r"results\.jsonl: found .* expected a row"):
        read_rows(journal)


def test_a_changed_digit_of_a_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Journal(path) as journal:
        journal.log(3, {"train/loss": 0.125, "brain/V1/r2": 1})
    whole = path.read_text()
    for before, after in (("0.125", "0.625"), ("V1", "V2"), ('"step": 3', '"step": 2'), ('p": 1', 'p": 2')):
        assert before in whole
        path.write_text(whole.replace(before, after, 1))
        with pytest.raises(InputError, match=r"results\.jsonl: found .* expected a row"):
            read_rows(path)
    # rows of earlier versions have no sum
    path.write_text(re.sub(r', "crc": \d+', "", whole))
    assert [row["value"] for row in read_rows(path)[0]] == [0.125, 1.0]


def test_rows_are_unique_and_none_is_missing(copied: tuple[Config, Path]) -> None:
    _, folder = copied
    journal = folder / "results.jsonl"
    text = journal.read_text()
    rows = read_rows(journal)[0]
    journal.write_text(text + text)
    assert read_rows(journal)[0] == rows
    lines = text.splitlines(keepends=True)
    journal.write_text("".join(lines[:-3]))
    with pytest.raises(InputError, match=f"found {len(rows) - 3} rows, expected at least the {len(rows)}"):
        read_run(folder)


def test_a_manifest_of_another_kind_or_run_is_named(copied: tuple[Config, Path]) -> None:
    _, folder = copied
    file = folder / "manifest.json"
    whole = read_json(file)
    for content, message in (
        (read_json(probes_file(folder, 0)), "found no manifest as a run writes it, expected .*code_version"),
        ([1, 2], "found no manifest"),
        ({**whole, "packages": "torch"}, "found no manifest"),
        ({**whole, "run": "another"}, "found the files of run another"),
    ):
        write_json(file, content)
        with pytest.raises(InputError, match=message):
            read_run_manifest(folder)
    file.unlink()
    assert read_run_manifest(folder) == {}


def test_missing_probes_and_rows_are_named_by_reports_and_exports(copied: tuple[Config, Path]) -> None:
    _, folder = copied
    probes = probes_file(folder, 2)
    kept = probes.read_bytes()
    probes.unlink()
    with pytest.raises(InputError, match=re.escape(str(probes))):
        read_run(folder).probes(2)
    shutil.copy(folder / "manifest.json", probes)
    with pytest.raises(InputError, match=r"probes/step-000002\.json: found no probes of a snapshot"):
        read_run(folder).probes(2)
    probes.write_bytes(kept)
    journal = folder / "results.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match=r"results\.jsonl: found .* rows, expected at least"):
        read_values(folder, 2)
    journal.unlink()
    with pytest.raises(InputError, match=r"results\.jsonl"):
        read_values(folder, 2)
    (folder / "finished.json").unlink()
    assert read_values(folder, 2) == {}


def test_rows_that_cannot_be_derived_again_are_counted(
    copied: tuple[Config, Path], caplog: pytest.LogCaptureFixture
) -> None:
    _, folder = copied
    journal = folder / "results.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if '"train/' not in line))
    n_left = len(read_rows(journal)[0])
    with pytest.raises(InputError, match="palimpsest track"):
        read_run(folder)
    finish_record(folder)
    assert f"found {n_left} rows, {len(lines)} when the run finished" in caplog.text
    caplog.clear()
    # said once; the run can be read again
    finish_record(folder)
    read_run(folder)
    assert not caplog.text


def test_a_changed_input_ends_in_one_line_and_nothing_is_rewritten(copied: tuple[Config, Path]) -> None:
    config, folder = copied
    manifest = describe_run(load_inputs(config, folder))
    before = (folder / "manifest.json").read_bytes()
    for change, name in (
        ({"tasks": {"digits": {**manifest["tasks"]["digits"], "fingerprint": "0" * 64}}}, "task digits"),
        ({"tasks": {"shapes": {**manifest["tasks"]["shapes"], "fingerprint": "0" * 64}}}, "task shapes"),
        ({"fingerprints": {**manifest["fingerprints"], "brain": "0" * 64}}, "the brain"),
        (
            {"fingerprints": {**manifest["fingerprints"], "brain_description": "0" * 64}},
            "the brain's regions, ",
        ),
        ({"fingerprints": {**manifest["fingerprints"], "pretrained_encoder": "0" * 64}}, "the backbone"),
    ):
        with pytest.raises(InputError, match=f"{name}.*has changed .*restore it, or delete the run's folder"):
            begin_record(config, folder, manifest | change)
    assert (folder / "manifest.json").read_bytes() == before
    # other code goes on, and says so
    whole = begin_record(config, folder, manifest | {"code_version": "later"})
    assert whole["code_version"] != "later"
    assert [one["code_version"] for one in whole["resumed"]] == ["later"]
    assert begin_record(config, folder, manifest | {"code_version": "later"}) == whole


def test_two_at_once_are_refused(copied: tuple[Config, Path]) -> None:
    _, folder = copied
    with hold_run(folder), pytest.raises(InputError, match="another process is working on this run"):
        track.main([str(folder)])
