"""The space of a subject's responses: its voxels, and the files that cover it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int, Shaped

from harness.brains.beta_files import read_betas
from harness.brains.neuroimages import (
    ImageFile,
    describe_shape,
    read_map,
)
from harness.brains.nsd.folder import (
    SIDES,
    NsdFolder,
)
from harness.storage import (
    InputError,
    unknown_name,
)

T = TypeVar("T")
MASKS = ("nsdgeneral", "streams")
"""Default masks; the first that exists is used."""


@dataclass(frozen=True)
class Part:
    """The part of a space in one file: the volume, or the surface of a hemisphere.

    Attributes
    ----------
    side : str
        Prefix of its file names: ``""``, ``"lh."`` or ``"rh."``.
    shape : tuple of int
        (X, Y, Z) or (n_vertices, 1, 1).
    places : int array [n_part_voxels]
        Flat indices of its voxels, first axis fastest.
    image : ImageFile or None
        Header of the mask's volume, whose axes the indices follow; None on a surface.
    """

    side: str
    shape: tuple[int, ...]
    places: Int[np.ndarray, " n_part_voxels"]
    image: ImageFile | None = None


@dataclass(frozen=True)
class Space:
    """Voxels and their coordinates, first those of the first part, then those of the second.

    Attributes
    ----------
    folder : NsdFolder
    parts : tuple of Part
    coords : float32 array [n_voxels, 3], millimetres
    bounding_box : float32 array [2, 3]
        Minimum and maximum over the whole space, voxels or not.
    hemisphere : str array [n_voxels], "L" or "R"
    vertices : int array [n_voxels] or None
        Vertices of fsaverage, left hemisphere first; None in other spaces.
    affine : float array [4, 4] or None
        From voxel indices (0-based) to millimetres; None on a surface.
    read_whole : callable
        Reads the labels of an atlas over each whole part, -1 or 0 outside; None if there is no such atlas.
    """

    folder: NsdFolder
    parts: tuple[Part, ...]
    coords: Float[np.ndarray, "n_voxels 3"]
    bounding_box: Float[np.ndarray, "2 3"]
    hemisphere: Shaped[np.ndarray, " n_voxels"]
    vertices: Int[np.ndarray, " n_voxels"] | None
    affine: Float[np.ndarray, "4 4"] | None
    read_whole: Callable[[str], Sequence[Int[np.ndarray, " _"]] | None]

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return len(self.coords)

    def read_labels(self, atlas: str) -> Int[np.ndarray, " n_voxels"] | None:
        """Read the labels of the voxels; None if there is no such atlas."""
        whole = self.read_whole(atlas)
        if whole is None:
            return None
        return np.concatenate([labels[part.places] for labels, part in zip(whole, self.parts, strict=True)])

    def session_files(self, number: int) -> list[Path]:
        """Find the files of a session; empty if it is missing.

        Raises
        ------
        InputError
            If only one hemisphere exists.
        """
        found = {part.side: self.folder.session(number, part.side) for part in self.parts}
        there = [path for path in found.values() if path is not None]
        if there and len(there) < len(found):
            side = next(side for side, path in found.items() if path is None)
            raise InputError(
                f"{self.folder.betas}: found {there[0].name} but no {side}betas_session{number:02d}: "
                "a hemisphere is missing"
            )
        return there

    def read_session(self, files: Sequence[Path], found: Float[np.ndarray, "n_trials n_voxels"]) -> None:
        """Read the files of a session into `found`, percent signal change."""
        start = 0
        for path, part in zip(files, self.parts, strict=True):
            stop = start + len(part.places)
            read_betas(path, part.shape, part.places, found[:, start:stop], part.image)
            start = stop

    def read_ncsnr(self) -> Float[np.ndarray, " n_voxels"] | None:
        """Read the published signal-to-noise ratio of single trials; None if it is missing.

        Raises
        ------
        InputError
            If it is on another grid, or one hemisphere is missing.
        """
        suffixes = ("nii.gz", "nii", "mgh", "mgz")
        found: list[Float[np.ndarray, " _"]] = []
        for part in self.parts:
            paths = [self.folder.betas / f"{part.side}ncsnr.{suffix}" for suffix in suffixes]
            path = next((path for path in paths if path.is_file()), None)
            if path is None:
                continue
            image, values = read_map(path, part.image)
            if part.image is None:
                check_shape(path, image.shape, part.shape)
            found.append(values[part.places])
        if found and len(found) < len(self.parts):
            raise InputError(f"{self.folder.betas}: found ncsnr of one hemisphere, expected both")
        return np.concatenate(found) if found else None


def read_mask(
    mask: str | None, read: Callable[[str], T | None], there: Sequence[str], folder: Path
) -> tuple[str, T]:
    """Read the mask: name and labels of the atlas whose positive labels are the voxels.

    Raises
    ------
    InputError
        If it does not exist; without a name, if none of `MASKS` does.
    """
    for name in MASKS if mask is None else (mask,):
        found = read(name)
        if found is not None:
            return name, found
    raise InputError(f"brain.mask: {folder}: {unknown_name('atlas', mask or MASKS[0], there)}")


def check_shape(path: Path, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Refuse a map on another grid than the mask."""
    if found != wanted:
        raise InputError(
            f"{path}: found {describe_shape(found)}, expected {describe_shape(wanted)}, as in the mask"
        )


def find_hemispheres(folder: Path, name: str) -> dict[str, Path] | None:
    """Find the files ``lh.NAME`` and ``rh.NAME``; None if neither exists.

    Raises
    ------
    InputError
        If only one exists.
    """
    paths = {side: folder / f"{prefix}{name}" for side, prefix in SIDES.items()}
    there = [path for path in paths.values() if path.is_file()]
    if not there:
        return None
    if len(there) < len(paths):
        missing = next(path for path in paths.values() if path not in there)
        raise InputError(f"{missing}: no such file, but {there[0].name} exists: a hemisphere is missing")
    return paths
