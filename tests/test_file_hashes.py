"""Hashes depend on content only, and a cached hash is never stale."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from harness.storage import file_hashes
from harness.storage.errors import InputError
from harness.storage.file_hashes import hash_files


@pytest.fixture(autouse=True)
def _own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files with old times."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a.npy", "b.npy"):
        write(folder / name, name)
    return folder


def write(path: Path, text: str, age: float = 60.0) -> None:
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Move the clock: tests cannot set a file's change time."""
    now = time.time
    monkeypatch.setattr(file_hashes.time, "time", lambda: now() + 60)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files read, in order."""
    names: list[str] = []
    digest = hashlib.file_digest

    def note(file: BinaryIO, algorithm: str) -> object:
        names.append(Path(file.name).name)
        return digest(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", note)
    return names


def test_hashes_are_of_the_content(folder: Path, tmp_path: Path) -> None:
    expected = {"a.npy": sha("a.npy"), "b.npy": sha("b.npy")}
    assert hash_files(folder, ["a.npy", "b.npy"]) == expected
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    assert hash_files(copy, ["b.npy", "a.npy"]) == expected


@pytest.mark.usefixtures("settled")
def test_what_is_untouched_is_not_read_again(folder: Path, hashed: list[str]) -> None:
    first = hash_files(folder, ["a.npy"])
    assert hash_files(folder, ["a.npy", "b.npy"]) == {**first, "b.npy": sha("b.npy")}
    assert hash_files(folder, ["a.npy", "b.npy"])["a.npy"] == sha("a.npy")
    assert hashed == ["a.npy", "b.npy"]


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("how", ["size", "time", "inode", "same size and time"])
def test_what_was_touched_is_read_again(folder: Path, hashed: list[str], how: str) -> None:
    path = folder / "a.npy"
    hash_files(folder, ["a.npy", "b.npy"])
    before = path.stat()
    if how == "size":
        write(path, "longer than before")
    elif how == "time":
        write(path, "A.npy", age=30)
    elif how == "inode":
        write(folder / "new", "A.npy")
        (folder / "new").replace(path)
    else:
        path.write_text("A.npy")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert hash_files(folder, ["a.npy", "b.npy"])["a.npy"] == sha(path.read_text()) != sha("a.npy")
    assert (sorted(hashed[:2]), hashed[2:]) == (
        ["a.npy", "b.npy"],
        ["a.npy"],
    )  # the first two are read at once


def test_what_has_just_changed_is_not_remembered(folder: Path, hashed: list[str]) -> None:
    hash_files(folder, ["a.npy"])  # just created, despite its modification time
    hash_files(folder, ["a.npy"])
    assert hashed == ["a.npy", "a.npy"]


@pytest.mark.usefixtures("settled")
def test_only_what_passed_the_check_is_remembered(folder: Path) -> None:
    checked: list[str] = []

    def check(path: Path) -> None:
        checked.append(path.name)
        if len(checked) == 1:
            raise InputError(f"{path}: broken")

    hash_files(folder, ["a.npy"])  # cached separately: not checked
    with pytest.raises(InputError, match=r"a\.npy: broken"):
        hash_files(folder, ["a.npy"], check)
    for _ in range(2):
        assert hash_files(folder, ["a.npy"], check) == {"a.npy": sha("a.npy")}
    assert checked == ["a.npy", "a.npy"]


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": {"a.npy": [1]}}', '{"files": 3}'])
def test_a_broken_memory_is_no_memory(folder: Path, content: str, hashed: list[str]) -> None:
    hash_files(folder, ["a.npy"])
    (memory,) = (folder.parent / "cache" / "hashes").iterdir()
    assert json.loads(memory.read_text())["folder"] == str(folder)
    memory.write_text(content)
    assert hash_files(folder, ["a.npy"]) == {"a.npy": sha("a.npy")}
    assert hashed == ["a.npy", "a.npy"]


def test_a_memory_that_cannot_be_written_costs_a_warning(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert hash_files(folder, ["a.npy"]) == {"a.npy": sha("a.npy")}
    assert "hashes not cached" in caplog.text


def test_a_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"data/c\.npy: no such file"):
        hash_files(folder, ["a.npy", "c.npy"])
    (folder / "d.npy").mkdir()
    with pytest.raises(InputError, match=r"data/d\.npy: cannot be read"):
        hash_files(folder, ["d.npy"])
