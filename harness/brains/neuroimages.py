"""Volumes and surfaces in NIfTI and MGH files, gzipped or not, read one map at a time.

Nothing in the files is trusted: every failure is an `InputError` that names the file. Maps are streamed, so a
file of 750 of them is never in memory as a whole.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
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

log = logging.getLogger(__name__)

KIND = "NIfTI or MGH file"
SAMPLE = 2**20  # bytes hashed at each of `N_SAMPLES` positions of a large file
N_SAMPLES = 16
CLOSE = 0.05  # share of a voxel by which two headers of one grid may differ: they are rounded


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
    is_placed : bool
        Whether the header says where the voxels lie; if not, `affine` is a convention of nibabel's.
    """

    path: Path
    shape: tuple[int, ...]
    n_maps: int
    dtype: np.dtype
    offset: int
    slope: float
    intercept: float
    affine: Float[np.ndarray, "4 4"]
    is_placed: bool

    @property
    def is_surface(self) -> bool:
        """Whether the places are vertices of a surface, which have no axes."""
        return self.shape[1:] == (1, 1)

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
    is_placed = bool(image.header["sform_code"] > 0 or image.header["qform_code"] > 0)
    return _describe(path, proxy.shape, proxy.dtype, proxy.offset, image.affine, scale, is_placed)


def _open_mgh(path: Path) -> ImageFile:
    from nibabel.freesurfer.mghformat import MGHHeader
    from nibabel.openers import ImageOpener

    with ImageOpener(str(path)) as file:  # nibabel.load leaves the file open
        header = MGHHeader.from_fileobj(file)
    shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
    is_placed = bool(header["goodRASFlag"] > 0)
    return _describe(path, shape, dtype, offset, header.get_affine(), (1.0, 0.0), is_placed)


def _describe(
    path: Path,
    shape: Any,
    dtype: Any,
    offset: Any,
    affine: Any,
    scale: tuple[float, float],
    is_placed: bool,
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
        is_placed=is_placed,
    )


def find_places(
    image: ImageFile, reference: ImageFile, places: Int[np.ndarray, " n_voxels"]
) -> Int[np.ndarray, " n_voxels"]:
    """Find voxels of another image of the same subject in this one.

    The two may store one grid with other directions or another order of its axes; a logged line says so.
    Vertices of a surface have no axes: their numbers count. If only one of two headers says where its voxels
    lie, they are taken to be stored alike, which is logged.

    Parameters
    ----------
    image, reference : ImageFile
    places : int array [n_voxels]
        Indices into a flattened map of `reference`, first axis fastest.

    Returns
    -------
    int array [n_voxels]
        Indices of the same voxels into a flattened map of `image`, first axis fastest.

    Raises
    ------
    InputError
        If the grids differ in more than the directions and the order of their axes.
    """
    has_axes = image.is_placed and reference.is_placed and not (image.is_surface or reference.is_surface)
    shapes = (sorted(image.shape), sorted(reference.shape)) if has_axes else (image.shape, reference.shape)
    if shapes[0] != shapes[1]:
        found, wanted = describe_shape(image.shape), describe_shape(reference.shape)
        raise InputError(f"{image.path}: found {found}, expected {wanted}, as in {reference.path}")
    if not has_axes:
        if not image.is_surface and image.is_placed != reference.is_placed:
            log.warning(
                "warning: %s: the header does not say where the voxels lie; they are taken to be stored as "
                "in %s",
                *((reference.path, image.path) if image.is_placed else (image.path, reference.path)),
            )
        return places
    if image.shape == reference.shape and _share_corners(image.affine, reference):
        return places
    return _turn(image, reference)[places]


def _turn(image: ImageFile, reference: ImageFile) -> Int[np.ndarray, " n_places"]:
    """Indices into a map of `image` in the order of a map of `reference`, if both have one grid."""
    from nibabel import orientations

    with as_input_error(image.path, KIND):
        axes = [orientations.io_orientation(each.affine) for each in (image, reference)]
        turn = orientations.ornt_transform(*axes)
        index = np.arange(math.prod(image.shape)).reshape(image.shape, order="F")
        turned = orientations.apply_orientation(index, turn)
        affine = image.affine @ orientations.inv_ornt_aff(turn, image.shape)
    if turned.shape != reference.shape or not _share_corners(affine, reference):
        differences = [
            f"{name} {found}, expected {wanted}"
            for name, found, wanted in zip(
                ("shape", "axes", "voxels", "first voxel"), _say(image), _say(reference), strict=True
            )
            if found != wanted
        ]
        raise InputError(
            f"{image.path}: lies on another grid than {reference.path}: found "
            f"{'; '.join(differences) or 'axes at another angle'}"
        )
    log.warning(
        "warning: %s: the axes run %s; they are turned to %s, as in %s",
        image.path,
        _say(image)[1],
        _say(reference)[1],
        reference.path,
    )
    return turned.ravel(order="F")


def _share_corners(affine: Float[np.ndarray, "4 4"], reference: ImageFile) -> bool:
    """Whether an affine puts the corners of a grid where `reference` does, up to `CLOSE` of a voxel."""
    corners = np.array(list(itertools.product(*((0, size - 1) for size in reference.shape), (1,))))
    apart = np.linalg.norm(corners @ (affine - reference.affine).T, axis=1).max()
    return bool(apart <= CLOSE * np.linalg.norm(reference.affine[:3, :3], axis=0).min())


def _say(image: ImageFile) -> tuple[str, str, str, str]:
    """Shape, directions of the axes, size of voxels and place of the first voxel, in words."""
    import nibabel

    sizes = np.linalg.norm(image.affine[:3, :3], axis=0)
    # directions that the axes run to: R right, A anterior, S superior
    axes = "".join(str(code or "?") for code in nibabel.aff2axcodes(image.affine))
    first = ", ".join(f"{value:.4g}" for value in image.affine[:3, 3])
    return (
        describe_shape(image.shape),
        axes,
        f"of {' × '.join(f'{size:.4g}' for size in sizes)} mm",
        f"at ({first}) mm",
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


def read_map(
    path: Path, reference: ImageFile | None = None
) -> tuple[ImageFile, Float[np.ndarray, " n_places"]]:
    """Read an image of one map: header and values, flattened with the first axis fastest.

    With `reference`, values are in the order of its maps; errors are then also those of `find_places`.
    """
    image = open_image(path)
    if image.n_maps != 1:
        raise InputError(f"{path}: found {image.n_maps} maps, expected one")
    if reference is not None:
        order = find_places(image, reference, np.arange(math.prod(reference.shape)))
    values = np.concatenate(list(stream_maps(image))).astype(np.float64)
    if reference is not None:
        values = values[order]
    return image, values * image.slope + image.intercept


def read_labels(
    path: Path, reference: ImageFile | None = None
) -> tuple[ImageFile, Int[np.ndarray, " n_places"]]:
    """Read an image of one map of integer labels; order and errors as for `read_map`."""
    image, values = read_map(path, reference)
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
