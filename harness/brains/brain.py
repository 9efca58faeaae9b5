"""What every source of brain data is turned into: one `Brain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from harness.files import content_hash


@dataclass(frozen=True)
class Roi:
    """A region of interest.

    Attributes
    ----------
    name : str
    voxels : int array [n_roi_voxels]
        Indices into the brain's voxels.
    rank : float or None
        Place in the visual hierarchy, 1 for V1; None where it has none.
    """

    name: str
    voxels: Int[np.ndarray, " n_roi_voxels"]
    rank: float | None


@dataclass(frozen=True)
class Surface:
    """Flat cortex to draw on, both hemispheres in one mesh.

    Attributes
    ----------
    points : float array [n_vertices, 2]
    faces : int array [n_faces, 3]
    shade : float array [n_vertices], 0 (sulcus) to 1 (gyrus)
    voxel_vertex : int array [n_voxels]
        The vertex of every voxel.
    area : int array [n_vertices] or None
        Index into `area_names` of the area a vertex is in, -1 for none. An area is drawn filled, every
        vertex in the colour of the nearest voxel of its area, with its border and its name.
    area_names : tuple of str
    """

    points: Float[np.ndarray, "n_vertices 2"]
    faces: Int[np.ndarray, "n_faces 3"]
    shade: Float[np.ndarray, " n_vertices"]
    voxel_vertex: Int[np.ndarray, " n_voxels"]
    area: Int[np.ndarray, " n_vertices"] | None = None
    area_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Brain:
    """A subject: what was shown, what was measured, and where.

    Attributes
    ----------
    name : str
    stimuli : sequence of PIL images, RGB, [n_images]; decoded on demand
    responses : float32 array [n_images, n_voxels]
    coords : float32 array [n_voxels, 3], millimetres
        On a surface the place on the sphere, the right hemisphere shifted along x until apart.
    bounding_box : float32 array [2, 3]
        Minimum and maximum of the subject's coordinates, fixed whatever subset of voxels is used.
    hemisphere : str array [n_voxels], "L" or "R"
    rois : tuple of Roi; they may overlap
    noise_ceiling : float32 array [n_voxels] or None
        Share of the variance that a perfect model could explain, 0 to 1; None: unknown.
    surface : Surface or None
    fingerprint : str
        Hash of stimuli, responses and coordinates.
    """

    name: str
    stimuli: Sequence[Image.Image]
    responses: Float[np.ndarray, "n_images n_voxels"]
    coords: Float[np.ndarray, "n_voxels 3"]
    bounding_box: Float[np.ndarray, "2 3"]
    hemisphere: np.ndarray
    rois: tuple[Roi, ...]
    noise_ceiling: Float[np.ndarray, " n_voxels"] | None
    surface: Surface | None
    fingerprint: str

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return int(self.coords.shape[0])


class Pictures(Sequence[Image.Image]):
    """Images kept as one array of bytes."""

    def __init__(self, pixels: UInt8[np.ndarray, "n_images height width 3"]) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> Pictures: ...
    def __getitem__(self, index: int | slice) -> Image.Image | Pictures:
        if isinstance(index, slice):
            return Pictures(self.pixels[index])
        return Image.fromarray(self.pixels[index])


def fingerprint(pixels: np.ndarray, responses: np.ndarray, coords: np.ndarray) -> str:
    """Hash of what a brain's results depend on."""
    return content_hash(pixels, responses, coords)
