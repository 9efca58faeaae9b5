"""Maps of a brain's regions and noise ceiling."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from harness.brains import Brain
from harness.plot.style import figure_style
from harness.plot.voxel_maps import (
    draw_values,
    draw_voxels,
)


def draw_brain(brain: Brain) -> Figure:
    """Draw the regions, one colour each, and the noise ceiling if it is known.

    Where regions overlap, the smallest is on top. Voxels in no region are grey.
    """
    with figure_style():
        n_maps = 1 if brain.noise_ceiling is None else 2
        figure = Figure(
            figsize=((4.6 if brain.surface is not None else 3.4) * n_maps, 5), layout="constrained"
        )
        axes = figure.subplots(1, n_maps, squeeze=False)[0]
        _draw_regions(axes[0], brain)
        if brain.noise_ceiling is not None:
            limits = (0.0, float(max(brain.noise_ceiling.max(), 1e-3)))
            draw_values(axes[1], brain, brain.noise_ceiling, limits=limits, label="share of the variance")
            axes[1].set_title("Noise ceiling")
        figure.suptitle(f"{brain.name}: {brain.n_voxels:,} voxels", x=0.008, ha="left", fontweight="bold")
    return figure


def region_colours(n_regions: int) -> list[tuple[float, float, float]]:
    """A colour per region: seaborn's colour-blind palette, or hues in three lightnesses if there are many."""
    import seaborn as sns  # takes a second to import

    palette = sns.color_palette("colorblind")
    del palette[7]  # grey, which stands for no region
    if n_regions <= len(palette):
        return palette[:n_regions]
    hues = [sns.husl_palette(n_regions, s=0.75, l=lightness) for lightness in (0.75, 0.6, 0.45)]
    return [hues[index % 3][index] for index in range(n_regions)]


def _draw_regions(ax: Axes, brain: Brain) -> None:
    palette = region_colours(len(brain.rois))
    colours = np.full((brain.n_voxels, 3), np.nan)
    order = sorted(range(len(brain.rois)), key=lambda index: -len(brain.rois[index].voxels))
    for index in order:
        colours[brain.rois[index].voxels] = palette[index]
    draw_voxels(ax, brain, colours, blended=False)
    ax.set_title("Regions")
    if brain.surface is not None and brain.surface.area_names:
        return  # the map has their names
    patches = [Patch(color=palette[index], label=roi.name) for index, roi in enumerate(brain.rois)]
    if patches:
        columns = min(len(patches), 5)
        ax.legend(
            handles=patches, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=columns, fontsize=7,
            handlelength=0.8, handletextpad=0.3, columnspacing=0.8,
        )  # fmt: skip
