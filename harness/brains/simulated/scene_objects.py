"""Objects of scenes, and tuning of the higher areas of the simulated subject to them.

Lateral occipital areas respond to the outlines of objects near their receptive fields, as moments of the
outline. The highest areas respond to object identity at any position: the response to several objects is near
the mean of the responses to each (MacEvoy & Epstein 2009, Curr. Biol. 19:943). Tuning is rectified, to shape,
colour, texture, and the conjunction of shape and texture. Some areas count objects (Nieder 2016, Nat. Rev.
Neurosci. 17:366).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageDraw
from scipy.spatial import ConvexHull

from tasks import (
    COLOURS,
    IMAGE_SIZE,
    OUTLINES,
    SHAPES,
    TEXTURES,
    Scene,
)

MAX_OBJECTS = 3
N_DESCRIPTORS = 10  # of an object in a receptive field: nine moments of the outline, and the area
COUNT_WIDTH = 0.5  # width of number tuning, octaves
TYPICAL_RADIUS = 0.4  # half widths of the image
_FACTOR_SIZES = {"shape": len(SHAPES), "colour": len(COLOURS), "texture": len(TEXTURES)}
# random weights of a voxel in the highest areas: tuning to each factor, the two parts of the conjunction of
# shape and texture, and the preferred number
CONTENT_FIELDS = sum(_FACTOR_SIZES.values()) + len(SHAPES) + len(TEXTURES) + 1


@dataclass(frozen=True)
class Objects:
    """Objects of scenes, one row per scene, padded to `MAX_OBJECTS`.

    Attributes
    ----------
    present : bool array [n_images, 3]
    shape, colour, texture : int arrays [n_images, 3]
    place : float32 array [n_images, 3, 2]
        Position in the image, -1 to 1: x rightwards, y downwards.
    radius : float32 array [n_images, 3], half widths of the image; 0 in padding
    """

    present: Bool[np.ndarray, "n_images 3"]
    shape: Int[np.ndarray, "n_images 3"]
    colour: Int[np.ndarray, "n_images 3"]
    texture: Int[np.ndarray, "n_images 3"]
    place: Float[np.ndarray, "n_images 3 2"]
    radius: Float[np.ndarray, "n_images 3"]


def tabulate_objects(scenes: Sequence[Scene]) -> Objects:
    """Convert the objects of scenes to arrays."""
    present = np.zeros((len(scenes), MAX_OBJECTS), dtype=bool)
    factors = np.zeros((3, len(scenes), MAX_OBJECTS), dtype=np.int64)
    geometry = np.zeros((3, len(scenes), MAX_OBJECTS), dtype=np.float32)
    for row, scene in enumerate(scenes):
        for column, item in enumerate(scene.objects):
            present[row, column] = True
            factors[:, row, column] = item.shape, item.colour, item.texture
            geometry[:, row, column] = item.x, item.y, item.radius
    half = IMAGE_SIZE / 2
    place = np.stack([geometry[0], geometry[1]], axis=-1) / half - 1
    shape, colour, texture = factors
    radius = geometry[2] / np.float32(half)
    return Objects(present, shape, colour, texture, place.astype(np.float32), radius)


def describe_outlines() -> Float[np.ndarray, "n_shapes n_descriptors"]:
    """Compute moments of the outline of each shape, standardised over shapes.

    Solidity (share of the convex hull that is filled); standard deviation of the distance from the centre;
    elongation, upright and oblique; skew rightwards and downwards; strength of 3-, 4- and 5-fold symmetry.
    """
    rows = []
    for outline in OUTLINES:
        grid = 128
        mask = Image.new("1", (grid, grid))
        scale = np.abs(outline).max() * 1.05
        ImageDraw.Draw(mask).polygon([tuple(point) for point in (outline / scale + 1) * grid / 2], fill=1)
        down, across = np.nonzero(np.asarray(mask))
        z = ((across + 0.5) + 1j * (down + 0.5)) / (grid / 2) * scale - scale * (1 + 1j)
        z = z - z.mean()
        radius, angle = np.abs(z), np.angle(z)
        folds = [np.abs((radius**2 * np.exp(1j * k * angle)).mean()) for k in (3, 4, 5)]
        moments = [(z**2).mean().real, (z**2).mean().imag, (z.real**3).mean(), (z.imag**3).mean()]
        rows.append([np.pi / ConvexHull(outline).volume, radius.std(), *moments, *folds])
    table = np.array(rows)
    return ((table - table.mean(axis=0)) / table.std(axis=0)).astype(np.float32)


def see_outlines(
    objects: Objects, place: Float[np.ndarray, "n_voxels 2"], size: Float[np.ndarray, " n_voxels"]
) -> Float[np.ndarray, "n_images n_descriptors n_voxels"]:
    """Sum the descriptors of outlines over the objects in receptive fields; the last descriptor is area.

    Parameters
    ----------
    objects : Objects
    place, size : float arrays
        Centres and standard deviations of receptive fields, in half widths of the image.
    """
    apart = ((objects.place[:, :, None] - place) ** 2).sum(axis=-1)  # images, objects, voxels
    spread = size**2 + objects.radius[:, :, None] ** 2
    inside = np.exp(-apart / (2 * spread)) * objects.present[:, :, None]
    described = describe_outlines()[objects.shape]
    described = np.concatenate([described, (objects.radius**2)[:, :, None] / TYPICAL_RADIUS**2], axis=-1)
    return np.einsum("iod,iov->idv", described, inside, optimize=True).astype(np.float32)


def judge_objects(
    objects: Objects,
    fields: Float[np.ndarray, "n_voxels n_fields"],
    mixture: dict[str, Float[np.ndarray, " n_voxels"]],
) -> Float[np.ndarray, "n_images n_voxels"]:
    """Response to object identity: rectified tuning, averaged over objects with weights by radius.

    Parameters
    ----------
    objects : Objects
    fields : float array [n_voxels, `CONTENT_FIELDS`]
        Standard normal weights.
    mixture : dict of float arrays [n_voxels]
        Weight of ``shape``, ``colour``, ``texture`` and ``conjunction`` in each voxel.
    """
    ends = np.cumsum([*_FACTOR_SIZES.values(), len(SHAPES), len(TEXTURES)])
    *tuning, by_shape, by_texture, _ = np.split(fields, ends, axis=1)
    weight = objects.radius * objects.present
    total = np.zeros((len(weight), len(fields)), dtype=np.float32)
    for column in range(MAX_OBJECTS):
        shape, texture = objects.shape[:, column], objects.texture[:, column]
        drive = mixture["conjunction"][:, None] * by_shape[:, shape] * by_texture[:, texture]
        for factor, weights in zip(_FACTOR_SIZES, tuning, strict=True):
            drive = drive + mixture[factor][:, None] * weights[:, getattr(objects, factor)[:, column]]
        total += weight[:, column, None] * np.logaddexp(0, 2 * drive.T)  # a smooth rectifier
    return (total / (weight.sum(axis=1) + TYPICAL_RADIUS / 2)[:, None]).astype(np.float32)


def count_objects(
    objects: Objects, fields: Float[np.ndarray, "n_voxels n_fields"]
) -> Float[np.ndarray, "n_images n_voxels"]:
    """Gaussian tuning to the log number of objects; the last field sets the preferred number."""
    number = np.log2(objects.present.sum(axis=1))
    preferred = np.log2(1.7) + 0.6 * fields[:, -1]
    return np.exp(-((number[:, None] - preferred) ** 2) / (2 * COUNT_WIDTH**2)).astype(np.float32)
