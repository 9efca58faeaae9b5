"""The truth of a simulated subject, voxel by voxel, and its file."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from harness.brains.brain import Brain
from harness.storage import (
    InputError,
    describe_array,
    read_npz,
    write_atomically,
)

OF_RESPONSES = ("signal", "repeats")
"""Arrays whose last axis is voxels; in all others it is the first."""


@dataclass(frozen=True)
class SimulatedTruth:
    """The known wiring of a simulated subject, in the order of the brain's voxels.

    Attributes
    ----------
    vertex : int64 array [n_voxels]
        Vertex of fs_LR 32k, 0 to 64983: the 32492 of the left hemisphere, then those of the right.
    region : str array [n_voxels], named like the brain's ROIs
    stage : str array [n_voxels], "early", "middle" or "high"
    rank : float32 array [n_voxels], 1 (V1) to 6
        Rank in the hierarchy.
    polar_angle : float32 array [n_voxels], degrees, -180 to 180; NaN in high areas
        Counter-clockwise from the right horizontal meridian; 90 is up.
    eccentricity : float32 array [n_voxels], half widths of the image; NaN in high areas
    place : float32 array [n_voxels, 2], -1 to 1; NaN in high areas
        Centre of the receptive field: x rightwards, y downwards.
    size : float32 array [n_voxels], half widths of the image; infinite in high areas
        Standard deviation of the receptive field.
    noise_ceiling : float32 array [n_voxels], 0 to 1
        Share of the variance of the averaged response that is signal.
    signal : float32 array [n_images, n_voxels]
        Response without noise: mean 0, variance 1; zeros if all images look alike to a voxel.
    repeats : float32 array [3, n_images, n_voxels]
        Single responses, in units of the standard deviation of their mean, which is the brain's response.
    """

    vertex: Int[np.ndarray, " n_voxels"]
    region: np.ndarray
    stage: np.ndarray
    rank: Float[np.ndarray, " n_voxels"]
    polar_angle: Float[np.ndarray, " n_voxels"]
    eccentricity: Float[np.ndarray, " n_voxels"]
    place: Float[np.ndarray, "n_voxels 2"]
    size: Float[np.ndarray, " n_voxels"]
    noise_ceiling: Float[np.ndarray, " n_voxels"]
    signal: Float[np.ndarray, "n_images n_voxels"]
    repeats: Float[np.ndarray, "3 n_images n_voxels"]

    def select_brain(self, brain: Brain) -> SimulatedTruth:
        """Select the voxels of `brain`, which is this subject or a selection of its voxels."""
        assert brain.surface is not None
        place = {vertex: voxel for voxel, vertex in enumerate(self.vertex.tolist())}
        chosen = np.array([place[vertex] for vertex in brain.surface.voxel_vertex.tolist()])
        if np.array_equal(chosen, np.arange(len(self.vertex))):
            return self
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(
            self,
            **{
                name: array[..., chosen] if name in OF_RESPONSES else array[chosen]
                for name, array in arrays.items()
            },
        )


def save_truth(truth: SimulatedTruth, path: Path) -> None:
    """Write every array by name into an npz file, atomically."""
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **{field.name: getattr(truth, field.name) for field in fields(truth)})


def read_truth(path: Path) -> SimulatedTruth:
    """Read what `save_truth` wrote.

    Raises
    ------
    InputError
        If the file is missing or broken, or its arrays do not fit together.
    """
    arrays = read_npz(path)
    names = [field.name for field in fields(SimulatedTruth)]
    if sorted(arrays) != sorted(names):
        raise InputError(f"{path}: found {', '.join(arrays) or 'no array'}, expected {', '.join(names)}")
    n_voxels = len(arrays["vertex"])
    for name, array in arrays.items():
        if not array.ndim or array.shape[-1 if name in OF_RESPONSES else 0] != n_voxels:
            raise InputError(f"{path}: {name}: found {describe_array(array)}, expected {n_voxels} voxels")
    return SimulatedTruth(**arrays)
