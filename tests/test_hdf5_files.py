"""HDF5 files that keep their numbers in other files are refused, without opening those."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from harness.brains.hdf5_files import open_dataset
from harness.storage.errors import InputError

VALUES = np.arange(6, dtype=np.int16).reshape(2, 3)


def link(file: h5py.File, other: Path) -> None:
    file["betas"] = h5py.ExternalLink(other, "betas")


def link_twice(file: h5py.File, other: Path) -> None:
    file["elsewhere"] = h5py.ExternalLink(other, "/")
    file["betas"] = h5py.SoftLink("/elsewhere/betas")


def store_outside(file: h5py.File, other: Path) -> None:
    file.create_dataset("betas", VALUES.shape, VALUES.dtype, external=[(str(other), 0, h5py.h5f.UNLIMITED)])


def view(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout(VALUES.shape, VALUES.dtype)
    layout[:] = h5py.VirtualSource(str(other), "betas", VALUES.shape)
    file.create_virtual_dataset("betas", layout)


@pytest.mark.parametrize("lead", [link, link_twice, store_outside, view])
def test_numbers_in_another_file_are_refused(lead: Callable[[h5py.File, Path], None], tmp_path: Path) -> None:
    other = tmp_path / "other.hdf5"
    with h5py.File(other, "w") as file:
        file["betas"] = VALUES
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        lead(file, other)
    other.unlink()
    os.mkfifo(other)  # opening it would not end
    with (
        pytest.raises(InputError, match=r"b\.hdf5: found /betas .*expected the numbers in this file"),
        open_dataset(tmp_path / "b.hdf5", "betas", np.integer),
    ):
        pass


def test_numbers_in_the_file_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["betas"] = VALUES
    with open_dataset(tmp_path / "b.hdf5", "betas", np.integer) as found:
        np.testing.assert_array_equal(found[:], VALUES)
    with (
        pytest.raises(InputError, match=r"found betas, expected a data set /betas of bytes"),
        open_dataset(tmp_path / "b.hdf5", "betas", np.uint8),
    ):
        pass
