"""Equal work of several runs is done once: step 0's fits, evidence and probes, and fine-tuning."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from overrides import SMALL_TRACKING, TINY
from safetensors.numpy import load_file

from harness.commands.finetune import run
from harness.config.compose import load_config
from harness.config.run import Config
from harness.finetuning import loop
from harness.finetuning.reuse import adopt_training, training_note
from harness.runs.inputs import load_inputs
from harness.runs.journal import read_rows
from harness.runs.layout import list_snapshots, run_folder
from harness.storage.files import read_json
from harness.storage.shared import make_once, remember
from harness.tracking import shared_start
from harness.tracking.fitter import Fitter, prepare_split
from harness.tracking.shared_start import SharedStart
from harness.tracking.work_items import WorkItem

OVERRIDES = [*TINY, *SMALL_TRACKING, "finetune.epochs=1"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Cache of a first run, and the run's folder."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PALIMPSEST_CACHE", str(folder / "cache"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        return folder / "cache", run(configure(folder / "runs"))


@pytest.fixture
def first(shared: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a run whose cache is in use."""
    cache, folder = shared
    monkeypatch.setenv("PALIMPSEST_CACHE", str(cache))
    return folder


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Step and refit of every fit that is computed."""
    items: list[tuple[int, int]] = []
    fit = Fitter.fit

    def record(self: Fitter, item: WorkItem, name: str) -> None:
        items.append((item.step, item.refit))
        fit(self, item, name)

    monkeypatch.setattr(Fitter, "fit", record)
    return items


def configure(runs_dir: Path, *overrides: str) -> Config:
    return load_config([*OVERRIDES, f"runs_dir={runs_dir}", *overrides])


def rows_of(folder: Path, *left_out: str) -> dict[tuple[str, int], float]:
    rows = read_rows(folder / "results.jsonl")[0]
    return {(row["name"], row["step"]): row["value"] for row in rows if not row["name"].startswith(left_out)}


def test_step_0_is_done_once_for_all_methods(
    tmp_path: Path, first: Path, fitted: list[tuple[int, int]]
) -> None:
    folder = run(configure(first.parents[1], "method=lora"))
    assert {step for step, _ in fitted} == {step for step in list_snapshots(folder) if step}
    fitted.clear()
    alone = run(configure(tmp_path / "alone", "method=lora", "reuse=false"))
    assert (0, 0) in fitted and (0, 2) in fitted
    # to the last bit, in the run's files too
    assert rows_of(folder) == rows_of(alone)
    for path in sorted(alone.glob("mappings/*/mapping.safetensors")):
        ours, theirs = load_file(folder / path.relative_to(alone)), load_file(path)
        assert all((ours[name] == theirs[name]).all() for name in theirs)
    for path in (alone / "probes").iterdir():
        assert read_json(folder / "probes" / path.name) == read_json(path)


def test_a_damaged_cache_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    made = []

    def make_at(target: Path) -> bool:
        def make() -> None:
            made.append(target)
            target.mkdir()
            (target / "file").write_text("content")

        return make_once("kind", {"a": 1}, target, make)

    assert not make_at(tmp_path / "one") and make_at(tmp_path / "two")
    (kept,) = (tmp_path / "cache").rglob("content/file")
    kept.write_text("damaged")
    assert not make_at(tmp_path / "three") and make_at(tmp_path / "four")
    assert made == [tmp_path / "one", tmp_path / "three"]
    assert "not used (its files have changed)" in caplog.text
    assert (tmp_path / "four" / "file").read_text() == "content"


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").write_text("a file, no folder")
    target = tmp_path / "target"

    def make() -> None:
        target.mkdir()
        (target / "file").write_text("content")

    assert not make_once("kind", {"a": 1}, target, make)
    assert (target / "file").read_text() == "content" and "cannot be written" in caplog.text


def test_a_small_result_is_found_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    found = []

    def find() -> dict[str, object]:
        found.append(1)
        return {"sizes": [len(found), 2.5], "name": None}

    first = remember("kind", {"a": 1}, find)
    assert first == remember("kind", {"a": 1}, find) == {"sizes": [1, 2.5], "name": None}
    assert remember("kind", {"a": 2}, find)["sizes"][0] == remember("kind", {"a": 2}, find)["sizes"][0] == 2
    with pytest.raises(ZeroDivisionError):
        remember("kind", {"a": 3}, lambda: 1 / 0)
    assert remember("kind", {"a": 3}, find)["sizes"][0] == 3
    (kept,) = (path for path in (tmp_path / "cache" / "kind").iterdir() if '"a": 1' in path.read_text())
    whole = kept.read_text()
    for damaged in ("", "[]", whole[:-20], whole.replace("2.5", "3.5"), '{"other": 1}'):
        kept.write_text(damaged)
        assert remember("kind", {"a": 1}, find)["sizes"][0] == len(found)
        assert remember("kind", {"a": 1}, find)["sizes"][0] == len(found)
    assert len(found) == 8


def test_a_small_result_needs_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").write_text("a file, no folder")
    assert [remember("kind", {"a": 1}, lambda number=number: number) for number in (4, 5)] == [4, 5]


MAPPING, EVIDENCE, PROBES = "mappings", "evidence", "probes"


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        (["mapping.steps=5"], {MAPPING, EVIDENCE}),
        (["mapping.voxels_per_pass=7"], set()),
        (["method=lora", "finetune.lr=1e-5", "snapshots.ratio=3"], set()),
        (["evidence.n_draws=3"], {EVIDENCE}),
        (["probes.steps=6"], {PROBES}),
        (["probes.n_test=11"], {PROBES}),
        (["probes.n_drift=7"], {MAPPING, EVIDENCE, PROBES}),
        (["probes.tasks=[shapes,counts]"], {PROBES}),
        (["task.n_test=9"], {PROBES}),
        (["brain.n_voxels=110"], {MAPPING, EVIDENCE, PROBES}),
        (["seed=1"], {MAPPING, EVIDENCE, PROBES}),
        (["backbone=mini_supervised"], {MAPPING, EVIDENCE, PROBES}),
    ],
)
def test_what_each_part_is_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], changed: set[str]
) -> None:
    found: list[tuple[str, dict[str, Any]]] = []

    def record(kind: str, key: dict[str, Any], target: Path, make: Callable[[], object]) -> bool:
        found.append((kind, key))
        return True

    monkeypatch.setattr(shared_start, "make_once", record)
    for more in ([], overrides):
        config = configure(tmp_path / "runs", *more)
        inputs = load_inputs(config, tmp_path / f"{len(more)}")
        (subject,) = inputs.brains.subjects
        subject.folder.mkdir(exist_ok=True)
        prepare_split(config, subject, inputs.brains)
        shared = SharedStart(config, inputs.backbone, inputs.brains, torch.device("cpu"))
        shared.make_mapping(WorkItem(subject, 0, 1), lambda: None)
        shared.make_controls(subject, tmp_path, lambda: None)
        shared.make_probes(inputs.tasks, inputs.probes, tmp_path, lambda: None)
    before, after = found[:3], found[3:]
    assert [kind for kind, _ in before] == [MAPPING, EVIDENCE, PROBES]
    assert {kind for (kind, one), (_, other) in zip(before, after, strict=True) if one != other} == changed


def test_another_brain_does_not_fine_tune_again(
    tmp_path: Path, first: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs_dir = first.parents[1]
    expected = run(configure(tmp_path / "alone", "brain.n_voxels=110", "reuse=false"))

    def fail(*arguments: object) -> None:
        raise AssertionError("a step of fine-tuning")

    monkeypatch.setattr(loop, "take_step", fail)
    capsys.readouterr()
    folder = run(configure(runs_dir, "brain.n_voxels=110"))
    assert f"fine-tuned already by default/{first.name}" in capsys.readouterr().out
    assert read_json(folder / "trained_by.json") == {"run": f"default/{first.name}"}
    assert list_snapshots(folder) == list_snapshots(first)
    assert rows_of(folder) == rows_of(expected)
    # a copy would double the disk that snapshots take
    weights = "snapshots/step-000000/weights.safetensors"
    assert (folder / weights).samefile(first / weights)
    with pytest.raises(AssertionError, match="a step of fine-tuning"):
        run(configure(runs_dir, "mapping.steps=6", "reuse=false"))


def test_other_training_is_trained(first: Path) -> None:
    manifest = read_json(first / "manifest.json")
    changed = {**manifest, "fingerprints": {**manifest["fingerprints"], "task": "0" * 64}}

    def note(*overrides: str, manifest: dict[str, Any] = manifest) -> Path:
        config = configure(first.parents[1], *overrides)
        return training_note(config, run_folder(config), manifest)

    assert note().exists()
    for same in ("mapping.steps=5", "brain.n_voxels=110", "probes.steps=6", "evidence.n_draws=3"):
        assert note(same) == note()
    for other in ("finetune.lr=1e-4", "seed=1", "task.n_train=20", "method=bitfit", "snapshots.ratio=3"):
        assert note(other) != note()
    assert note(manifest=changed) != note()


def test_half_a_takeover_goes_on_and_a_lost_source_trains(
    first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(first.parents[1], "mapping.steps=5")
    folder, manifest = run_folder(config), read_json(first / "manifest.json")
    copytree = shutil.copytree
    copied: list[object] = []

    def killed(*arguments: Any, **options: Any) -> Any:
        if len(copied) == 1:
            raise KeyboardInterrupt
        copied.append(arguments)
        return copytree(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr("harness.finetuning.reuse.shutil.copytree", killed)
        with pytest.raises(KeyboardInterrupt):
            adopt_training(config, folder, manifest)
    assert len(list_snapshots(folder)) == 1
    assert adopt_training(config, folder, manifest) == f"default/{first.name}"
    assert list_snapshots(folder) == list_snapshots(first)
    trained = {key: value for key, value in rows_of(first).items() if key[0].startswith("train/")}
    assert trained.items() <= rows_of(folder).items()
    assert {name.rpartition("/")[2] for name, _ in rows_of(folder, "train/")} == {"grad_norm", "grad_share"}
    assert adopt_training(config, folder, manifest) is None
    # a run bound to a plan trains by itself, and so does one whose source is gone
    bound = config.model_copy(update={"study": config.study.model_copy(update={"plan": "plan.yaml"})})
    shutil.rmtree(folder)
    assert adopt_training(bound, folder, manifest) is None
    (first / "snapshots").rename(first / "away")
    try:
        assert adopt_training(config, folder, manifest) is None and not folder.exists()
    finally:
        (first / "away").rename(first / "snapshots")
