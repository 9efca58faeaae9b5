"""Content hashes of files, cached as long as a file is untouched.

Results are identified by the content of their input files. Names, sizes and times do not identify content:
a copy has other times, and a repaired file can keep its size. But hashing gigabytes at every start takes
minutes. So a hash is cached with the size, times and inode of its file and reused only while all of them
match, as in git's index. A file changed less than two seconds before hashing is not cached, because it could
change again without a change of its times.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.storage.cache import cache_folder
from harness.storage.errors import InputError
from harness.storage.files import (
    content_hash,
    read_json,
    write_json,
)
from harness.storage.paths import refuse_endless
from harness.storage.progress import progress_bar

log = logging.getLogger(__name__)

SETTLED = 2.0  # seconds: the coarsest resolution of file times
AT_ONCE = 8  # files


def hash_files(
    folder: Path,
    names: Sequence[str],
    check: Callable[[Path], object] | None = None,
    progress: str | None = None,
) -> dict[str, str]:
    """Hash files below a folder (SHA-256), by name.

    Parameters
    ----------
    folder : Path
    names : sequence of str
        File names relative to `folder`.
    check : function of a path, optional
        Called for every file whose hash is not cached; its exceptions propagate, and nothing is cached. A
        text that it returns follows the hash after a ``+``.
    progress : str, optional
        Label of a progress bar; None shows none.

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
            bar = progress_bar(label=progress if todo else None, total=len(todo))
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
            log.warning("warning: %s: cannot be written (%s); hashes not cached", memory, error.strerror)
    return found


def _mark(path: Path) -> list[int]:
    """Size, modification and inode-change time in nanoseconds, inode: some of it changes with the file."""
    refuse_endless(path)
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _hash(path: Path, check: Callable[[Path], object] | None) -> str:
    with path.open("rb") as file:
        value = hashlib.file_digest(file, "sha256").hexdigest()
    found = None if check is None else check(path)
    return f"{value}+{found}" if isinstance(found, str) and found else value


def _recall(memory: Path) -> dict[str, list[int | str]]:
    """Read the cached hashes; a missing or broken cache is empty."""
    try:
        files = read_json(memory)["files"]
        return {str(name): [*entry] for name, entry in files.items() if len(entry) == 5}
    except (InputError, AttributeError, KeyError, TypeError):
        return {}
