"""CIFTI-2 files: all maps as dense scalars, the layers as dense labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from harness.brains import (
    FS_LR,
    HEMISPHERES,
)
from harness.exports.export import (
    Export,
    refuse,
)
from harness.exports.labels import label_layers
from harness.storage import quiet_nibabel

STRUCTURES = dict(zip(HEMISPHERES, ("CORTEX_LEFT", "CORTEX_RIGHT"), strict=True))


def write_cifti(export: Export) -> dict[str, bytes]:
    """Make ``maps.dscalar.nii`` and ``layer.dlabel.nii``, whose grayordinates are the brain's voxels.

    They are the left, then the right hemisphere, in the order of vertices, then structures below the cortex.

    Raises
    ------
    InputError
        If the brain's voxels are not all grayordinates on fs_LR 32k.
    """
    from nibabel.cifti2 import cifti2_axes as axes

    places = export.places
    known = (places.vertex >= 0) | (places.structure != "")
    if places.mesh is None or places.mesh.name != FS_LR or not known.all():
        raise refuse("cifti", export, f"grayordinates on {FS_LR}, as of brain=grayordinates")
    order, columns = lay_out(export)
    values = np.stack([each.values[order] for each in export.maps])
    about = [{"unit": each.unit, "meaning": each.meaning} for each in export.maps]
    scalars = axes.ScalarAxis([each.name for each in export.maps], np.array(about, dtype=object))
    labels = axes.LabelAxis(["layer"], [label_layers(export.layers)])
    return {
        "maps.dscalar.nii": _to_bytes(values, scalars, columns, "ConnDenseScalar"),
        "layer.dlabel.nii": _to_bytes(values[:1], labels, columns, "ConnDenseLabel"),
    }


def lay_out(export: Export) -> tuple[Int[np.ndarray, " n_voxels"], Any]:
    """Order of the voxels in the file, and its axis of grayordinates."""
    from nibabel.cifti2 import cifti2_axes as axes

    places, brain = export.places, export.brain
    assert places.mesh is not None
    order, parts = [], []
    for side, name in STRUCTURES.items():
        own = np.flatnonzero((brain.hemisphere == side) & (places.vertex >= 0))
        own = own[np.argsort(places.vertex[own])]
        if len(own):
            n_vertices = places.mesh.n_vertices[HEMISPHERES.index(side)]
            parts.append(axes.BrainModelAxis.from_surface(places.vertex[own], n_vertices, name=name))
            order.append(own)
    # in the order of the brain, which is that of its file
    for name in dict.fromkeys(places.structure[places.structure != ""].tolist()):
        assert places.volume is not None
        own = np.flatnonzero(places.structure == name)
        parts.append(
            axes.BrainModelAxis(
                name,
                voxel=places.index[own],
                affine=places.volume.affine,
                volume_shape=places.volume.shape,
            )
        )
        order.append(own)
    return np.concatenate(order), sum(parts[1:], parts[0])


def _to_bytes(values: np.ndarray, rows: Any, columns: Any, intent: str) -> bytes:
    from nibabel.cifti2.cifti2 import Cifti2Image

    with quiet_nibabel():
        image = Cifti2Image(values.astype(np.float32), (rows, columns))
        image.nifti_header.set_intent(intent)
        content: bytes = image.to_bytes()
    return content
