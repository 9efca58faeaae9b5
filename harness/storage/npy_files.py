"""Arrays in npy and npz files, read without pickle; every error names the file."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.storage.errors import InputError, unknown_name
from harness.storage.foreign_files import as_input_error, tell_format

MAGIC = b"\x93NUMPY"
"""First bytes of an npy file."""


def open_npy(path: Path) -> np.ndarray:
    """Map an npy file into memory; nothing is read yet.

    Raises
    ------
    InputError
        If the file is missing, truncated, holds Python objects, or is not an npy file.
    """
    with as_input_error(path, "npy file"):
        _refuse_other_formats(path, MAGIC, "npy file")
        with path.open("rb") as file:
            _refuse_objects(path, path.stem, file)
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
        _refuse_other_formats(path, b"PK", "npz file")
        if file.read(2) == b"PK" and not zipfile.is_zipfile(path):
            # numpy would take it for a pickle, and advise to load that
            raise InputError(f"{path}: not a readable npz file (it is cut off)")
        file.seek(0)
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(f"{path}: found a single array, expected an npz file of several")
        with archive:
            for name in names or ():
                if name not in archive:
                    raise unknown_name(f"array in {path}", name, archive.files)
            arrays = {}
            for name in archive.files if names is None else names:
                if archive.zip is not None and f"{name}.npy" in archive.zip.namelist():
                    with archive.zip.open(f"{name}.npy") as member:
                        _refuse_objects(path, name, member)
                arrays[name] = archive[name]
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray):
                raise InputError(f"{path}: found {name}, which is not an array; expected arrays only")
        return arrays


def _refuse_other_formats(path: Path, first: bytes, kind: str) -> None:
    """Refuse a file of another format by its first bytes, so that numpy does not take it for a pickle."""
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    if start.startswith(first) or (start == MAGIC and kind == "npz file"):  # one array has its own error
        return
    found = tell_format(path)
    raise InputError(f"{path}: not a readable {kind} ({f'found {found}' if found else 'another format'})")


def _refuse_objects(path: Path, name: str, file: Any) -> None:
    """Refuse an array of Python objects, which numpy stores as a pickle; `file` is at its start."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version in read and read[version](file)[2].hasobject:
        raise InputError(
            f"{path}: array {name} holds Python objects (a pickle), which are not loaded; expected numbers "
            f"or text: store {name}.astype(str) for names, {name}.astype(float) for numbers"
        )


def describe_array(array: np.ndarray) -> str:
    """Shape and type of an array, for error messages."""
    return f"shape {array.shape} of {array.dtype}"
