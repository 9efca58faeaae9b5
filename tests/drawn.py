"""A brain that is nothing but a surface to draw on."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from harness.brains.brain import Brain, Surface
from harness.plot.voxel_maps import draw_values


def draw_on(ax: Axes, surface: Surface, values: np.ndarray, **options: Any) -> ScalarMappable:
    """Draw one value per voxel of a surface."""
    n_voxels = len(surface.voxel_vertex)
    brain = Brain(
        name="a surface",
        stimuli=[],
        responses=np.zeros((0, n_voxels), np.float32),
        coords=np.zeros((n_voxels, 3), np.float32),
        bounding_box=np.zeros((2, 3), np.float32),
        hemisphere=np.full(n_voxels, "L"),
        rois=(),
        noise_ceiling=None,
        surface=surface,
        fingerprint="",
        stimulus_ids=np.zeros(0, np.int64),
    )
    return draw_values(ax, brain, values, **options)
