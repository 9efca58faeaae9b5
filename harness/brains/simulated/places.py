"""Where the simulated subject's voxels lie: vertices of fs_LR 32k."""

from __future__ import annotations

from harness.brains.brain import Brain
from harness.brains.cortex import load_cortex
from harness.brains.places import (
    FS_LR,
    Mesh,
    Places,
    find_rows,
    on_mesh,
)
from harness.config import SimulatedConfig


def locate(config: SimulatedConfig, brain: Brain) -> Places:
    """Find the vertices of voxels; errors as for `harness.brains.locate_voxels`."""
    sphere = load_cortex().sphere
    half = len(sphere) // 2
    return on_mesh(Mesh(FS_LR, (half, half)), find_rows(brain, sphere, config.name))
