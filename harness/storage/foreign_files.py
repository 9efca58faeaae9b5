"""Files from outside the project: nothing in them is trusted, and every error names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.storage.errors import InputError


@contextmanager
def as_input_error(path: Path, kind: str) -> Iterator[None]:
    """Turn every exception while reading a foreign file into an `InputError` that names it.

    Parameters
    ----------
    path : Path
    kind : str
        What the file is expected to be, e.g. ``"MATLAB file"``.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except EOFError:
        raise InputError(f"{path}: ends too early; expected a complete {kind}") from None
    except Exception as error:  # readers of binary formats raise anything on broken input
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: not a readable {kind} ({reason})") from None


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
