"""A cortical surface as a space: fsaverage or the subject's native surface.

A subject's visual areas are drawn on its native surface. On fsaverage, an atlas is read from the labels of
fsaverage if it exists there; otherwise the subject's labels are transferred: ``white-to-fsaverage`` holds the
1-based index of the subject's vertex nearest to each vertex of fsaverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from harness.brains.cortex import (
    GAP,
    HEMISPHERES,
)
from harness.brains.fsaverage import load_fsaverage
from harness.brains.neuroimages import read_labels
from harness.brains.nsd.folder import (
    DATA,
    SIDES,
    NsdFolder,
)
from harness.brains.nsd.space import (
    Part,
    Space,
    check_shape,
    find_hemispheres,
    read_mask,
)
from harness.storage import (
    InputError,
    as_input_error,
)

FSAVERAGE = "fsaverage"


def open_surface(folder: NsdFolder, mask: str | None) -> Space:
    """Find the voxels (vertices) of a mask, left hemisphere first, in the order of vertices.

    Coordinates are on the sphere; the native sphere is the one registered to fsaverage.

    Raises
    ------
    InputError
        If the mask or sphere is missing, empty, broken, or lacks a hemisphere.
    """
    shared = folder.preparation == FSAVERAGE
    spheres = _shared_spheres() if shared else _own_spheres(folder)
    shapes = [(len(sphere), 1, 1) for sphere in spheres]

    def read_whole(atlas: str) -> Sequence[Int[np.ndarray, " _"]] | None:
        return _read(folder, atlas, shapes)

    homes = [folder.labels(name) for name in ((FSAVERAGE, folder.subject) if shared else (folder.subject,))]
    there = sorted({path.name[3:].removesuffix(".mgz") for home in homes for path in home.glob("?h.*.mgz")})
    atlas, whole = read_mask(mask, read_whole, there, homes[0])
    places = [np.flatnonzero(labels > 0) for labels in whole]
    if not sum(map(len, places)):
        raise InputError(f"{homes[0]}: found no positive label of {atlas}: the mask is empty")
    sphere = np.concatenate(spheres)
    vertices = np.concatenate([places[0], places[1] + len(spheres[0])])
    return Space(
        folder=folder,
        parts=tuple(map(Part, SIDES.values(), shapes, places)),
        coords=sphere[vertices],
        bounding_box=np.stack([sphere.min(axis=0), sphere.max(axis=0)]),
        hemisphere=np.repeat(HEMISPHERES, list(map(len, places))),
        vertices=vertices if shared else None,
        affine=None,
        read_whole=read_whole,
    )


def _shared_spheres() -> list[Float[np.ndarray, "_ 3"]]:
    return np.split(load_fsaverage().sphere, 2)


def _own_spheres(folder: NsdFolder) -> list[Float[np.ndarray, "_ 3"]]:
    from nibabel.freesurfer.io import read_geometry  # slow to import

    home = folder.root / DATA / "freesurfer" / folder.subject / "surf"
    paths = find_hemispheres(home, "sphere.reg")
    if paths is None:
        raise InputError(f"{home / 'lh.sphere.reg'}: no such file")
    spheres = []
    for path in paths.values():
        with as_input_error(path, "FreeSurfer surface"):
            points = np.asarray(read_geometry(path)[0], dtype=np.float32)
            if not np.isfinite(points).all() or not len(points):
                raise InputError(f"{path}: found non-finite coordinates")
            spheres.append(points)
    spheres[1][:, 0] += spheres[0][:, 0].max() - spheres[1][:, 0].min() + GAP
    return spheres


def _read(
    folder: NsdFolder, atlas: str, shapes: Sequence[tuple[int, ...]]
) -> list[Int[np.ndarray, " _"]] | None:
    """Read the labels of both hemispheres; None if there is no such atlas."""
    shared = folder.preparation == FSAVERAGE
    paths = find_hemispheres(folder.labels(FSAVERAGE if shared else folder.subject), f"{atlas}.mgz")
    if paths is not None:
        return [_read_hemisphere(path, shape) for path, shape in zip(paths.values(), shapes, strict=True)]
    paths = find_hemispheres(folder.labels(folder.subject), f"{atlas}.mgz") if shared else None
    nearest = find_hemispheres(folder.transforms, "white-to-fsaverage.mgz") if shared else None
    if paths is None or nearest is None:
        return None
    return [
        _carry_over(paths[side], nearest[side], shape)
        for side, shape in zip(HEMISPHERES, shapes, strict=True)
    ]


def _read_hemisphere(path: Path, shape: tuple[int, ...]) -> Int[np.ndarray, " n_places"]:
    image, labels = read_labels(path)
    check_shape(path, image.shape, shape)
    return labels


def _carry_over(path: Path, nearest: Path, shape: tuple[int, ...]) -> Int[np.ndarray, " n_places"]:
    _, own = read_labels(path)
    vertices = _read_hemisphere(nearest, shape)
    if vertices.min() < 1 or vertices.max() > len(own):
        raise InputError(
            f"{nearest}: found vertices {vertices.min()} to {vertices.max()}, expected 1 to {len(own)} "
            f"(1-based), as in {path}"
        )
    return own[vertices - 1]
