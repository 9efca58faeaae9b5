"""What the writers of all formats are given, and how they refuse it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.brains import (
    Brain,
    Places,
)
from harness.exports.voxel_maps import VoxelMap
from harness.storage import InputError


@dataclass(frozen=True)
class Export:
    """What is written.

    Attributes
    ----------
    brain : Brain
    places : Places
        Of the brain's voxels.
    layers : tuple of str
        Names, from input to output; the map ``layer`` counts them from 1.
    maps : tuple of VoxelMap
        The first is ``layer``.
    about : dict
        What ``maps.json`` says of all formats; a writer adds what its own needs.
    pycortex_subject, pycortex_transform : str or None
        Names in the user's pycortex database.
    """

    brain: Brain
    places: Places
    layers: tuple[str, ...]
    maps: tuple[VoxelMap, ...]
    about: dict[str, Any]
    pycortex_subject: str | None = None
    pycortex_transform: str | None = None


def refuse(form: str, export: Export, expected: str) -> InputError:
    """Error for a brain that a format cannot hold: what was found, what is expected, what else there is."""
    places = export.places
    on_mesh, inside = (places.vertex >= 0), (places.index >= 0).all(axis=1)
    others = []
    if places.mesh is not None and on_mesh.all():
        others.append("gifti")
    if places.structure.any():
        others.append("cifti")
    if inside.all():
        others.append("nifti")
    return InputError(
        f"--format {form}: found {places.describe()} in brain {export.brain.name}, expected {expected}; "
        f"this brain can be written as {', '.join([*others, 'csv'])} or parquet"
    )
