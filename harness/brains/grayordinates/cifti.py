"""CIFTI-2 files: maps on grayordinates, and their layout of vertices and voxels."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from harness.brains.cortex import HEMISPHERES
from harness.storage import (
    InputError,
    as_input_error,
    quiet_nibabel,
)

log = logging.getLogger(__name__)

PREFIX = "CIFTI_STRUCTURE_"
CORTEX = {"L": "CORTEX_LEFT", "R": "CORTEX_RIGHT"}
N_VERTICES = 32492  # per hemisphere of fs_LR 32k
BLOCK = 2**25  # bytes read at once
CLOSE = 0.01  # mm by which a voxel's place may differ between two files: headers are rounded


@dataclass(frozen=True)
class Layout:
    """Grayordinates: the columns of a file.

    Attributes
    ----------
    structure : str array [n_grayordinates]
        For example ``CORTEX_LEFT`` or ``THALAMUS_RIGHT``.
    vertex : int array [n_grayordinates]
        Index into the vertices of both hemispheres, left first; -1 for a subcortical voxel.
    place : float32 array [n_grayordinates, 3], millimetres
        Of a subcortical voxel; NaN for a vertex.
    """

    structure: Shaped[np.ndarray, " n_grayordinates"]
    vertex: Int[np.ndarray, " n_grayordinates"]
    place: Float[np.ndarray, "n_grayordinates 3"]

    @property
    def below(self) -> Bool[np.ndarray, " n_grayordinates"]:
        """Mask of the subcortical voxels."""
        return (self.vertex < 0) & np.isfinite(self.place).all(axis=1)

    def same_as(self, other: Layout) -> bool:
        """Whether two files have the same columns in the same order."""
        return (
            np.array_equal(self.structure, other.structure)
            and np.array_equal(self.vertex, other.vertex)
            and np.allclose(self.place, other.place, rtol=0, atol=CLOSE, equal_nan=True)
        )

    def find(self, other: Layout) -> Int[np.ndarray, " n_grayordinates"] | None:
        """Find the columns of another layout in this one; None if vertices or voxels differ."""
        if len(self.vertex) != len(other.vertex):
            return None
        own, theirs = self._sort(), other._sort()
        if not self._take(own).same_as(other._take(theirs)):
            return None
        found = np.empty_like(own)
        found[theirs] = own
        return found

    def describe_difference(self, wanted: Layout) -> str:
        """Say which structure differs from another layout, in its size or in its vertices or voxels."""
        names = (dict.fromkeys(each.structure.tolist()) for each in (self, wanted))
        for name in dict.fromkeys(part for each in names for part in each):
            inside = [each._take(np.flatnonzero(each.structure == name)) for each in (self, wanted)]
            found, expected = (len(part.vertex) for part in inside)
            if found != expected:
                return f"{found} grayordinates in {name}, expected {expected}"
            if inside[0].find(inside[1]) is None:
                kind = "voxels" if inside[0].below.any() else "vertices"
                return f"other {kind} in {name} ({found}), expected the same"
        return "other grayordinates, expected the same"

    def _sort(self) -> Int[np.ndarray, " n_grayordinates"]:
        x, y, z = np.rint(np.nan_to_num(self.place) / CLOSE).astype(np.int64).T
        return np.lexsort((z, y, x, self.vertex, self.structure))

    def _take(self, columns: Int[np.ndarray, " _"]) -> Layout:
        return Layout(self.structure[columns], self.vertex[columns], self.place[columns])


@dataclass(frozen=True)
class CiftiFile:
    """An open file of maps; the numbers stay on disk.

    Attributes
    ----------
    path : Path
    layout : Layout
        Of the columns as `read` counts them.
    stored : array-like [n_maps, n_grayordinates]
    slope, intercept : float
        value = slope × stored + intercept.
    order : int array [n_grayordinates] or None
        Stored column of each column; None: the same.
    """

    path: Path
    layout: Layout
    stored: Any
    slope: float
    intercept: float
    order: Int[np.ndarray, " n_grayordinates"] | None = None

    @property
    def n_maps(self) -> int:
        """Number of maps."""
        return int(self.stored.shape[0])

    def arranged_as(self, reference: CiftiFile) -> CiftiFile:
        """Count the columns as another file does; a change of order is logged.

        Raises
        ------
        InputError
            If the files do not hold the same vertices and voxels.
        """
        if self.layout.same_as(reference.layout):
            return self
        order = self.layout.find(reference.layout)
        if order is None:
            difference = self.layout.describe_difference(reference.layout)
            raise InputError(f"{self.path}: found {difference}, as in {reference.path}")
        log.warning(
            "warning: %s: the grayordinates are in another order than in %s; they are read in its order",
            self.path,
            reference.path,
        )
        return replace(self, layout=reference.layout, order=order)

    def read(
        self,
        maps: Int[np.ndarray, " n_chosen_maps"],
        columns: Int[np.ndarray, " n_voxels"],
        found: Float[np.ndarray, "n_chosen_maps n_voxels"],
    ) -> None:
        """Read some columns of some maps into `found`.

        All maps of a grayordinate are adjacent in the file, so it is read in blocks of columns.
        """
        if self.order is not None:
            columns = self.order[columns]
        step = max(1, BLOCK // (self.stored.dtype.itemsize * max(len(maps), 1)))
        with as_input_error(self.path, "CIFTI file"), np.errstate(all="ignore"):
            for start in range(0, len(columns), step):
                part = slice(start, start + step)
                values = self.stored[np.ix_(maps, columns[part])]
                found[:, part] = values * self.slope + self.intercept


def open_cifti(path: Path) -> CiftiFile:
    """Open a file of scalars or a series (``.dscalar.nii``, ``.dtseries.nii``) on fs_LR 32k.

    Any number of grayordinates is accepted, such as 91,282 or 59,412; the file's own axis is the layout.

    Raises
    ------
    InputError
        If the file is missing or broken, holds labels or parcels, is on another mesh, or lacks a hemisphere.
    """
    from nibabel.cifti2 import cifti2_axes as axes
    from nibabel.cifti2.cifti2 import Cifti2Image

    with as_input_error(path, "CIFTI file"), quiet_nibabel():
        # the intent in the header is not checked: nibabel itself writes a wrong one
        image = Cifti2Image.from_filename(path)
        rows, columns = (
            (image.header.get_axis(index) for index in range(2)) if image.ndim == 2 else (None, None)
        )
        if not isinstance(rows, axes.ScalarAxis | axes.SeriesAxis) or not isinstance(
            columns, axes.BrainModelAxis
        ):
            kinds = " × ".join(type(axis).__name__ for axis in (rows, columns))
            raise InputError(
                f"{path}: found {kinds}, expected maps or a series × grayordinates "
                "(.dscalar.nii, .dtseries.nii)"
            )
        if image.shape != (len(rows), len(columns)):
            raise InputError(
                f"{path}: found {image.shape} numbers for {len(rows)} maps × {len(columns)} places"
            )
        proxy: Any = image.dataobj
        stored = proxy.get_unscaled()
        if stored.dtype.kind not in "iuf":
            raise InputError(f"{path}: found {stored.dtype}, expected real numbers")
        layout = _lay_out(path, columns)
        return CiftiFile(path, layout, stored, float(proxy.slope), float(proxy.inter))


def read_volume(path: Path) -> tuple[tuple[int, int, int], Float[np.ndarray, "4 4"]]:
    """Read shape and affine of the volume that a file's subcortical voxels lie in.

    The affine leads from voxel indices (0-based) to millimetres.

    Raises
    ------
    InputError
        If the file is missing or broken, or has no volume.
    """
    from nibabel.cifti2.cifti2 import Cifti2Image

    with as_input_error(path, "CIFTI file"), quiet_nibabel():
        columns = Cifti2Image.from_filename(path).header.get_axis(1)
        if columns.volume_shape is None:
            raise InputError(f"{path}: found no volume, expected one with subcortical voxels")
        x, y, z = (int(size) for size in columns.volume_shape)
        return (x, y, z), np.asarray(columns.affine, dtype=np.float64)


def _lay_out(path: Path, columns: Any) -> Layout:
    n_columns = len(columns)
    structure = np.full(n_columns, "", dtype="U60")
    vertex = np.full(n_columns, -1, dtype=np.int64)
    place = np.full((n_columns, 3), np.nan, dtype=np.float32)
    sides = dict(zip(CORTEX.values(), HEMISPHERES, strict=True))
    missing = set(sides)
    for name, where, model in columns.iter_structures():
        name = str(name).removeprefix(PREFIX)
        structure[where] = name
        if name in sides:
            n_vertices = int(model.nvertices[PREFIX + name])
            if n_vertices != N_VERTICES:
                raise InputError(
                    f"{path}: found a mesh of {n_vertices} vertices, expected {N_VERTICES} (fs_LR 32k)"
                )
            low, high = int(model.vertex.min()), int(model.vertex.max())
            if len(np.unique(model.vertex)) < len(model.vertex) or low < 0 or high >= N_VERTICES:
                raise InputError(f"{path}: found duplicate vertices of {name}, or vertices outside its mesh")
            vertex[where] = model.vertex + HEMISPHERES.index(sides[name]) * N_VERTICES
            missing.discard(name)
        elif model.volume_mask.all():
            place[where] = model.voxel @ model.affine[:3, :3].T + model.affine[:3, 3]
    if missing:
        found = ", ".join(sorted(set(structure.tolist()))) or "nothing"
        raise InputError(
            f"{path}: found {found}, expected also {' and '.join(sorted(missing))}: a hemisphere is missing"
        )
    return Layout(structure, vertex, place)
