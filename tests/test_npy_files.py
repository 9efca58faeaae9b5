"""npy and npz files: nothing is unpickled, and errors name a broken file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.storage.errors import InputError
from harness.storage.npy_files import (
    describe_array,
    open_npy,
    read_npz,
)


def test_an_array_stays_on_disk_until_it_is_used(tmp_path: Path) -> None:
    array = np.arange(12, dtype=">i2").reshape(3, 4)
    np.save(tmp_path / "a.npy", array)
    found = open_npy(tmp_path / "a.npy")
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable
    np.testing.assert_array_equal(found, array)
    assert describe_array(found) == "shape (3, 4) of >i2"


@pytest.mark.parametrize("damage", ["truncated", "objects", "text", "empty", "folder", "missing", "huge"])
def test_what_is_no_array_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((3, 4)))
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[:-8])
    elif damage == "objects":
        np.save(path, np.array([{}], dtype=object))
    elif damage == "huge":  # the header claims more data than the file holds
        path.write_bytes(content.replace(b"(3, 4)", b"(9**9,)"))
        with pytest.raises(InputError, match=r"a\.npy: not a readable npy file"):
            open_npy(path)
        path.write_bytes(content.replace(b"(3, 4), ", b"(9999999999, 4)"[:8]))
    else:
        path.unlink()
        if damage in ("text", "empty"):
            path.write_text("no array" if damage == "text" else "")
        elif damage == "folder":
            path.mkdir()
    with pytest.raises(InputError, match=r"a\.npy: (no|array a holds Python objects)") as raised:
        open_npy(path)
    assert "\n" not in str(raised.value)


def test_some_arrays_of_an_archive_are_read_without_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, train=np.arange(3), other=np.array([{}], dtype=object))
    assert {name: array.tolist() for name, array in read_npz(path, ["train"]).items()} == {"train": [0, 1, 2]}
    assert read_npz(path, []) == {}
    with pytest.raises(InputError, match=r"unknown array in .*a\.npz 'trian'.* did you mean 'train'"):
        read_npz(path, ["trian"])


def test_archives_are_read_whole_and_without_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, one=np.arange(3), two=np.array(["a", "bc"]))
    found = read_npz(path)
    assert {name: array.tolist() for name, array in found.items()} == {"one": [0, 1, 2], "two": ["a", "bc"]}
    np.savez(path, one=np.array([{}], dtype=object))
    with pytest.raises(InputError, match=r"a\.npz: array one holds Python objects .*: store one\.astype"):
        read_npz(path)
    np.savez(path, one=np.arange(1000))
    path.write_bytes(path.read_bytes().replace(np.arange(500, 510).tobytes(), b"\0" * 80))
    with pytest.raises(InputError, match=r"a\.npz: not a readable npz file .*CRC"):
        read_npz(path)
    with pytest.raises(InputError, match=r"b\.npz: no such file"):
        read_npz(tmp_path / "b.npz")
