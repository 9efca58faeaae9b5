"""Volumes and surfaces in NIfTI and MGH files, gzipped or not, read one map at a time.

Nothing in the files is trusted: every failure is an `InputError` that names the file. Maps are streamed, so a
file of 750 of them is never in memory as a whole.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from harness.storage import (
    InputError,
    as_input_error,
    content_hash,
    quiet_nibabel,
)

KIND = "NIfTI or MGH file"
SAMPLE = 2**20  # bytes hashed at each of `N_SAMPLES` positions of a large file
N_SAMPLES = 16


@dataclass(frozen=True)
class ImageFile:
    """The header of an image.

    Attributes
    ----------
    path : Path
    shape : tuple of int
        Shape of one map: (X, Y, Z) or (n_vertices, 1, 1).
    n_maps : int
    dtype : numpy dtype
        As stored, with byte order.
    offset : int
        Bytes before the first map.
    slope, intercept : float
        value = slope × stored + intercept.
    affine : float array [4, 4]
        From voxel indices (0-based) to millimetres, as (x, y, z, 1).
    """

    path: Path
    shape: tuple[int, ...]
    n_maps: int
    dtype: np.dtype
    offset: int
    slope: float
    intercept: float
    affine: Float[np.ndarray, "4 4"]

    @property
    def is_scaled(self) -> bool:
        """Whether the header scales the stored numbers."""
        return (self.slope, self.intercept) != (1.0, 0.0)


def open_image(path: Path) -> ImageFile:
    """Read the header of a NIfTI or MGH file, gzipped or not.

    Raises
    ------
    InputError
        If the file is missing, broken or of another format, or holds neither integers nor floats.
    """
    with as_input_error(path, KIND), quiet_nibabel():
        found = _open_mgh(path) if path.suffix in (".mgh", ".mgz") else _open_nifti(path)
    numbers = [found.slope, found.intercept, *found.affine.flat]
    if found.dtype.kind not in "iuf" or min(*found.shape, found.n_maps) < 1 or not np.isfinite(numbers).all():
        raise InputError(f"{path}: not a readable {KIND} (damaged header)")
    return found


def _open_nifti(path: Path) -> ImageFile:
    import nibabel  # slow to import

    image = nibabel.load(path)
    if not isinstance(image, nibabel.Nifti1Image):
        raise InputError(f"{path}: found a {type(image).__name__}, expected {KIND}")
    proxy: Any = image.dataobj
    scale = float(proxy.slope), float(proxy.inter)
    return _describe(path, proxy.shape, proxy.dtype, proxy.offset, image.affine, scale)


def _open_mgh(path: Path) -> ImageFile:
    from nibabel.freesurfer.mghformat import MGHHeader
    from nibabel.openers import ImageOpener

    with ImageOpener(str(path)) as file:  # nibabel.load leaves the file open
        header = MGHHeader.from_fileobj(file)
    shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
    return _describe(path, shape, dtype, offset, header.get_affine(), (1.0, 0.0))


def _describe(
    path: Path, shape: Any, dtype: Any, offset: Any, affine: Any, scale: tuple[float, float]
) -> ImageFile:
    sizes = [int(size) for size in shape]
    return ImageFile(
        path=path,
        shape=tuple((*sizes, 1, 1)[:3]),
        n_maps=math.prod(sizes[3:]),
        dtype=np.dtype(dtype),
        offset=int(offset),
        slope=scale[0],
        intercept=scale[1],
        affine=np.asarray(affine, dtype=np.float64),
    )


def stream_maps(image: ImageFile) -> Iterator[Shaped[np.ndarray, " n_places"]]:
    """Yield the maps of an image as stored, each flattened with the first axis fastest.

    The file is read to its end, where gzip keeps its checksum.

    Raises
    ------
    InputError
        If the file ends before the last map, or its checksum is wrong.
    """
    from nibabel.openers import ImageOpener

    n_places = math.prod(image.shape)
    size = n_places * image.dtype.itemsize
    kind = f"file of {image.n_maps} maps of {describe_shape(image.shape)}"
    with as_input_error(image.path, kind):
        _check_length(image, size)
        with ImageOpener(str(image.path)) as file:
            file.seek(image.offset)
            for _ in range(image.n_maps):
                content = file.read(size)
                if len(content) < size:
                    raise EOFError
                yield np.frombuffer(content, image.dtype)
            while file.read(2**16):
                pass


def read_map(path: Path) -> tuple[ImageFile, Float[np.ndarray, " n_places"]]:
    """Read an image of one map: header and values, flattened with the first axis fastest."""
    image = open_image(path)
    if image.n_maps != 1:
        raise InputError(f"{path}: found {image.n_maps} maps, expected one")
    values = np.concatenate(list(stream_maps(image))).astype(np.float64)
    return image, values * image.slope + image.intercept


def read_labels(path: Path) -> tuple[ImageFile, Int[np.ndarray, " n_places"]]:
    """Read an image of one map of integer labels, flattened with the first axis fastest."""
    image, values = read_map(path)
    if not np.isfinite(values).all() or (values != np.rint(values)).any() or np.abs(values).max() > 1e6:
        raise InputError(f"{path}: found numbers that are not labels, expected integers")
    return image, values.astype(np.int64)


def describe_shape(shape: tuple[int, ...]) -> str:
    """Format a shape: ``"81 × 104 × 83"``, or the number of vertices of a surface."""
    return f"{shape[0]} vertices" if shape[1:] in ((), (1, 1)) else " × ".join(map(str, shape))


def fingerprint_file(path: Path) -> str:
    """Hash a file's content; above 16 MiB, its size and evenly spaced samples of its content."""
    with as_input_error(path, "file"), path.open("rb") as file:
        size = path.stat().st_size
        if size <= N_SAMPLES * SAMPLE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        parts = []
        for start in np.linspace(0, size - SAMPLE, N_SAMPLES).astype(np.int64):
            file.seek(int(start))
            parts.append(file.read(SAMPLE))
    return content_hash(size, parts)


def _check_length(image: ImageFile, size: int) -> None:
    """Check the file's size before allocating memory: a damaged header may claim any amount."""
    if image.path.suffix not in (".gz", ".mgz"):
        needed, found = image.offset + size * image.n_maps, image.path.stat().st_size
        if found < needed:
            raise InputError(
                f"{image.path}: ends too early: found {found} bytes, expected {needed} by its header "
                f"({image.n_maps} maps of {describe_shape(image.shape)})"
            )
