"""Content hashes of files, computed once and remembered for as long as a file is untouched.

Results are known by the content of the files they came from. Names, sizes and times do not identify it: a
copy has other times, and a file that was mended can have its old size. But hashing gigabytes at every start
takes minutes. So a hash is kept beside size, times and inode of its file, and used again only while all of
them are the same, as git does in its index. A file that changed within two seconds before it was hashed is
not remembered, because it could change again with equal times.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from harness.storage.cache import cache_folder
from harness.storage.errors import InputError
from harness.storage.files import (
    content_hash,
    read_json,
    write_json,
)

log = logging.getLogger(__name__)

SETTLED = 2.0  # seconds after which a change of a file changes its times
AT_ONCE = 8  # files


def hash_files(
    folder: Path,
    names: Sequence[str],
    check: Callable[[Path], object] | None = None,
    progress: str | None = None,
) -> dict[str, str]:
    """SHA-256 of files below a folder, by name.

    Parameters
    ----------
    folder : Path
    names : sequence of str
        Of files, relative to `folder`.
    check : function of a path, optional
        Called for every file whose hash is not remembered; what it raises is raised, and nothing remembered.
    progress : str, optional
        Label of a progress bar; none without.

    Raises
    ------
    InputError
        If a file is missing or cannot be read.
    """
    kind = "" if check is None else check.__qualname__
    memory = cache_folder() / "hashes" / f"{content_hash(str(folder.resolve()), kind)[:20]}.json"
    known = _recall(memory)
    now = time.time()
    try:
        marks = {name: _mark(folder / name) for name in names}
        todo = [name for name in marks if known.get(name, [None])[:-1] != marks[name]]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            bar = tqdm(total=len(todo), desc=progress, disable=progress is None or None, leave=False)
            for name, value in zip(
                todo, pool.map(lambda name: _hash(folder / name, check), todo), strict=True
            ):
                known[name] = [*marks[name], value]
                bar.update()
            bar.close()
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such file") from None
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from None
    found = {name: str(known[name][-1]) for name in marks}
    for name in todo:
        if max(marks[name][1:3]) > (now - SETTLED) * 1e9:
            del known[name]
    if todo:
        try:
            write_json(memory, {"folder": str(folder.resolve()), "files": known})
        except OSError as error:
            log.warning("warning: %s: cannot be written (%s); going on without", memory, error.strerror)
    return found


def _mark(path: Path) -> list[int]:
    """What changes when a file is touched: size, times of content and of inode in nanoseconds, inode."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _hash(path: Path, check: Callable[[Path], object] | None) -> str:
    with path.open("rb") as file:
        value = hashlib.file_digest(file, "sha256").hexdigest()
    if check is not None:
        check(path)
    return value


def _recall(memory: Path) -> dict[str, list[int | str]]:
    """What was remembered; a memory that is missing or broken is empty."""
    try:
        files = read_json(memory)["files"]
        return {str(name): [*entry] for name, entry in files.items() if len(entry) == 5}
    except (InputError, AttributeError, KeyError, TypeError):
        return {}
