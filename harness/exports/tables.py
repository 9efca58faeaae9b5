"""Tables: one row per voxel."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from harness.exports.export import Export

if TYPE_CHECKING:
    import pandas as pd


def make_table(export: Export) -> pd.DataFrame:
    """Table of all voxels, in the order of the brain.

    Columns: ``voxel`` (from 0), ``hemisphere``, ``x``, ``y``, ``z`` (millimetres), ``vertex`` or ``i``,
    ``j``, ``k`` where they are known (−1: not there), ``roi`` (names, separated by ``;``), ``layer_name``,
    and the maps.
    """
    import pandas as pd

    brain, places = export.brain, export.places
    columns = {"voxel": np.arange(brain.n_voxels), "hemisphere": brain.hemisphere}
    columns |= {axis: brain.coords[:, place] for place, axis in enumerate("xyz")}
    if places.mesh is not None:
        columns["vertex"] = places.vertex
    if places.volume is not None:
        columns |= {axis: places.index[:, place] for place, axis in enumerate("ijk")}
    names: list[list[str]] = [[] for _ in range(brain.n_voxels)]
    for roi in brain.rois:
        for voxel in roi.voxels.tolist():
            names[voxel].append(roi.name)
    columns["roi"] = np.array([";".join(each) for each in names])
    number = export.maps[0].values.astype(np.int64)
    columns["layer_name"] = np.array(export.layers)[number - 1]
    columns["layer"] = number
    return pd.DataFrame(columns | {each.name: each.values for each in export.maps[1:]})


def write_csv(export: Export) -> dict[str, bytes]:
    """Make ``maps.csv``; numbers have as many digits as give the same float32 again."""
    return {"maps.csv": make_table(export).to_csv(index=False).encode()}


def write_parquet(export: Export) -> dict[str, bytes]:
    """Make ``maps.parquet``."""
    content = io.BytesIO()
    make_table(export).to_parquet(content, index=False)
    return {"maps.parquet": content.getvalue()}
