"""Atomic writes, JSON and safetensors files, and content hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from safetensors import SafetensorError

from harness.storage.errors import InputError
from harness.storage.foreign_files import tell_format
from harness.storage.paths import refuse_endless

if TYPE_CHECKING:
    from torch import Tensor
else:
    # importing torch takes seconds, and reports and queries need no tensors
    Tensor = Any

# a killed process leaves .NAME.HOST-PID.partial; earlier versions wrote no host
_LEFT_OVER = re.compile(r"\.(.+?)\.(?:([0-9a-f]{6})-)?(\d+)(\.replaced)?\.partial")
STALE = 24 * 3600.0
"""Seconds after which what another process was writing is taken for left over, wherever it runs."""


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success, flush it to disk and rename it to `path`.

    Works for files and folders: create either at the yielded path. An existing `path` is replaced. An
    exception leaves nothing behind; an OSError, also one inside safetensors, then names `path`. What a
    killed process leaves, `remove_leftovers` removes.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}{partial_suffix()}")
    replaced = path.with_name(f".{path.name}{partial_suffix('.replaced')}")
    remove_path(temporary)
    try:
        yield temporary
        for part in [temporary, *temporary.rglob("*")] if temporary.is_dir() else [temporary]:
            _flush(part)
        if path.is_dir():
            # a folder cannot be replaced atomically; deleting it in place could leave half of it
            remove_path(replaced)
            os.replace(path, replaced)
        os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or str(path)  # a failed write does not name the file
        raise
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        number = int(code[1])
        raise OSError(number, os.strerror(number), str(path)) from None
    finally:
        remove_path(temporary)
        remove_path(replaced)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; a `NotADirectoryError` says what stands in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        place = next(one for one in (*reversed(folder.parents), folder) if _is_in_the_way(one))
        found = "a link to nowhere" if place.is_symlink() and not place.exists() else "a file"
        raise NotADirectoryError(errno.ENOTDIR, f"found {found}, expected a folder", str(place)) from None


def _is_in_the_way(path: Path) -> bool:
    return os.path.lexists(path) and not path.is_dir()


def _host() -> str:
    """Return six digits for this machine: the numbers of processes are its own."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def partial_suffix(kind: str = "") -> str:
    """Return how names of what this process is writing end; they begin with a dot."""
    return f".{_host()}-{os.getpid()}{kind}.partial"


def remove_leftovers(folder: Path, held: bool = False) -> None:
    """Remove what killed processes have left of `write_atomically` in a folder.

    Parameters
    ----------
    folder : Path
        Need not exist. What cannot be read or removed stays.
    held : bool
        Whether this process holds the folder's lock. Then everything left over is removed, also in folders
        below, unless a living process of this machine has its number. Otherwise only what dead processes of
        this machine have left, or what is older than a day, in the folder itself.
    """
    for path in list(folder.rglob(".*.partial") if held else folder.glob(".*.partial")):
        found = _LEFT_OVER.fullmatch(path.name)
        if found is None or not _is_left_over(path, found[2], int(found[3]), held):
            continue
        with suppress(OSError):
            before = path.with_name(found[1])
            if found[4] and not os.path.lexists(before):
                # killed between two renames: what was to be replaced is all there is
                os.replace(path, before)
            else:
                remove_path(path)


def _is_left_over(path: Path, host: str | None, process: int, held: bool) -> bool:
    with suppress(OSError):
        if time.time() - path.lstat().st_mtime > STALE:
            return True
    ours = host in (None, _host()) if held else host == _host()
    if ours and process != os.getpid() and psutil.pid_exists(process):
        return False
    return held or ours


def remove_path(path: Path) -> None:
    """Remove a file or folder, if it exists; of a link, only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON; non-finite numbers raise ValueError."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON; `InputError` names a missing or broken file."""
    refuse_endless(path)
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None


