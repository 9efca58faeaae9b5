"""Paths as users write them, and what is refused behind them."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from harness.storage.errors import InputError

# reading one waits for a writer that may never come
ENDLESS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def user_path(text: str | Path) -> Path:
    """Return a path with the user's home folder for ``~``; an unknown ``~name`` stays as it is."""
    return Path(os.path.expanduser(text))


def hugging_face_home() -> Path:
    """Return the folder that the Hugging Face libraries keep everything in, without importing one."""
    cache = os.getenv("XDG_CACHE_HOME", "~/.cache")
    return user_path(os.getenv("HF_HOME", os.path.join(cache, "huggingface")))


def find_outside(root: Path, files: Sequence[str | Path]) -> list[int]:
    """Return the places of files that do not lie in a folder, once ``..`` and links are followed.

    Parameters
    ----------
    root : Path
    files : sequence of paths
        As opened, not relative to the root.
    """
    inside = os.path.join(os.path.realpath(root), "")
    folders: dict[str, str] = {}  # each is followed once, for there may be a million files
    found = []
    for place, file in enumerate(files):
        folder, name = os.path.split(file)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        real = os.path.join(folders[folder], name)
        if os.path.islink(real):
            real = os.path.realpath(real)
        if not real.startswith(inside):
            found.append(place)
    return found


def refuse_endless(path: Path) -> None:
    """Raise an `InputError` if a path leads to a pipe, socket or device; readers judge the rest."""
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except (OSError, ValueError):
        return
    if kind in ENDLESS:
        raise InputError(f"{path}: found {ENDLESS[kind]}, expected a file")
