"""Files from outside the project: nothing in them is trusted, and every error names the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.storage.errors import InputError
from harness.storage.paths import refuse_endless

# first bytes of files that are often found under another name, with what to do about it
FORMATS = (
    (b"PK", "a zip archive"),
    (b"\x93NUMPY", "a numpy array (.npy)"),
    (b"MATLAB 5.0", "a MATLAB file (read it with scipy.io.loadmat and save its arrays with numpy.savez)"),
    (b"\x89HDF\r\n", "an HDF5 file (MATLAB 7.3 and Keras write such files, too)"),
    (b"\x80", "a pickle, which may run code and is not loaded"),
    (b"\x1f\x8b", "a gzip archive (unpack it)"),
    (b"GGUF", "a GGUF file"),
    (b"<!DOCTYPE", "a web page (the download failed)"),
    (b"<!doctype", "a web page (the download failed)"),
    (b"<html", "a web page (the download failed)"),
    (b"version https://git-lfs", "a Git LFS pointer, not the content: run git lfs pull"),
    (b"/annex/objects/", "a git-annex pointer, not the content: run datalad get, or git annex get"),
)


def tell_format(path: Path) -> str | None:
    """Say in words what a file is by its first bytes, whatever its name; None if they are not known.

    Files whose content is elsewhere (Git LFS, git-annex) are recognised, also by a link that leads nowhere.
    """
    refuse_endless(path)
    try:
        if path.is_symlink() and not path.exists() and "annex" in os.readlink(path):
            return "a link into git-annex without the content: run datalad get, or git annex get"
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:
        return None
    return next((words for first, words in FORMATS if start.startswith(first)), None)


@contextmanager
def as_input_error(path: Path, kind: str) -> Iterator[None]:
    """Turn every exception while reading a foreign file into an `InputError` that names it.

    Parameters
    ----------
    path : Path
    kind : str
        What the file is expected to be, e.g. ``"MATLAB file"``.
    """
    refuse_endless(path)
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        found = tell_format(path)
        raise InputError(f"{path}: {f'found {found}' if found else 'no such file'}") from None
    except EOFError:
        if found := _tell_pointer(path):
            raise InputError(f"{path}: found {found}") from None
        raise InputError(f"{path}: ends too early; expected a complete {kind}") from None
    except Exception as error:  # readers of binary formats raise anything on broken input
        if found := _tell_pointer(path):
            raise InputError(f"{path}: found {found}") from None
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: not a readable {kind} ({reason})") from None


def _tell_pointer(path: Path) -> str | None:
    """What a file is, if it only points to its content."""
    found = tell_format(path)
    return found if found is not None and "not the content" in found else None


@contextmanager
def quiet_nibabel() -> Iterator[None]:
    """Silence nibabel's remarks on valid files, such as that CIFTI has no voxel size."""
    from nibabel.imageglobals import logger

    before = logger.level
    logger.setLevel("CRITICAL")
    try:
        yield
    finally:
        logger.setLevel(before)
