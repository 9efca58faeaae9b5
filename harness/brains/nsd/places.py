"""Where the voxels of the Natural Scenes Dataset lie: in the subject's volume, or on a surface."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.brains.brain import Brain
from harness.brains.nsd.folder import open_folder
from harness.brains.nsd.subject import open_space
from harness.brains.places import (
    FSAVERAGE,
    Mesh,
    Places,
    Volume,
    find_rows,
    no_places,
    on_mesh,
)
from harness.config import NsdConfig


def locate(config: NsdConfig, brain: Brain) -> Places:
    """Find vertices or voxel indices; reads the mask again. Errors as for `harness.brains.locate_voxels`."""
    folder = open_folder(config)
    space = open_space(folder, config.mask)
    row = find_rows(brain, space.coords, folder.betas)
    if space.affine is None:
        left, right = space.parts
        mesh = Mesh(
            FSAVERAGE if space.vertices is not None else folder.subject, (left.shape[0], right.shape[0])
        )
        return on_mesh(mesh, np.concatenate([left.places, right.places + left.shape[0]])[row])
    (part,) = space.parts
    x, y, z = part.shape
    index = np.stack(np.unravel_index(part.places[row], (x, y, z), order="F"), axis=1)
    return replace(
        no_places(brain.n_voxels), volume=Volume((x, y, z), space.affine), index=index.astype(np.int64)
    )
