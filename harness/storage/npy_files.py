"""Arrays in npy and npz files, read without pickle; whatever is wrong with one is an error that names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.storage.errors import InputError
from harness.storage.foreign_files import reading


def open_npy(path: Path) -> np.ndarray:
    """Open an array where it lies on disk; nothing is read yet.

    Raises
    ------
    InputError
        If the file is missing, truncated, holds Python objects, or is no npy file.
    """
    with reading(path, "npy file"):
        return np.lib.format.open_memmap(path, mode="r")


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an npz file, by name; errors as of `open_npy`."""
    # opened here: of a broken archive, np.load would leave the file open
    with reading(path, "npz file"), path.open("rb") as file:
        if not path.stat().st_size:
            raise InputError(f"{path}: not a readable npz file (it is empty)")
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(f"{path}: found a single array, accepted: an npz file of several")
        with archive:
            arrays = {name: archive[name] for name in archive.files}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray):
                raise InputError(f"{path}: found {name}, which is no array, accepted: arrays")
        return arrays


def describe(array: np.ndarray) -> str:
    """Shape and type of an array, for an error."""
    return f"shape {array.shape} of {array.dtype}"
