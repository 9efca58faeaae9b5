"""NIfTI volumes, one file per map, on the grid that the responses were measured on."""

from __future__ import annotations

import gzip

import numpy as np

from harness.exports.export import (
    Export,
    refuse,
)


def write_nifti(export: Export) -> dict[str, bytes]:
    """Make a gzipped file per map: float32, NaN outside the brain's voxels.

    ``layer`` is int16, with 0 outside, so that programs take it for an atlas.

    Raises
    ------
    InputError
        If the brain's voxels are not all in a volume.
    """
    import nibabel  # slow to import

    volume, index = export.places.volume, export.places.index
    if volume is None or (index < 0).any():
        raise refuse("nifti", export, "voxels of a volume, as of brain=nsd in func1pt8mm or func1mm")
    files = {}
    for each in export.maps:
        whole = each.name == "layer"
        grid = np.full(volume.shape, 0 if whole else np.nan, dtype=np.int16 if whole else np.float32)
        grid[tuple(index.T)] = each.values
        image = nibabel.Nifti1Image(grid, volume.affine)
        image.header.set_xyzt_units("mm")
        image.header["descrip"] = each.name.encode()
        files[f"{each.name}.nii.gz"] = gzip.compress(image.to_bytes(), mtime=0)
    return files
