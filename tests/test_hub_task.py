"""Data sets of the hub: from its caches, from a local copy, and from neither."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
from huggingface_hub import constants
from made_images import make_image, write_hub_copy

from harness.storage.errors import InputError
from tasks.load import load_task
from tasks.task import Task

NAMES = ("annual crop", "river_bank", "forest")
SPLITS = {"train": [0, 1, 2, 0, 1, 2, 1], "test": [2, 1, 0]}
COMMIT = "0" * 40


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    datasets.disable_progress_bars()


def load(**settings: object) -> Task:
    return load_task("made", source="hub", repository="someone/made", **settings)


def in_the_hub_cache(tmp_path: Path, **copy: object) -> None:
    """Lay out a download as huggingface_hub does."""
    folder = tmp_path / "hub" / "datasets--someone--made"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    arguments = {"splits": SPLITS, "names": NAMES, "columns": ("image", "label")} | copy
    write_hub_copy(folder / "snapshots" / COMMIT, **arguments)


def check(task: Task) -> None:
    assert task.class_names == ("annual crop", "river bank", "forest")
    assert task.train["label"] == SPLITS["train"] and task.test["label"] == SPLITS["test"]
    np.testing.assert_array_equal(np.asarray(task.test[1]["image"]), np.asarray(make_image(1001, 100)))


def test_from_the_hubs_cache(tmp_path: Path) -> None:
    in_the_hub_cache(tmp_path)
    task = load()
    check(task)
    # rows of the file converted from parquet, not copies in memory
    assert task.train.cache_files and len(task.train.data) == 7
    assert len(load(n_per_class=2).train) == 6
    assert load().fingerprint == task.fingerprint


def test_from_a_copy_in_a_folder(tmp_path: Path) -> None:
    write_hub_copy(tmp_path / "copy", SPLITS, NAMES, ("img", "fine_label"))
    task = load(root=str(tmp_path / "copy"), image_column="img", label_column="fine_label")
    check(task)
    with pytest.raises(InputError, match=r"unknown column of .*copy, train 'image'.* mean 'img'"):
        load(root=str(tmp_path / "copy"))
    with pytest.raises(
        InputError, match=r"column fine_label: found .*ClassLabel.*, expected a column of images"
    ):
        load(root=str(tmp_path / "copy"), image_column="fine_label")
    with pytest.raises(InputError, match=r"unknown split of .*'tran'.* mean 'train'"):
        load(root=str(tmp_path / "copy"), train="tran")
    with pytest.raises(InputError, match=r"copy: cannot be loaded: .*'small' not found.*default"):
        load(root=str(tmp_path / "copy"), subset="small")
    with pytest.raises(
        InputError, match=r"found single labels, .*set task.multi_label=false, or task.separator"
    ):
        load(root=str(tmp_path / "copy"), image_column="img", label_column="fine_label", multi_label=True)


@pytest.mark.parametrize("kept", [True, False])
def test_a_changed_label_is_seen(kept: bool, tmp_path: Path) -> None:
    write_hub_copy(tmp_path / "copy", SPLITS, NAMES, ("image", "label"))
    check(load(root=str(tmp_path / "copy")))
    (file,) = (tmp_path / "copy").rglob("*train*.parquet")
    before = file.stat()
    write_hub_copy(tmp_path / "other", {**SPLITS, "train": [2, 1, 0, 0, 1, 2, 1]}, NAMES, ("image", "label"))
    shutil.copy(next((tmp_path / "other").rglob("*train*.parquet")), file)
    if kept:  # as cp -p, tar and rsync do
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load(root=str(tmp_path / "copy")).train["label"] == [2, 1, 0, 0, 1, 2, 1]


# datasets leaves metadata.csv open
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_changed_label_and_image_of_files_are_seen(tmp_path: Path) -> None:
    root = tmp_path / "my photos (1), é#=x"

    def write(first: int, labels: str) -> list[str]:
        for split in ("train", "test"):
            (root / split).mkdir(parents=True, exist_ok=True)
            for image in range(3):
                file = root / split / f"{image}.png"
                make_image(first + image + 100 * (split == "test")).save(file)
                os.utime(file, (1e9, 1e9))
            table = root / split / "metadata.csv"
            rows = "".join(f"{image}.png,{label}\n" for image, label in enumerate(labels))
            table.write_text(f"file_name,label\n{rows}")
            os.utime(table, (1e9, 1e9))
        task = load(root=str(root))
        shown = np.asarray(make_image(first))
        np.testing.assert_array_equal(np.asarray(task.train[0]["image"]), shown)
        return [task.class_names[label] for label in task.train["label"]]

    assert write(0, "aba") == ["a", "b", "a"]
    assert write(0, "bba") == ["b", "b", "a"]
    assert write(50, "bba") == ["b", "b", "a"]
    gc.collect()  # or the open files are met in another test


def test_a_path_that_datasets_cannot_open_is_named(tmp_path: Path) -> None:
    (tmp_path / "my [1]").mkdir()
    with pytest.raises(InputError, match=r"task.root: found .*my \[1\], expected a path without \*"):
        load(root=str(tmp_path / "my [1]"))


def test_lists_of_labels(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "labels": datasets.Sequence(datasets.ClassLabel(names=["No Finding", "Mass", "Hernia"])),
        }
    )
    rows = [[0], [1], [1, 2], [2], [0], [1]]
    for split, first in (("train", 0), ("test", 50)):
        data = datasets.Dataset.from_dict(
            {"image": [make_image(first + i) for i in range(6)], "labels": rows}, features=features
        )
        (tmp_path / "copy").mkdir(exist_ok=True)
        data.to_parquet(tmp_path / "copy" / f"{split}.parquet")
    settings = {"root": str(tmp_path / "copy"), "label_column": "labels"}
    task = load(**settings, multi_label=True, no_label="No Finding")
    assert task.class_names == ("Mass", "Hernia")
    assert task.test["label"] == [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0], [1, 0]]
    with pytest.raises(InputError, match=r"found lists, .*set task.multi_label=true"):
        load(**settings)


def test_neither_hub_nor_cache(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"someone/made: the hub at .* does not answer and neither") as error:
        load()
    message = str(error.value)
    assert "\n" not in message and "task.root=DIR" in message and "imagefolder" in message
    assert str(tmp_path / "hub") in message and str(tmp_path / "datasets") in message


def test_a_silent_hub_is_found_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    start = time.perf_counter()
    with pytest.raises(InputError, match="does not answer"):
        load()
    assert time.perf_counter() - start < 20  # 23 s of retries without the probe, on an idle machine
    assert constants.HF_HUB_OFFLINE is False  # as before


def test_loading_scripts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "copy.py").write_text("")
    with pytest.raises(InputError, match=r"scripts are no longer supported.*expected .* parquet"):
        load(root=str(tmp_path / "copy"))
    shutil.rmtree(tmp_path / "copy")
    with pytest.raises(InputError, match=r"copy: no such folder; expected a copy of someone/made"):
        load(root=str(tmp_path / "copy"))


def test_a_broken_image_in_a_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    for split in ("train", "test"):
        rows = [{"bytes": b"nothing", "path": f"{split}_0.jpg"}, {"bytes": b"nothing", "path": None}]
        data = datasets.Dataset.from_dict({"image": rows, "label": [0, 1]}).cast_column(
            "image", datasets.Image()
        )
        data.to_parquet(tmp_path / "copy" / f"{split}.parquet")
    with pytest.raises(InputError, match=r"copy, image train_0.jpg: not a readable image"):
        load(root=str(tmp_path / "copy"))
