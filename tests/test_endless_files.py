"""Named pipes where a file is expected: one line, instead of waiting for a writer."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from made_images import make_image

from harness.backbones.weight_files import read_weight_file
from harness.brains.grayordinates.stimulus_table import read_table as read_stimulus_table
from harness.brains.neuroimages import fingerprint_file, open_image
from harness.config.claim import read_plan
from harness.config.compose import load_config, read_config
from harness.mappings.held_out_list import read_list
from harness.runs.journal import read_rows
from harness.storage.errors import InputError
from harness.storage.file_hashes import hash_files
from harness.storage.files import read_json, read_weights
from harness.storage.foreign_files import tell_format
from harness.storage.image_files import decode_image, hash_images
from harness.storage.npy_files import open_npy, read_npz
from tasks.load import load_task
from tasks.table import read_table

READERS: dict[str, Callable[[Path], object]] = {
    "a.npy": open_npy,
    "a.npz": read_npz,
    "a.nii": open_image,
    "a.nii.gz": open_image,
    "a.mgh": open_image,
    "a.bin": fingerprint_file,
    "a.json": read_json,
    "a.safetensors": read_weights,
    "a.pth": read_weight_file,
    "a.yaml": read_plan,
    "config.yaml": read_config,
    "a.txt": read_list,
    "results.jsonl": read_rows,
    "a.png": decode_image,
    "b.png": lambda path: hash_images(path.parent, [path.name]),
    "b.bin": lambda path: hash_files(path.parent, [path.name]),
    "c.bin": tell_format,
    "a.tsv": read_stimulus_table,
    "a.csv": lambda path: read_table(path, "image"),
    "a.parquet": lambda path: read_table(path, "image"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: found a named pipe, expected a file"):
        READERS[name](tmp_path / name)


def test_a_link_to_a_device_and_a_socket_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npy").symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"a\.npy: found a device, expected a file"):
        open_npy(tmp_path / "a.npy")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "b.npy"))  # addresses of sockets are short
        with pytest.raises(InputError, match=r"b\.npy: found a socket, expected a file"):
            open_npy(tmp_path / "b.npy")


@pytest.mark.parametrize("source", ["imagefolder", "table", "hub"])
def test_a_pipe_among_the_images_of_a_task(source: str, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for image in range(3):
            make_image(image).save(tmp_path / name / f"{image}.png")
        os.mkfifo(tmp_path / name / "a.png")
    (tmp_path / "a.csv").write_text("image,label\ncat/a.png,cat\ndog/a.png,dog\n")
    settings = {"table": {"table": str(tmp_path / "a.csv")}, "hub": {"repository": "a/b"}}.get(source, {})
    root = {} if source == "table" else {"root": str(tmp_path)}
    with pytest.raises(InputError, match=r"a\.png: found a named pipe, expected a file"):
        load_task("made", source=source, **settings, **root)


def test_a_pipe_among_the_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "task").mkdir()
    os.mkfifo(tmp_path / "task" / "mine.yaml")
    monkeypatch.setenv("PALIMPSEST_CONFIGS", str(tmp_path))
    with pytest.raises(InputError, match=r"mine\.yaml: found a named pipe, expected a file"):
        load_config([])
