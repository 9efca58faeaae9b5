"""A subject's native volume as a space: labels, hemispheres and millimetres."""

from __future__ import annotations

import itertools
import logging

import numpy as np
from jaxtyping import Float, Int, Shaped

from harness.brains.neuroimages import (
    ImageFile,
    read_labels,
)
from harness.brains.nsd.folder import NsdFolder
from harness.brains.nsd.space import (
    Part,
    Space,
    find_hemispheres,
    read_mask,
)
from harness.storage import InputError

log = logging.getLogger(__name__)


def open_volume(folder: NsdFolder, mask: str | None) -> Space:
    """Find the voxels of a mask in a volume, in the order of ``volume[mask]``: last axis fastest.

    If the atlas has a file per hemisphere, the files give the hemisphere of a voxel; for voxels in both, and
    for an atlas in a single file, the sign of x does.

    Raises
    ------
    InputError
        If the mask is missing, empty, broken, or lacks a hemisphere.
    """
    there = sorted({path.name.removesuffix(".nii.gz") for path in folder.rois.glob("*.nii.gz")})
    atlas, (image, sides) = read_mask(mask, lambda name: _read(folder, name), there, folder.rois)
    if not image.is_placed:
        log.warning(
            "warning: %s: the header does not say where the voxels lie; places and hemispheres are "
            "nibabel's guess",
            image.path,
        )
    whole = _combine(sides)
    inside = np.flatnonzero(whole.reshape(image.shape, order="F") > 0)
    if not len(inside):
        raise InputError(f"{image.path}: found no positive label: the mask is empty")
    index = np.unravel_index(inside, image.shape)
    places = np.ravel_multi_index(index, image.shape, order="F").astype(np.int64)
    coords = _to_millimetres(np.stack(index, axis=1), image)
    corners = np.array(list(itertools.product(*((0, size - 1) for size in image.shape))))
    box = _to_millimetres(corners, image)

    def read_whole(name: str) -> list[Int[np.ndarray, " n_places"]] | None:
        labels = _read(folder, name, image)
        return None if labels is None else [_combine(labels[1])]

    return Space(
        folder=folder,
        parts=(Part("", image.shape, places, image),),
        coords=coords,
        bounding_box=np.stack([box.min(axis=0), box.max(axis=0)]),
        hemisphere=_tell_hemisphere(sides, places, coords, atlas),
        vertices=None,
        affine=image.affine,
        read_whole=read_whole,
    )


def _read(
    folder: NsdFolder, atlas: str, reference: ImageFile | None = None
) -> tuple[ImageFile, dict[str, Int[np.ndarray, " n_places"]]] | None:
    """Read the labels of an atlas by hemisphere, or under "" from a single file; None if it is missing.

    All are in the order of `reference`, or else of the first file.
    """
    paths = find_hemispheres(folder.rois, f"{atlas}.nii.gz")
    if paths is None:
        path = folder.rois / f"{atlas}.nii.gz"
        if not path.is_file():
            return None
        paths = {"": path}
    found = {}
    for side, path in paths.items():
        image, found[side] = read_labels(path, reference)
        reference = reference or image
    assert reference is not None  # there is a path
    return reference, found


def _combine(sides: dict[str, Int[np.ndarray, " n_places"]]) -> Int[np.ndarray, " n_places"]:
    if "" in sides:
        return sides[""]
    return np.where(sides["L"] > 0, sides["L"], sides["R"])


def _to_millimetres(
    index: Int[np.ndarray, "n_voxels 3"], image: ImageFile
) -> Float[np.ndarray, "n_voxels 3"]:
    coords = index @ image.affine[:3, :3].T + image.affine[:3, 3]
    flat = abs(np.linalg.det(image.affine[:3, :3])) < 1e-9
    if flat or not np.isfinite(coords).all() or np.abs(coords).max() > 1e4:
        raise InputError(
            f"{image.path}: found an unusable affine {image.affine.tolist()}, expected millimetres"
        )
    return coords.astype(np.float32)


def _tell_hemisphere(
    sides: dict[str, Int[np.ndarray, " n_places"]],
    places: Int[np.ndarray, " n_voxels"],
    coords: Float[np.ndarray, "n_voxels 3"],
    atlas: str,
) -> Shaped[np.ndarray, " n_voxels"]:
    by_sign = np.where(coords[:, 0] < 0, "L", "R")
    if "" in sides:
        log.warning("warning: %s has no file per hemisphere; voxels of negative x count as left", atlas)
        return by_sign
    left, right = (sides[side][places] > 0 for side in "LR")
    return np.where(left & right, by_sign, np.where(left, "L", "R"))
