"""Maps of voxels, on the flat cortex where a brain has a surface and else as a scatter of coordinates."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from harness.brains import Brain
from harness.plot.flatmap import (
    colour_values,
    draw_colour_bar,
    draw_flatmap_colours,
)
from harness.plot.scatter import draw_scatter


def draw_voxels(
    ax: Axes,
    brain: Brain,
    colours: Float[np.ndarray, "n_voxels 3"],
    names: bool = True,
    blended: bool = True,
) -> None:
    """Draw one RGB colour (0 to 1) per voxel; rows with NaN are grey.

    Parameters
    ----------
    ax : Axes
        Its own axes are switched off.
    brain : Brain
    colours : float array [n_voxels, 3]
    names : bool
        Whether to write the names of a surface's areas.
    blended : bool
        Whether a surface's faces take the mean colour of their corners, or that of most of them.
    """
    if brain.surface is not None:
        draw_flatmap_colours(ax, brain.surface, colours, names, blended)
    else:
        draw_scatter(ax, brain.coords, brain.hemisphere, colours)


def draw_values(
    ax: Axes,
    brain: Brain,
    values: Float[np.ndarray, " n_voxels"],
    colour_map: str = "viridis",
    limits: tuple[float | int, float | int] | None = None,
    label: str | None = None,
    names: bool = True,
) -> ScalarMappable:
    """Draw one value per voxel; voxels that are NaN are grey.

    Parameters
    ----------
    ax : Axes
        Its own axes are switched off.
    brain : Brain
        Drawn on its surface: areas are filled and outlined, each vertex in the colour of its area's nearest
        voxel; without areas, only vertices with a voxel are coloured. Without a surface: at its coordinates.
    values : float array [n_voxels]
    colour_map, limits
        As of `colour_values`.
    label : str, optional
        Label of a colour bar under the map; none: no colour bar.
    names : bool
        Whether to write the areas' names.

    Returns
    -------
    ScalarMappable
        For a colour bar shared by several maps.
    """
    scale, colours = colour_values(values, colour_map, limits)
    draw_voxels(ax, brain, colours, names)
    if label is not None:
        draw_colour_bar(ax, scale, label)
    return scale
