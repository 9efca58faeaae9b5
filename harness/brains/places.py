"""Where voxels lie in the space they were measured in: vertices of a surface, or voxels of a volume.

A `Brain` keeps coordinates only, as nothing else enters a fit. Files for other programs need vertices and
indices, which are found here again from the brain's coordinates and its source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from harness.brains.brain import Brain
from harness.storage import InputError

FS_LR = "fs_LR 32k"
FSAVERAGE = "fsaverage"


@dataclass(frozen=True)
class Mesh:
    """A cortical surface.

    Attributes
    ----------
    name : str
        `FS_LR`, `FSAVERAGE` or, for a subject's own surface, such as ``subj01``.
    n_vertices : tuple of two int
        Of the left and of the right hemisphere.
    """

    name: str
    n_vertices: tuple[int, int]


@dataclass(frozen=True)
class Volume:
    """A grid of voxels.

    Attributes
    ----------
    shape : tuple of int, (X, Y, Z)
    affine : float array [4, 4]
        From voxel indices (0-based) to millimetres, as (x, y, z, 1).
    """

    shape: tuple[int, int, int]
    affine: Float[np.ndarray, "4 4"]


@dataclass(frozen=True)
class Places:
    """Where the voxels of a brain lie; a voxel is on the mesh, in the volume, or (coordinates only) in none.

    Attributes
    ----------
    mesh : Mesh or None
    vertex : int array [n_voxels]
        Vertex in the mesh of the voxel's hemisphere, counted from 0; -1 off the mesh.
    volume : Volume or None
    index : int array [n_voxels, 3]
        Place in the volume, counted from 0; -1 outside.
    structure : str array [n_voxels]
        CIFTI structure of a voxel below the cortex, such as ``THALAMUS_LEFT``; "" for all others.
    """

    mesh: Mesh | None
    vertex: Int[np.ndarray, " n_voxels"]
    volume: Volume | None
    index: Int[np.ndarray, "n_voxels 3"]
    structure: Shaped[np.ndarray, " n_voxels"]

    def describe(self) -> str:
        """Say in words where the voxels are, for messages."""
        on_mesh, inside = int((self.vertex >= 0).sum()), int((self.index >= 0).all(axis=1).sum())
        parts = []
        if on_mesh and self.mesh is not None:
            parts.append(f"{on_mesh:,} vertices of {self.mesh.name}")
        if inside and self.volume is not None:
            parts.append(f"{inside:,} voxels of a volume")
        return " and ".join(parts) or "coordinates only"


def no_places(n_voxels: int) -> Places:
    """Places of voxels of which only coordinates are known."""
    return Places(
        mesh=None,
        vertex=np.full(n_voxels, -1, dtype=np.int64),
        volume=None,
        index=np.full((n_voxels, 3), -1, dtype=np.int64),
        structure=np.full(n_voxels, "", dtype="U60"),
    )


def on_mesh(mesh: Mesh, vertex: Int[np.ndarray, " n_voxels"]) -> Places:
    """Places on a mesh, from vertices numbered over both hemispheres, left first; -1 off the mesh."""
    left = mesh.n_vertices[0]
    none = no_places(len(vertex))
    own = np.where(vertex >= left, vertex - left, vertex).astype(np.int64)
    return Places(mesh, own, none.volume, none.index, none.structure)


def find_rows(
    brain: Brain, table: Float[np.ndarray, "n_places 3"], source: object
) -> Int[np.ndarray, " n_voxels"]:
    """Find each voxel's coordinates in a table of them, exactly.

    Raises
    ------
    InputError
        If a voxel is at none of these places: the brain is not of this source.
    """
    # only few sources need it, and it takes a second to import
    from scipy.spatial import cKDTree

    distance, row = cKDTree(table).query(brain.coords)
    if distance.any():
        raise InputError(
            f"{source}: found {int((distance > 0).sum())} of {brain.n_voxels} voxels of brain {brain.name} "
            "at other coordinates, expected those the brain was read from"
        )
    return np.asarray(row, dtype=np.int64)
