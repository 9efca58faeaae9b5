"""Where the voxels of Algonauts 2023 lie: vertices of fsaverage."""

from __future__ import annotations

from harness.brains.brain import Brain
from harness.brains.fsaverage import (
    N_VERTICES,
    load_fsaverage,
)
from harness.brains.places import (
    FSAVERAGE,
    Mesh,
    Places,
    find_rows,
    on_mesh,
)
from harness.config import Algonauts2023Config


def locate(config: Algonauts2023Config, brain: Brain) -> Places:
    """Find the vertices of voxels; errors as for `harness.brains.locate_voxels`."""
    mesh = Mesh(FSAVERAGE, (N_VERTICES, N_VERTICES))
    return on_mesh(mesh, find_rows(brain, load_fsaverage().sphere, config.root))
