"""FreeSurfer's average cortex: the sphere of fsaverage and a flat map.

Nothing is downloaded. The sphere of fsaverage is an icosahedron whose faces were split in four seven times;
its first vertices are those of the coarser spheres. fsaverage5, split five times, is read from the files of
the `nilearn` package, which is not imported: that takes seconds. Splitting it twice more gives all 163,842
vertices in FreeSurfer's order (checked against the icosahedra of MNE-Python 1.13: every vertex of both finer
levels is within 0.011 mm, the rounding of the stored ones).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from harness.brains.brain import Surface
from harness.brains.cortex import GAP
from harness.storage import InputError

N_VERTICES = 163_842
"""Vertices of one hemisphere of fsaverage."""
RADIUS = 100.0  # millimetres


@dataclass(frozen=True)
class Fsaverage:
    """Both hemispheres of fsaverage, left first: vertex v of the right one is `N_VERTICES` + v.

    Attributes
    ----------
    sphere : float32 array [2 * N_VERTICES, 3], millimetres
        On the sphere of radius 100; the right hemisphere is shifted along x so that they do not overlap.
    flat : float32 array [n_flat_vertices, 2], millimetres
        Flat map of fsaverage5, the right hemisphere beside the left; arbitrary for vertices in no face.
    faces : int array [n_faces, 3]
        Triangles of the flat map.
    shade : float32 array [n_flat_vertices], 0 (deep in a sulcus) to 1 (on a gyrus)
    """

    sphere: Float[np.ndarray, "n_vertices 3"]
    flat: Float[np.ndarray, "n_flat_vertices 2"]
    faces: Int[np.ndarray, "n_faces 3"]
    shade: Float[np.ndarray, " n_flat_vertices"]

    @property
    def bounding_box(self) -> Float[np.ndarray, "2 3"]:
        """Minimum and maximum over both spheres, the same for every subject."""
        return np.stack([self.sphere.min(axis=0), self.sphere.max(axis=0)])

    def surface(
        self,
        vertices: Int[np.ndarray, " n_voxels"],
        area: Int[np.ndarray, " n_voxels"] | None = None,
        area_names: tuple[str, ...] = (),
    ) -> Surface:
        """Flat map to draw voxels at `vertices` on, each at the nearest vertex of the map.

        Parameters
        ----------
        vertices : int array [n_voxels]
        area : int array [n_voxels], optional
            Index into `area_names` of the area a voxel is in, -1 for none. Areas are outlined on the map: a
            vertex belongs to the area of most voxels drawn there.
        area_names : tuple of str
        """
        there = np.unique(self.faces)  # without the medial wall
        n_coarse = len(self.flat) // 2
        places = self.sphere[there + (there >= n_coarse) * (N_VERTICES - n_coarse)]
        drawn_at = there[cKDTree(places).query(self.sphere[vertices])[1]]
        drawn = None
        if area is not None:
            votes = np.zeros((len(self.flat), len(area_names) + 1), dtype=np.int64)
            np.add.at(votes, (drawn_at, area), 1)  # -1 is the last column
            drawn = np.where(votes.any(axis=1), votes.argmax(axis=1), -1)
            drawn[drawn == len(area_names)] = -1
        return Surface(self.flat, self.faces, self.shade, drawn_at, drawn, area_names)


@cache
def load_fsaverage() -> Fsaverage:
    """Read fsaverage5 from `nilearn` and split it to fsaverage; `InputError` if nilearn is missing."""
    folder = _data_folder()
    spheres, flats, faces, shades = [], [], [], []
    for side in ("left", "right"):
        coarse, triangles = _read(folder / f"sphere_{side}.gii.gz")
        spheres.append(split_sphere(coarse.astype(np.float64), triangles.astype(np.int64)))
        flat, drawn = _read(folder / f"flat_{side}.gii.gz")
        flats.append(flat[:, :2].astype(np.float32))
        faces.append(drawn.astype(np.int64))
        (depth,) = _read(folder / f"sulc_{side}.gii.gz")
        low, high = np.percentile(depth, [2, 98])
        shades.append(np.clip((high - depth) / (high - low), 0, 1).astype(np.float32))
    if len(spheres[0]) != N_VERTICES:
        raise InputError(f"{folder}: found a sphere that splits into {len(spheres[0])}, expected fsaverage5")
    for part in (spheres, flats):
        part[1][:, 0] += part[0][:, 0].max() - part[1][:, 0].min() + GAP
    return Fsaverage(
        sphere=np.concatenate(spheres).astype(np.float32),
        flat=np.concatenate(flats),
        faces=np.concatenate([faces[0], faces[1] + len(flats[0])]),
        shade=np.concatenate(shades),
    )


def split_sphere(
    points: Float[np.ndarray, "n_points 3"], faces: Int[np.ndarray, "n_faces 3"]
) -> Float[np.ndarray, "n_vertices 3"]:
    """Split the faces of a sphere until it has at least `N_VERTICES` vertices; the given ones come first."""
    while len(points) < N_VERTICES:
        faces, edges = split_faces(faces, len(points))
        middles = points[edges].mean(axis=1)
        middles *= RADIUS / np.linalg.norm(middles, axis=1, keepdims=True)
        points = np.concatenate([points, middles])
    return points


def split_faces(
    faces: Int[np.ndarray, "n_faces 3"], n_points: int
) -> tuple[Int[np.ndarray, "n_more_faces 3"], Int[np.ndarray, "n_edges 2"]]:
    """Split every face in four, in FreeSurfer's order.

    New vertices lie in the middle of edges, numbered in the order in which faces use them first: in a face
    (a, b, c) the edge a–c, then b–c, then a–b. The face at a keeps its index; those at c, in the middle and
    at b follow after all faces, three at a time.

    Returns
    -------
    faces : int array [4 * n_faces, 3]
    edges : int array [n_edges, 2]
        End points of the edge of each new vertex, smaller first.
    """
    a, b, c = faces.T
    met = np.sort(np.stack([a, c, b, c, a, b], axis=1).reshape(-1, 2), axis=1)
    _, first, same = np.unique(met[:, 0] * n_points + met[:, 1], return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = n_points + np.arange(len(first))
    ac, bc, ab = number[same].reshape(-1, 3).T
    rest = np.stack([ac, bc, c, ab, bc, ac, ab, b, bc], axis=1).reshape(-1, 3)
    return np.concatenate([np.stack([a, ab, ac], axis=1), rest]), met[np.sort(first)]


def _read(path: Path) -> tuple[np.ndarray, ...]:
    from nibabel.gifti.gifti import GiftiImage  # slow to import

    if not path.exists():
        raise InputError(f"{path}: no such file; expected nilearn 0.11 or newer, which holds fsaverage5")
    return tuple(array.data for array in GiftiImage.from_filename(path).darrays)


def _data_folder() -> Path:
    package = importlib.util.find_spec("nilearn")
    if package is None or not package.submodule_search_locations:
        raise InputError(
            "package nilearn is missing, which holds fsaverage5; install it with `pip install nilearn`"
        )
    return Path(package.submodule_search_locations[0]) / "datasets" / "data" / "fsaverage5"
