from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import save_file

from harness.storage import files
from harness.storage.errors import InputError
from harness.storage.files import (
    content_hash,
    read_json,
    read_weights,
    remove_path,
    write_atomically,
    write_json,
)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with write_atomically(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names_in(path.parent) == ["file.txt"]


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, stop: type[BaseException]
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(stop), write_atomically(path) as temporary:
        temporary.write_text("half")
        raise stop
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["file.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("one", "two"):
        with write_atomically(path) as temporary:
            (temporary / "inner").mkdir(parents=True)
            (temporary / "inner" / content).write_text(content)
    assert names_in(path / "inner") == ["two"]
    assert names_in(tmp_path) == ["folder"]


def test_a_failed_folder_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(OSError, match="disk full"), write_atomically(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
        raise OSError("disk full")
    assert names_in(path) == ["old"]
    assert names_in(tmp_path) == ["folder"]


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_names_the_file(failure: Exception, tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with pytest.raises(OSError) as caught, write_atomically(path) as temporary:
        temporary.mkdir()
        raise failure
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert names_in(tmp_path) == []


def test_a_folder_is_never_half_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # files being deleted are never under the folder's own name
    path, seen = tmp_path / "folder", []
    path.mkdir()
    (path / "old").touch()

    def watch(target: Path) -> None:
        seen.append((target, names_in(path)))
        remove_tree(target)

    remove_tree = files.shutil.rmtree
    monkeypatch.setattr(files.shutil, "rmtree", watch)
    with write_atomically(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert [content for _, content in seen] == [["new"]]
    assert path not in [target for target, _ in seen]


def test_kill_in_the_middle_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "snapshots" / "step-000001"
    path.mkdir(parents=True)
    (path / "whole").touch()
    # without importing torch, which takes seconds
    source = Path(files.__file__).read_text(encoding="utf-8")
    start, end = source.index("@contextmanager"), source.index("def write_json")
    code = (
        "import errno, hashlib, os, platform, shutil, signal, sys\nfrom collections.abc import Iterator\n"
        "from contextlib import contextmanager, suppress\nfrom pathlib import Path\n"
        f"{source[start:end]}\n"
        "with write_atomically(Path(sys.argv[1])) as temporary:\n"
        "    temporary.mkdir()\n    (temporary / 'half').touch()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert names_in(path) == ["whole"]
    (left,) = [name for name in names_in(path.parent) if name != "step-000001"]
    assert left.startswith(".step-000001.") and left.endswith(".partial")  # matches .gitignore
    assert list(path.parent.glob("step-*")) == [path]


def test_what_was_left_by_a_killed_process_of_the_same_number_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / f".folder{files.partial_suffix()}"
    left.mkdir()
    (left / "stale").touch()
    with write_atomically(tmp_path / "folder") as temporary:
        temporary.mkdir()
    assert names_in(tmp_path) == ["folder"]
    assert names_in(tmp_path / "folder") == []


def test_remove(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "file").touch()
    for name in ("folder", "file", "absent"):
        remove_path(tmp_path / name)
    assert names_in(tmp_path) == []


def test_of_a_link_only_the_link_is_removed(tmp_path: Path) -> None:
    (tmp_path / "there" / "inner").mkdir(parents=True)
    for target in ("there", "nowhere"):
        (tmp_path / "link").symlink_to(target)
        remove_path(tmp_path / "link")
        assert names_in(tmp_path) == ["there"]
    (tmp_path / "link").symlink_to("there")
    with write_atomically(tmp_path / "link") as temporary:
        temporary.touch()
    assert (tmp_path / "link").is_file() and names_in(tmp_path / "there") == ["inner"]


@pytest.fixture
def dead() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def write_leftovers(folder: Path, dead: int) -> list[str]:
    """Write what processes of several kinds have left; names say whose."""
    here, living = files.partial_suffix().split(".")[1].split("-")[0], os.getppid()
    names = [
        *(f".dead.{here}-{dead}.partial", f".dead.{here}-{dead}.replaced.partial"),
        *(f".living.{here}-{living}.partial", f".elsewhere.{'0' * 6}-{dead}.partial"),
        *(f".earlier.{dead}.partial", ".foreign.partial", ".other.txt.swp"),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).mkdir()
        (folder / name / "inner").touch()
    (folder / "dead").mkdir()
    return names


def test_whoever_holds_a_folder_removes_what_others_left(tmp_path: Path, dead: int) -> None:
    write_leftovers(tmp_path, dead)
    write_leftovers(tmp_path / "mappings", dead)
    files.remove_leftovers(tmp_path, held=True)
    left = [
        ".foreign.partial",
        next(name for name in names_in(tmp_path) if "living" in name),
        ".other.txt.swp",
    ]
    assert names_in(tmp_path) == sorted([*left, "dead", "mappings"])
    assert names_in(tmp_path / "mappings") == sorted([*left, "dead"])


def test_in_a_shared_folder_only_what_nobody_writes_any_more_is_removed(tmp_path: Path, dead: int) -> None:
    names = write_leftovers(tmp_path, dead)
    write_leftovers(tmp_path / "below", dead)
    files.remove_leftovers(tmp_path)
    assert names_in(tmp_path) == sorted([*names[2:], "dead", "below"])
    assert len(names_in(tmp_path / "below")) == len(names) + 1
    for name in names[2:]:
        os.utime(tmp_path / name, (0, 0))
    files.remove_leftovers(tmp_path)
    assert names_in(tmp_path) == sorted([".foreign.partial", ".other.txt.swp", "dead", "below"])
    files.remove_leftovers(tmp_path / "absent")


def test_what_was_moved_away_to_be_replaced_comes_back(tmp_path: Path, dead: int) -> None:
    left = tmp_path / f".step-1{files.partial_suffix('.replaced')}".replace(f"-{os.getpid()}", f"-{dead}")
    left.mkdir()
    (left / "whole").touch()
    files.remove_leftovers(tmp_path, held=True)
    assert names_in(tmp_path) == ["step-1"] and names_in(tmp_path / "step-1") == ["whole"]


@pytest.mark.parametrize("below", ["", "inner/folder"])
def test_what_is_no_folder_is_named(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name, found in (("file", "a file"), ("link", "a link to nowhere")):
        with pytest.raises(NotADirectoryError, match=f"found {found}, expected a folder") as caught:
            write_json(tmp_path / name / below / "x.json", {})
        assert caught.value.filename == str(tmp_path / name)


def test_json_round_trip(tmp_path: Path) -> None:
    content = {"step": 3, "name": "colour ×", "values": [0.1, None, True]}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    assert (tmp_path / "a.json").read_text(encoding="utf-8").endswith("}\n")


def test_json_without_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert names_in(tmp_path) == []


def test_broken_json_is_named(tmp_path: Path) -> None:
    broken, binary = tmp_path / "broken.json", tmp_path / "binary.json"
    broken.write_text('{"step": 3')
    binary.write_bytes(b"\xff\xfe{}")
    for path, problem in (
        (broken, "not valid JSON"),
        (binary, "not valid JSON"),
        (tmp_path / "absent.json", "no such file"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(InputError, match=problem) as error:
            read_json(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_different_content_has_different_hashes() -> None:
    numbers = np.arange(6)
    different = [
        numbers,
        numbers[::-1],
        numbers.astype(np.int32),
        numbers.astype(np.float64),
        numbers.reshape(2, 3),
        numbers.reshape(3, 2),
        [numbers[:3], numbers[3:]],
        torch.zeros(2, dtype=torch.bfloat16),
        torch.zeros(2, dtype=torch.float16),
        torch.zeros(2, 1, dtype=torch.float16),
        1,
        True,
        1.0,
        "1",
        b"1",
        None,
        [1],
        [[1]],
        [1, 23],
        [12, 3],
        ["a", "bc"],
        ["ab", "c"],
        {"a": 1},
        {"a": True},
        {"b": 1},
        {"a": 1, "b": {"c": 2}},
        {"a": 1, "b": {}, "c": 2},
        [],
        {},
    ]
    assert len({content_hash(part) for part in different}) == len(different)
    assert content_hash("a", "b") != content_hash("b", "a")
    assert content_hash("a") != content_hash("a", None)


def test_equal_content_has_equal_hashes() -> None:
    numbers = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert content_hash(numbers) == content_hash(np.asfortranarray(numbers))
    assert content_hash(numbers[:, ::2]) == content_hash(numbers[:, ::2].copy())
    tensor = torch.from_numpy(numbers)
    assert content_hash(tensor) == content_hash(tensor.clone().requires_grad_())
    assert content_hash(tensor.T) == content_hash(tensor.T.contiguous())
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert content_hash((1, 2)) == content_hash([1, 2])
    assert content_hash(torch.tensor(2.0)) == content_hash(torch.tensor([2.0, 3.0])[0])
    assert content_hash(torch.zeros(0, 3)) == content_hash(torch.ones(0, 3))


def test_the_hash_never_changes() -> None:
    # fingerprints in old manifests must stay valid
    assert content_hash("a", 1, [2.5, None], {"b": b"c"}).startswith("2f444f0260b2eb6c")


def test_what_has_no_content_is_not_hashed() -> None:
    for part in (object(), {1, 2}, np.array([object()])):
        with pytest.raises(TypeError, match="cannot fingerprint"):
            content_hash(part)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(json_values, json_values)
def test_hashes_tell_values_apart_as_json_does(one: object, other: object) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (content_hash(one) == content_hash(other)) == same


def test_weights_round_trip(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(2, 3), "b": torch.arange(3)}
    save_file(tensors, tmp_path / "weights.safetensors")
    found = read_weights(tmp_path / "weights.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_unreadable_weights_are_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_file({"a": torch.randn(20, 3)}, whole)
    data = whole.read_bytes()
    contents = {"truncated": data[:-7], "beheaded": data[:5], "empty": b"", "text": b"not weights at all"}
    for name, content in contents.items():
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    (tmp_path / "folder.safetensors").mkdir()
    for name in (*contents, "folder", "absent"):
        path = tmp_path / f"{name}.safetensors"
        problem = "no such file" if name == "absent" else "not a readable safetensors file"
        with pytest.raises(InputError, match=problem) as error:
            read_weights(path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)
