"""Arrays in npy and npz files, read without pickle; every error names the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.storage.errors import InputError, unknown_name
from harness.storage.foreign_files import as_input_error


def open_npy(path: Path) -> np.ndarray:
    """Map an npy file into memory; nothing is read yet.

    Raises
    ------
    InputError
        If the file is missing, truncated, holds Python objects, or is not an npy file.
    """
    with as_input_error(path, "npy file"):
        return np.lib.format.open_memmap(path, mode="r")


def read_npz(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Read arrays of an npz file by name: all of them, or only `names`.

    Raises
    ------
    InputError
        If the file is missing, broken, holds Python objects, is not an npz file, or lacks one of `names`.
    """
    # np.load would leave the file of a broken archive open
    with as_input_error(path, "npz file"), path.open("rb") as file:
        if not path.stat().st_size:
            raise InputError(f"{path}: not a readable npz file (it is empty)")
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(f"{path}: found a single array, expected an npz file of several")
        with archive:
            for name in names or ():
                if name not in archive:
                    raise unknown_name(f"array in {path}", name, archive.files)
            arrays = {name: archive[name] for name in (archive.files if names is None else names)}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray):
                raise InputError(f"{path}: found {name}, which is not an array; expected arrays only")
        return arrays


def describe_array(array: np.ndarray) -> str:
    """Shape and type of an array, for error messages."""
    return f"shape {array.shape} of {array.dtype}"
