"""Arrays for pycortex: what `cortex.Vertex` and `cortex.Volume` take, and their subject and transform."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Float

from harness.brains import (
    FSAVERAGE,
    HEMISPHERES,
)
from harness.exports.export import (
    Export,
    refuse,
)
from harness.exports.gifti import (
    is_on_mesh,
    on_vertices,
)
from harness.storage import InputError


def write_pycortex(export: Export) -> dict[str, bytes]:
    """Make ``maps.npz``; the subject, transform and kind of its arrays go into ``maps.json``.

    On a surface, an array has the left, then the right hemisphere's vertices; in a volume, its axes are z, y,
    x. float32, NaN where there is no voxel.

    Raises
    ------
    InputError
        If the brain's voxels are neither all on a surface nor all in a volume, or pycortex's name of the
        subject or transform is not given.
    """
    inside = export.places.volume is not None and bool((export.places.index >= 0).all())
    if not is_on_mesh(export) and not inside:
        raise refuse("pycortex", export, "vertices of a surface only, or voxels of a volume only")
    mesh = export.places.mesh
    default = FSAVERAGE if mesh is not None and mesh.name == FSAVERAGE else None
    subject = export.pycortex_subject or default
    if subject is None:
        raise InputError(
            f"--format pycortex: found {export.places.describe()} and no --pycortex-subject, expected the "
            "subject's name in your pycortex database"
        )
    if inside and export.pycortex_transform is None:
        raise InputError(
            "--format pycortex: found a volume and no --pycortex-transform, expected the name of the "
            f"transform of {subject} from this volume, in your pycortex database"
        )
    if not inside and export.pycortex_transform is not None:
        raise InputError(
            f"--pycortex-transform: found {export.pycortex_transform} for a surface; expected none"
        )
    arrays = {
        each.name: _in_volume(each.values, export) if inside else _on_both(each.values, export)
        for each in export.maps
    }
    export.about["pycortex"] = {
        "kind": "Volume" if inside else "Vertex",
        "subject": subject,
        "transform": export.pycortex_transform,
    }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    return {"maps.npz": content.getvalue()}


def _on_both(values: Float[np.ndarray, " n_voxels"], export: Export) -> Float[np.ndarray, " n_vertices"]:
    return np.concatenate([on_vertices(values, export, side) for side in HEMISPHERES])


def _in_volume(values: Float[np.ndarray, " n_voxels"], export: Export) -> Float[np.ndarray, "z y x"]:
    volume = export.places.volume
    assert volume is not None
    grid = np.full(volume.shape, np.nan, dtype=np.float32)
    grid[tuple(export.places.index.T)] = values
    return grid.T