def content_hash(*parts: Any) -> str:
    """Hash values in order (SHA-256): strings, bytes, numbers, arrays, tensors, lists, dictionaries.

    Arrays are hashed with dtype and shape, dictionaries by sorted key, so equal content always has equal
    hashes.
    """
    digest = hashlib.sha256()
    for part in parts:
        _feed(digest, part)
    return digest.hexdigest()


def _feed(digest: Any, part: Any) -> None:
    torch = sys.modules.get("torch")  # not imported: nothing is a tensor
    if torch is not None and isinstance(part, torch.Tensor):
        part = part.detach().cpu().contiguous()
        # numpy has no bfloat16: hash the bytes and torch's dtype
        digest.update(f"tensor:{part.dtype}:{tuple(part.shape)}".encode())
        digest.update(part.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(part, np.ndarray) and not part.dtype.hasobject:
        digest.update(f"array:{part.dtype.str}:{part.shape}".encode())
        if part.nbytes:
            # no copy: responses may fill half of the memory
            digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    elif isinstance(part, bytes):
        digest.update(f"bytes:{len(part)}:".encode() + part)
    elif isinstance(part, Mapping):
        digest.update(f"mapping:{len(part)}".encode())
        for key in sorted(part):
            _feed(digest, key)
            _feed(digest, part[key])
    elif isinstance(part, list | tuple):
        digest.update(f"sequence:{len(part)}".encode())
        for item in part:
            _feed(digest, item)
    elif isinstance(part, str | int | float | bool | None):
        digest.update(f"{type(part).__name__}:{part!r}".encode())
    else:
        raise TypeError(f"cannot fingerprint a {type(part).__name__}")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file as tensors; `InputError` names a missing or broken file."""
    from safetensors.torch import load_file

    return _read_safetensors(path, load_file)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], place: str) -> None:
    """Write arrays as safetensors, with their hash and their place in a run, such as ``step-000128``.

    An empty place fits everywhere.
    """
    from safetensors.numpy import save_file

    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(whole, path, {"sha256": content_hash(whole), "place": place})


def read_arrays(path: Path, place: str) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote; files of earlier versions have no hash and no place.

    Raises
    ------
    InputError
        Names a file that is missing, broken, changed, or of another place.
    """
    from safetensors import safe_open

    def load(path: Path) -> dict[str, Any]:
        with safe_open(path, "np") as file:
            known = file.metadata() or {}
            # no iterator of its own
            names = file.keys()
            arrays = {name: file.get_tensor(name) for name in names}
        _check_seal(path, known, place, content_hash(arrays))
        return arrays

    return _read_safetensors(path, load)


def write_record(path: Path, content: Mapping[str, Any], place: str) -> None:
    """Write a JSON object with its hash and its place in a run, as `write_arrays` does for arrays."""
    # as it is read back: JSON has lists for tuples, and texts for keys
    plain = json.loads(json.dumps(content, allow_nan=False))
    write_json(path, {**plain, "sealed": {"sha256": content_hash(plain), "place": place}})


def read_record(path: Path, place: str) -> dict[str, Any]:
    """Read what `write_record` wrote; files of earlier versions have no hash and no place.

    Raises
    ------
    InputError
        Names a file that is missing, broken, changed, of another place, or no JSON object.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: found a JSON {type(content).__name__}, expected an object")
    known = content.pop("sealed", {})
    if known:
        _check_seal(path, known, place, content_hash(content))
    return content


def _check_seal(path: Path, known: Any, place: str, found: str) -> None:
    if not isinstance(known, dict):
        raise InputError(f"{path}: found a broken record of its hash; the file has changed")
    if known.get("sha256", found) != found:
        raise InputError(f"{path}: content does not match the hash in it; the file has changed or is damaged")
    there = known.get("place", "")
    if place and there and there != place:
        raise InputError(f"{path}: belongs to {there}, expected {place}; files were exchanged")


def _read_safetensors(path: Path, load_file: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    refuse_endless(path)
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        found = tell_format(path)
        reason = f"found {found}" if found else error
        raise InputError(f"{path}: not a readable safetensors file ({reason})") from None
