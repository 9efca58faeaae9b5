"""Files of other people: nothing in them is trusted; whatever is wrong is an error that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.storage.errors import InputError


@contextmanager
def as_input_error(path: Path, kind: str) -> Iterator[None]:
    """Read a foreign file: all that goes wrong inside is an `InputError` that names it.

    Parameters
    ----------
    path : Path
    kind : str
        What the file should be, e.g. ``"MATLAB file"``.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except EOFError:
        raise InputError(f"{path}: ends too early: not the whole of a {kind}") from None
    except Exception as error:  # readers of binary formats raise whatever the bytes lead them to
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: not a readable {kind} ({reason})") from None


@contextmanager
def quiet_nibabel() -> Iterator[None]:
    """Without nibabel's remarks on files that are in order, such as that CIFTI has no voxel size."""
    from nibabel.imageglobals import logger

    before = logger.level
    logger.setLevel("CRITICAL")
    try:
        yield
    finally:
        logger.setLevel(before)
