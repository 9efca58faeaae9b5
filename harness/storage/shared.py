"""A disk cache of results that several runs share, by the hash of everything they are made from.

The cache lies in the user's cache folder; ``PALIMPSEST_CACHE`` moves it. Deleting it costs only time.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.storage.cache import cache_folder
from harness.storage.errors import InputError
from harness.storage.files import (
    content_hash,
    read_json,
    read_record,
    remove_path,
    write_atomically,
    write_json,
    write_record,
)
from harness.storage.locks import hold_lock

log = logging.getLogger(__name__)


@contextmanager
def hold_cached(name: str) -> Iterator[None]:
    """Wait until no other process makes the cached thing of this name, if a lock can be written."""
    folder = cache_folder() / "locks"
    with ExitStack() as held:
        with suppress(OSError):  # read-only
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(hold_lock(folder / name))
        yield


def make_once(kind: str, key: Mapping[str, Any], target: Path, make: Callable[[], object]) -> bool:
    """Copy the cached folder of a key to `target`, or make it there and cache a copy.

    A cached folder is used only if its files have the hashes that were recorded with them. If several
    processes want the same, one makes it and the others wait. A cache that cannot be written is no error.

    Parameters
    ----------
    kind : str
        Part of the cache, such as ``mappings``.
    key : mapping
        Everything that the folder is made from, as JSON.
    target : Path
        Folder that does not exist yet.
    make : function
        Makes it.

    Returns
    -------
    bool
        Whether it came from the cache.
    """
    folder = cache_folder() / kind / content_hash(key)[:32]
    with hold_cached(f"{kind}-{folder.name}"):
        if folder.exists():
            try:
                _copy_checked(folder, target)
                return True
            except (InputError, OSError) as error:
                log.warning("warning: %s: not used (%s); making it again", folder, error)
                with suppress(OSError):
                    remove_path(folder)
        make()
        try:
            _keep(target, folder, key)
        except OSError as error:
            log.warning("warning: %s: cannot be written (%s); continuing without it", folder, error.strerror)
    return False


def remember(kind: str, key: Mapping[str, Any], find: Callable[[], Any]) -> Any:
    """Return a small result from the cache, or find it out and keep it.

    Nothing waits for other processes: finding the same twice costs less. A file that is missing, damaged or
    cannot be written is no error.

    Parameters
    ----------
    kind : str
        Part of the cache, such as ``facts``.
    key : mapping
        Everything that the result follows from, as JSON.
    find : function
        Finds it out, as JSON; what it raises is not kept.
    """
    name = content_hash(key)[:32]
    path = cache_folder() / kind / f"{name}.json"
    with suppress(InputError, KeyError):
        return read_record(path, f"{kind} {name}")["found"]
    found = find()
    with suppress(OSError):
        write_record(path, {"key": dict(key), "found": found}, f"{kind} {name}")
    return found


def _keep(source: Path, folder: Path, key: Mapping[str, Any]) -> None:
    with write_atomically(folder) as temporary:
        copy = temporary / "content"
        shutil.copytree(source, copy)
        write_json(temporary / "made_from.json", {"key": dict(key), "files": _hash_all(copy)})


def _copy_checked(folder: Path, target: Path) -> None:
    recorded = read_json(folder / "made_from.json").get("files")
    with write_atomically(target) as temporary:
        shutil.copytree(folder / "content", temporary)
        if _hash_all(temporary) != recorded:
            raise InputError("its files have changed")


def _hash_all(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
