"""Responses of one session, masked while they are read.

A session of the Natural Scenes Dataset is up to 7 GB in memory, of which a mask keeps 1%. Integers are
percent signal change × 300, as the data set stores volumes and native surfaces; floats are percent.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from harness.brains.hdf5_files import open_dataset
from harness.brains.neuroimages import (
    ImageFile,
    describe_shape,
    find_places,
    open_image,
    stream_maps,
)
from harness.storage import InputError

UNITS = 300.0  # stored integer per percent
DATASET = "betas"
BLOCK = 2**25  # bytes of an HDF5 file read at once


def read_betas(
    path: Path,
    shape: tuple[int, ...],
    places: Int[np.ndarray, " n_voxels"],
    found: Float[np.ndarray, "n_trials n_voxels"],
    mask: ImageFile | None = None,
) -> None:
    """Read the trials of a file into `found` as percent signal change; at most one more slab is in memory.

    Parameters
    ----------
    path : Path
        NIfTI (X × Y × Z × trials), MGH (vertices × 1 × 1 × trials), or HDF5 with ``/betas`` of the same axes,
        written by MATLAB: h5py sees them in reverse.
    shape : tuple of int
        Shape of one trial, that of the mask: (X, Y, Z) or (n_vertices, 1, 1).
    places : int array [n_voxels]
        Indices into one flattened trial, first axis fastest.
    found : float32 array [n_trials, n_voxels]
        Output.
    mask : ImageFile, optional
        Header of the volume that `places` are indices into. A NIfTI or MGH file whose axes have other
        directions or another order is turned to it (`harness.brains.neuroimages.find_places`). HDF5 says
        nothing of axes.

    Raises
    ------
    InputError
        If the file is broken, or its number of trials or its grid is wrong.
    """
    if path.suffix == ".hdf5":
        _read_hdf5(path, shape, places, found)
        return
    image = open_image(path)
    if mask is None:
        _check(path, (*image.shape, image.n_maps), (*shape, len(found)))
    else:
        _check(path, (image.n_maps,), (len(found),))
        places = find_places(image, mask, places)
    for trial, values in enumerate(stream_maps(image)):
        found[trial] = values[places]
    if image.is_scaled:
        found *= image.slope
        found += image.intercept
    elif image.dtype.kind != "f":
        found /= UNITS


def _read_hdf5(
    path: Path,
    shape: tuple[int, ...],
    places: Int[np.ndarray, " n_voxels"],
    found: Float[np.ndarray, "n_trials n_voxels"],
) -> None:
    # MATLAB's surfaces are vertices × trials, without the axes of length 1
    axes = shape if shape[1:] != (1, 1) else shape[:1]
    with open_dataset(path, DATASET, np.integer, np.floating) as betas:
        _check(path, betas.shape[::-1], (*axes, len(found)))
        if betas.chunks is None or betas.chunks[0] < len(found):
            _read_by_trials(betas, places, found)
        else:
            _read_by_slabs(betas, np.unravel_index(places, axes, order="F"), found)
        if betas.dtype.kind != "f":
            found /= UNITS


def _read_by_trials(
    betas: Any, places: Int[np.ndarray, " n_voxels"], found: Float[np.ndarray, "n_trials n_voxels"]
) -> None:
    """Read blocks of whole trials, for files stored trial by trial."""
    size = betas.dtype.itemsize * int(np.prod(betas.shape[1:]))
    step = max(betas.chunks[0] if betas.chunks else 1, BLOCK // size)
    for start in range(0, len(found), step):
        block = betas[start : start + step]
        found[start : start + step] = block.reshape(len(block), -1)[:, places]


def _read_by_slabs(
    betas: Any, index: tuple[Int[np.ndarray, " n_voxels"], ...], found: Float[np.ndarray, "n_trials n_voxels"]
) -> None:
    """Read blocks of voxels with all their trials, for files stored voxel by voxel, as in the data set."""
    last = index[-1]  # MATLAB's slowest axis is h5py's second
    for slab in _slabs(last, betas):
        here = np.flatnonzero((last >= slab.start) & (last < slab.stop))
        inner = [axis[here] for axis in index[-2::-1]]
        box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in inner)
        block = betas[(slice(None), slab, *box)]
        where = [last[here] - slab.start, *(axis - part.start for axis, part in zip(inner, box, strict=True))]
        found[:, here] = block[(slice(None), *where)]


def _slabs(last: Int[np.ndarray, " n_voxels"], betas: Any) -> Iterator[slice]:
    """Slices of the second axis that hold voxels, each within `BLOCK` bytes."""
    size = betas.dtype.itemsize * betas.shape[0] * int(np.prod(betas.shape[2:]))
    step = max(1, BLOCK // size)
    for number in np.unique(last // step):
        yield slice(int(number) * step, min((int(number) + 1) * step, betas.shape[1]))


def _check(path: Path, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found[-1] != wanted[-1]:
        raise InputError(f"{path}: found {found[-1]} trials, expected {wanted[-1]}, as in the design")
    if found != wanted:
        sizes = [describe_shape(tuple(sizes[:-1])) for sizes in (found, wanted)]
        raise InputError(f"{path}: found {sizes[0]}, expected {sizes[1]}, as in the mask")
