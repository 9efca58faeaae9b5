"""GIFTI files: all maps of a hemisphere in one, its layers as labels in another."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from harness.brains import HEMISPHERES
from harness.exports.export import (
    Export,
    refuse,
)
from harness.exports.labels import label_layers

SIDES = dict(zip(HEMISPHERES, (("lh", "CortexLeft"), ("rh", "CortexRight")), strict=True))


def on_vertices(
    values: Float[np.ndarray, " n_voxels"], export: Export, side: str
) -> Float[np.ndarray, " n_vertices"]:
    """Values at all vertices of a hemisphere, "L" or "R"; NaN where there is no voxel."""
    mesh = export.places.mesh
    assert mesh is not None
    whole = np.full(mesh.n_vertices[HEMISPHERES.index(side)], np.nan, dtype=np.float32)
    own = export.brain.hemisphere == side
    whole[export.places.vertex[own]] = values[own]
    return whole


def is_on_mesh(export: Export) -> bool:
    """Whether all voxels are vertices of a surface."""
    return export.places.mesh is not None and bool((export.places.vertex >= 0).all())


def write_gifti(export: Export) -> dict[str, bytes]:
    """Make ``lh.maps.func.gii`` and ``lh.layer.label.gii``, and the same of the right hemisphere.

    Every array covers all vertices of the hemisphere: float32, NaN where there is no voxel; labels int32, 0
    where there is none. Arrays have the maps' names.

    Raises
    ------
    InputError
        If the brain's voxels are not all vertices of a surface.
    """
    if not is_on_mesh(export):
        raise refuse("gifti", export, "vertices of a surface only")
    files = {}
    for side, (prefix, structure) in SIDES.items():
        arrays = [
            _array(on_vertices(each.values, export, side), each.name, each.meaning) for each in export.maps
        ]
        files[f"{prefix}.maps.func.gii"] = _image(arrays, structure, None).to_bytes()
        layer = np.nan_to_num(on_vertices(export.maps[0].values, export, side), nan=0).astype(np.int32)
        labels = _array(layer, "layer", export.maps[0].meaning)
        files[f"{prefix}.layer.label.gii"] = _image([labels], structure, _table(export)).to_bytes()
    return files


def _array(values: np.ndarray, name: str, meaning: str) -> Any:
    from nibabel.gifti.gifti import GiftiDataArray, GiftiMetaData

    label = values.dtype.kind == "i"
    return GiftiDataArray(
        values,
        intent="NIFTI_INTENT_LABEL" if label else "NIFTI_INTENT_NONE",
        datatype="NIFTI_TYPE_INT32" if label else "NIFTI_TYPE_FLOAT32",
        meta=GiftiMetaData({"Name": name, "Description": meaning}),
    )


def _image(arrays: list[Any], structure: str, table: Any) -> Any:
    from nibabel.gifti.gifti import GiftiImage, GiftiMetaData

    meta = GiftiMetaData({"AnatomicalStructurePrimary": structure})
    return GiftiImage(meta=meta, labeltable=table, darrays=arrays)


def _table(export: Export) -> Any:
    from nibabel.gifti.gifti import GiftiLabel, GiftiLabelTable

    table = GiftiLabelTable()
    for number, (name, colour) in label_layers(export.layers).items():
        label = GiftiLabel(number, *colour)
        label.label = name  # type: ignore[attr-defined]
        table.labels.append(label)
    return table
