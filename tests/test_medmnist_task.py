"""MedMNIST's npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.config.compose import (
    group_options,
    load_config,
)
from harness.config.task import MedmnistTaskConfig
from harness.storage.errors import InputError
from tasks.load import load_task
from tasks.task import Task


def write(root: Path, name: str = "made.npz", channels: tuple[int, ...] = (), **changes: np.ndarray) -> Path:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, n in (("train", 12), ("val", 4), ("test", 6)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 28, 28, *channels), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 3)[:, None].astype(np.uint8)
    np.savez(root / name, **(arrays | changes))
    return root / name


def load(root: Path, **settings: object) -> Task:
    arguments = {"flag": "made", "class_names": ("a_b", "c", "d")} | settings
    return load_task("made", source="medmnist", root=str(root), **arguments)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_splits_and_images(tmp_path: Path, channels: tuple[int, ...]) -> None:
    file = write(tmp_path, channels=channels)
    task = load(tmp_path)
    assert task.class_names == ("a b", "c", "d") and task.test["label"] == [0, 1, 2, 0, 1, 2]
    with np.load(file) as arrays:
        image = arrays["test_images"][4]
    np.testing.assert_array_equal(
        np.asarray(task.test[4]["image"]).reshape(28, 28, 3)[..., 0], image.reshape(28, 28, -1)[..., 0]
    )
    assert len(load(tmp_path, n_per_class=2, test="val").train) == 6
    assert len(load(tmp_path, test="val").test) == 4


def test_several_labels(tmp_path: Path) -> None:
    labels = {
        f"{split}_labels": np.eye(3, dtype=np.uint8)[np.arange(n) % 3]
        for split, n in (("train", 12), ("test", 6))
    }
    write(tmp_path, **labels)
    task = load(tmp_path, multi_label=True)
    assert task.multi_label and task.test["label"][1] == [0, 1, 0]
    with pytest.raises(InputError, match=r"found 3 label\(s\) per image"):
        load(tmp_path)


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"made.npz: no such file; .*zenodo"):
        load(tmp_path)
    write(tmp_path)
    with pytest.raises(InputError, match=r"unknown MedMNIST file .*'mad'.* mean 'made'"):
        load(tmp_path, flag="mad")
    with pytest.raises(
        InputError,
        match=r"train: found labels from 0 to 2, out of range in 4 of 12 images; expected 0 to 1",
    ):
        load(tmp_path, class_names=("a", "b"))
    with pytest.raises(InputError, match=r"unknown array .*'tests_labels'.* mean 'test_labels'"):
        load(tmp_path, test="tests")
    for value in (-1, 3):
        labels = np.zeros((6, 1), dtype=np.int8)
        labels[2] = value
        write(tmp_path, test_labels=labels)
        low, high = min(value, 0), max(value, 0)
        found = rf"made.npz, test: found labels from {low} to {high}, out of range in 1 of 6 images"
        with pytest.raises(InputError, match=rf"{found}; expected 0 to 2, places in task.class_names"):
            load(tmp_path)
    labels = np.ones((12, 3), dtype=np.int8)
    labels[4, 1] = -1
    write(tmp_path, train_labels=labels)
    with pytest.raises(
        InputError, match=r"train: found labels from -1 to 1, .* 1 of 12 images; expected 0 to 1"
    ):
        load(tmp_path, multi_label=True)
    write(tmp_path, train_images=np.zeros((12, 28, 28, 28), np.uint8))
    with pytest.raises(InputError, match=r"not the three-dimensional sets"):
        load(tmp_path)
    write(tmp_path, train_labels=np.array([[None]] * 12, dtype=object))
    with pytest.raises(InputError, match=r"made.npz: array train_labels holds Python objects"):
        load(tmp_path)
    (tmp_path / "made.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"made.npz: not a readable npz file .it is cut off"):
        load(tmp_path)


def test_the_two_dimensional_family_is_ready() -> None:
    found = [
        load_config([f"task={name}"]).task
        for name in group_options("task")
        if name.endswith("mnist") and name != "mnist"
    ]
    assert len(found) == 12
    for config in found:
        assert isinstance(config, MedmnistTaskConfig) and config.flag == config.name and config.class_names
