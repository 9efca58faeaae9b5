"""Maps of one mapping: layer, scale and R², the share of every layer, and places on the image plane."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from harness.brains import (
    Brain,
    Roi,
    group_areas,
)
from harness.mappings import Mapping
from harness.measures import normalise_r2
from harness.plot.brain_maps import region_colours
from harness.plot.flatmap import (
    draw_layer_legend,
    layer_colours,
)
from harness.plot.style import (
    FAINT,
    WIDTH,
    figure_style,
)
from harness.plot.voxel_maps import (
    draw_values,
    draw_voxels,
)

COLUMNS = 4  # of small maps
REST = "Other regions"


def draw_selector_maps(brain: Brain, mapping: Mapping) -> Figure:
    """Draw the layer that voxels read with confidence as brightness, scale, R², and R² over the ceiling.

    Maps of what the mapping or the brain lacks (scale, ceiling) are left out.

    Parameters
    ----------
    brain : Brain
        Its noise ceiling is that of the held-out stimuli (`Brain.score_on`).
    mapping : Mapping
    """
    top = max(float(np.percentile(mapping.r2, 99)), 0.05)
    values = {
        "Scale: 0 local, 1 global": (mapping.scale, "cividis", 1.0),
        "R² of held-out stimuli": (mapping.r2, "magma", top),
        "R² over the noise ceiling": (
            None if brain.noise_ceiling is None else normalise_r2(mapping.r2, brain.noise_ceiling),
            "magma",
            1.0,
        ),
    }
    shown = [
        (title, array, colours, top) for title, (array, colours, top) in values.items() if array is not None
    ]
    n_rows = math.ceil((1 + len(shown)) / 2)
    with figure_style():
        layout = ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.07, wspace=0.03)
        figure = Figure(figsize=(WIDTH, (3.6 if brain.surface is not None else 4.4) * n_rows), layout=layout)
        grid = figure.add_gridspec(n_rows, 4, width_ratios=(1, 0.11, 1, 0.03))
        title = "Layer read most (hue) and confidence (brightness)"
        draw_voxels(figure.add_subplot(grid[0, 0], title=title), brain, layer_colours(mapping.layer))
        draw_layer_legend(figure.add_subplot(grid[0, 1]), mapping.layers)
        for place, (title, array, colours, top) in enumerate(shown, 1):
            row, column = divmod(place, 2)
            ax = figure.add_subplot(grid[row, 2 * column], title=title)
            scale = draw_values(ax, brain, array, colours, (0.0, top))
            bar = figure.colorbar(scale, cax=figure.add_subplot(grid[row, 2 * column + 1]))
            bar.outline.set_visible(False)
            bar.ax.tick_params(labelsize=7, length=2)
    return figure


def draw_share_maps(brain: Brain, mapping: Mapping) -> Figure:
    """Draw one map per layer: the layer's share in what every voxel reads, all on one scale from 0.

    Parameters
    ----------
    brain : Brain
    mapping : Mapping
    """
    n_layers = len(mapping.layers)
    n_rows = math.ceil(n_layers / COLUMNS)
    top = max(float(np.percentile(mapping.layer, 99.5)), 1.5 / n_layers)
    with figure_style():
        # without layout engine, which would draw everything twice
        figure = Figure(figsize=(WIDTH, (1.75 if brain.surface is not None else 2.6) * n_rows + 0.45))
        axes = figure.subplots(n_rows, COLUMNS, squeeze=False)
        bottom = 0.45 / figure.get_figheight()
        figure.subplots_adjust(0.005, bottom, 0.995, 1 - 0.5 * bottom, wspace=0.03, hspace=0.16)
        for index, ax in enumerate(axes.flat):
            if index >= n_layers:
                ax.axis("off")
                continue
            scale = draw_values(ax, brain, mapping.layer[:, index], "magma", (0.0, top), names=False)
            ax.set_title(mapping.layers[index], pad=3)
        bar = figure.colorbar(
            scale, cax=figure.add_axes((0.36, 0.5 * bottom, 0.28, 0.14 * bottom)), orientation="horizontal"
        )
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7, length=2)
        figure.text(0.35, 0.57 * bottom, "share of the layer", ha="right", va="center", fontsize=8)
    return figure


def draw_places(brain: Brain, mapping: Mapping, counted: Bool[np.ndarray, " n_voxels"]) -> Figure:
    """Draw where in the image voxels read: a dot per voxel on the image plane, coloured by region.

    Early, middle and high areas have a panel each, where the brain ranks its regions; regions without rank
    have another.

    Parameters
    ----------
    brain : Brain
    mapping : Mapping
        With `space`.
    counted : bool array [n_voxels]
        Voxels to draw: those that are predicted.
    """
    assert mapping.space is not None
    colours = dict(zip((roi.name for roi in brain.rois), region_colours(len(brain.rois)), strict=True))
    panels = panel_regions(brain.rois)
    with figure_style():
        figure = Figure(figsize=(WIDTH, WIDTH / max(len(panels), 3) + 0.35), layout="constrained")
        axes = figure.subplots(1, max(len(panels), 3), squeeze=False)[0]
        for ax in axes[len(panels) :]:
            ax.axis("off")
        for ax, (title, rois) in zip(axes, panels.items(), strict=False):
            for roi in rois:
                voxels = roi.voxels[counted[roi.voxels]]
                x, y = mapping.space[voxels].T
                ax.scatter(x, y, s=7, color=[colours[roi.name]], linewidths=0, alpha=0.75, rasterized=True)
            _frame(ax, title)
            dots = [
                Line2D(
                    [], [], linestyle="", marker="o", markersize=4, color=colours[roi.name], label=roi.name
                )
                for roi in rois
            ]
            ax.legend(
                handles=dots, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=5, fontsize=7,
                handlelength=0.6, handletextpad=0.3, columnspacing=0.8,
            )  # fmt: skip
    return figure


def panel_regions(rois: tuple[Roi, ...]) -> dict[str, list[Roi]]:
    """Regions of every panel of `draw_places`, by title; all in one panel where none are ranked."""
    groups = group_areas(rois)
    panels = {name.replace("_", " ").capitalize(): list(members) for name, members in groups.items()}
    drawn = {roi.name for members in panels.values() for roi in members}
    rest = [roi for roi in rois if roi.name not in drawn]
    return panels | ({REST if panels else "All regions": rest} if rest else {})


def _frame(ax: Axes, title: str) -> None:
    """Set up the image plane: x to the right, y down, both −1 to 1."""
    ax.set(xlim=(-1.05, 1.05), ylim=(1.05, -1.05), title=title)
    ax.set_xticks([-1, 0, 1], ["left", "0", "right"])
    ax.set_yticks([-1, 0, 1], ["top", "0", "bottom"])
    ax.set_aspect("equal")
    ax.grid(True, axis="both")
    ax.spines[:].set(visible=True, color=FAINT, linewidth=0.6)
