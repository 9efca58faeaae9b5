"""Where grayordinates lie: vertices of fs_LR 32k, and voxels of the files' volume below the cortex."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.brains.brain import Brain
from harness.brains.cortex import load_cortex
from harness.brains.grayordinates.cifti import (
    N_VERTICES,
    read_volume,
)
from harness.brains.grayordinates.subject import (
    choose_columns,
    open_maps,
    place_columns,
)
from harness.brains.places import (
    FS_LR,
    Mesh,
    Places,
    Volume,
    find_rows,
    on_mesh,
)
from harness.config import GrayordinatesConfig
from harness.storage import user_path


def locate(config: GrayordinatesConfig, brain: Brain) -> Places:
    """Find vertices and voxel indices; reads a header again. Errors as for `harness.brains.locate_voxels`."""
    root = user_path(config.root)
    file = open_maps(root, config.maps)[0]
    cortex, layout = load_cortex(), file.layout
    columns = choose_columns(layout, cortex, config.cortex == "all", config.subcortex)
    coords, _ = place_columns(layout, cortex, columns, config.subcortex)
    columns = columns[find_rows(brain, coords, root)]
    found = on_mesh(Mesh(FS_LR, (N_VERTICES, N_VERTICES)), layout.vertex[columns])
    below = layout.below[columns]
    if not below.any():
        return found
    shape, affine = read_volume(file.path)
    index, structure = found.index.copy(), found.structure.copy()
    places = layout.place[columns[below]].astype(np.float64)
    index[below] = np.rint((places - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(np.int64)
    structure[below] = layout.structure[columns[below]]
    return replace(found, volume=Volume(shape, affine), index=index, structure=structure)
