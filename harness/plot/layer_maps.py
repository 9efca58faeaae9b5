"""Maps of the layer selector: before, after, their depth shift, and the shift of a refit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from harness.brains import Brain
from harness.mappings import Mapping
from harness.measures import expected_depth
from harness.plot.flatmap import (
    draw_layer_legend,
    layer_colours,
)
from harness.plot.style import (
    WIDTH,
    figure_style,
)
from harness.plot.voxel_maps import (
    draw_values,
    draw_voxels,
)

COLOUR_MAP = "RdBu_r"


@dataclass(frozen=True)
class DepthShift:
    """Signed shift of every voxel's expected depth, positive towards deeper layers, in [−1, 1].

    Attributes
    ----------
    end : float array [n_voxels]
        Last snapshot against the mean of all fits of step 0; its mean over an ROI's predicted voxels is
        ``rewiring/<ROI>/depth_shift``.
    floor : float array [n_voxels] or None
        A refit of step 0 against the mean of the other fits; None without refits.
    """

    end: Float[np.ndarray, " n_voxels"]
    floor: Float[np.ndarray, " n_voxels"] | None


def measure_shift(step_0: Sequence[Mapping], end: Mapping) -> DepthShift:
    """Measure the depth shift of `end` against the fits of step 0, the first and its refits."""
    depths = np.stack([expected_depth(fit.layer) for fit in step_0])
    floor = depths[-1] - depths[:-1].mean(axis=0) if len(depths) > 1 else None
    return DepthShift(expected_depth(end.layer) - depths.mean(axis=0), floor)


def choose_limit(shifts: Sequence[DepthShift]) -> float:
    """Choose the ends of the colour map: the 99th percentile of absolute shifts over all runs, rounded up."""
    largest = max((float(np.percentile(np.abs(shift.end), 99)) for shift in shifts), default=0.0)
    return max(np.ceil(largest * 20) / 20, 0.05)


def draw_layer_maps(brain: Brain, before: Mapping, after: Mapping, shift: DepthShift, limit: float) -> Figure:
    """Draw the layer selector at step 0 and at the end, the depth shift, and that of a refit.

    Parameters
    ----------
    brain : Brain
    before, after : Mapping
        Of step 0 and of the last snapshot.
    shift : DepthShift
    limit : float
        Shift at the ends of the colour map.
    """
    with figure_style():
        layout = ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.05, wspace=0.03)
        figure = Figure(figsize=(WIDTH, 3.0 if brain.surface is not None else 3.6), layout=layout)
        grid = figure.add_gridspec(1, 6, width_ratios=(1, 1, 0.09, 1, 1, 0.09))
        for column, (mapping, title) in enumerate(((before, "Step 0"), (after, "Last snapshot"))):
            draw_voxels(figure.add_subplot(grid[column], title=title), brain, layer_colours(mapping.layer))
        draw_layer_legend(figure.add_subplot(grid[2]), before.layers)
        titles = ("Difference: depth shift", "Floor: shift of a refit")
        for column, (values, title) in enumerate(zip((shift.end, shift.floor), titles, strict=True)):
            if values is not None:
                ax = figure.add_subplot(grid[3 + column], title=title)
                scale = draw_values(ax, brain, values, COLOUR_MAP, (-limit, limit), names=False)
        draw_shift_bar(figure.add_subplot(grid[5]), scale, limit)
    return figure


def draw_shift_bar(ax: Axes, scale: ScalarMappable, limit: float) -> None:
    """Draw the colour bar of a depth shift into axes of its own."""
    bar = ax.figure.colorbar(scale, cax=ax, extend="both")
    bar.outline.set_visible(False)
    bar.set_ticks([-limit, 0, limit], labels=[f"−{limit:.2g}\nearlier", "0", f"+{limit:.2g}\ndeeper"])
    bar.ax.tick_params(labelsize=7, length=2)
