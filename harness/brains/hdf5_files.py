"""Arrays in HDF5 files, from the file itself: links and storage that lead to other files are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from harness.storage import (
    InputError,
    as_input_error,
)

OUTSIDE = "expected the numbers in this file: such as a copy by h5py, or h5repack"


@contextmanager
def open_dataset(path: Path, name: str, *kinds: Any) -> Iterator[Any]:
    """Open a data set at the top of an HDF5 file, read-only; no other file is opened.

    Parameters
    ----------
    path : Path
    name : str
    *kinds : types of numpy
        One of which its numbers are of, such as ``np.integer``.

    Yields
    ------
    h5py.Dataset

    Raises
    ------
    InputError
        If the file is missing or broken, holds no such data set, or keeps it in another file: by a link, as
        external storage, or as a virtual data set.
    """
    import h5py  # slow to import

    with as_input_error(path, "HDF5 file"), h5py.File(path, "r") as file:
        # before it is followed: opening a link opens the file that it names
        link = file.get(name, getlink=True) if name in file.keys() else None  # noqa: SIM118
        if isinstance(link, h5py.ExternalLink):
            raise InputError(f"{path}: found /{name} as a link to {link.filename}, {OUTSIDE}")
        if isinstance(link, h5py.SoftLink):
            raise InputError(f"{path}: found /{name} as a link to {link.path}, {OUTSIDE}")
        found = file[name] if link is not None else None
        if not isinstance(found, h5py.Dataset) or not issubclass(found.dtype.type, kinds):
            names = ", ".join(file) or "nothing"
            what = "bytes" if kinds == (np.uint8,) else "numbers"
            raise InputError(f"{path}: found {names}, expected a data set /{name} of {what}")
        if found.external:
            raise InputError(f"{path}: found /{name} stored in {found.external[0][0]}, {OUTSIDE}")
        if found.is_virtual:
            sources = sorted({source.file_name for source in found.virtual_sources()})
            raise InputError(f"{path}: found /{name} as a view of {', '.join(sources)}, {OUTSIDE}")
        yield found
