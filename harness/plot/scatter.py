"""Maps of voxels without a surface: their coordinates in orthogonal views, in millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.ticker import MaxNLocator
from scipy.spatial import cKDTree

from harness.brains import HEMISPHERES
from harness.plot.style import (
    FAINT,
    INK,
)

NO_VALUE = (0.81, 0.81, 0.81)
AXES = "xyz"
MARGIN = 0.06  # around the voxels, share of the longest view
ROOM = (0.24, 0.2)  # left of a view and below it, for ticks and labels; share of all views' size
DIAMETER = (0.02, 0.06)  # smallest and largest voxel, share of the longest view
EDGE = (0.0, 0.0, 0.0, 0.3)  # keeps colours near white visible


@dataclass(frozen=True)
class View:
    """One orthogonal projection.

    Attributes
    ----------
    title : str
    across, up : int
        Axis of the coordinates (0 to 2) that runs to the right, and up.
    towards : (axis, sign) or None
        Where the viewer stands: voxels nearer to it are drawn on top.
    mirrored : bool
        Whether the axis across runs to the left, as in a left hemisphere seen from the left.
    voxels : bool array [n_voxels]
    """

    title: str
    across: int
    up: int
    towards: tuple[int, int] | None
    mirrored: bool
    voxels: Bool[np.ndarray, " n_voxels"]


def choose_views(
    coords: Float[np.ndarray, "n_voxels 3"], hemisphere: Shaped[np.ndarray, " n_voxels"]
) -> list[list[View]]:
    """Rows of views: each hemisphere from its side, and both from above; one view of a flat sheet."""
    everything = np.ones(len(coords), dtype=bool)
    extent = np.ptp(coords, axis=0)
    varied = [axis for axis in range(3) if extent[axis] > 1e-3 * extent.max()]
    if len(varied) < 3:
        across, up = [*varied, *(axis for axis in range(3) if axis not in varied)][:2]
        return [[View("", min(across, up), max(across, up), None, False, everything)]]
    sides = [side for side in HEMISPHERES if (hemisphere == side).any()]
    lateral = [
        View(
            {"L": "left", "R": "right"}[side] + " hemisphere",
            1,
            2,
            (0, -1 if side == "L" else 1),
            side == "L",
            hemisphere == side,
        )
        for side in sides
    ]
    above = View("from above", 0, 1, (2, 1), False, everything)
    return [lateral, [above]]


def draw_scatter(
    ax: Axes,
    coords: Float[np.ndarray, "n_voxels 3"],
    hemisphere: Shaped[np.ndarray, " n_voxels"],
    colours: Float[np.ndarray, "n_voxels 3"],
    font_size: float = 6.5,
) -> None:
    """Draw one RGB colour (0 to 1) per voxel at its place; rows with NaN are grey.

    All views have one scale, with axes in millimetres.

    Parameters
    ----------
    ax : Axes
        Holds the views as inset axes; its own axes are switched off.
    coords : float array [n_voxels, 3], millimetres
        x to the right, y to the front, z up.
    hemisphere : array [n_voxels] of "L" and "R"
    colours : float array [n_voxels, 3]
    font_size : float
        Of ticks and labels, points.
    """
    rows = choose_views(coords, hemisphere)
    longest = max(float(np.ptp(coords, axis=0).max()), 1e-6)
    margin, diameter = MARGIN * longest, _diameter(coords, longest)
    spans = [[_span(coords[view.voxels], view, margin) for view in row] for row in rows]
    widest = max(sum(high[0] - low[0] for low, high in row) for row in spans)
    tallest = sum(max(high[1] - low[1] for low, high in row) for row in spans)
    left, below = (share * max(widest, 0.7 * tallest) for share in ROOM)
    top = right = 0.0
    for row, row_spans in zip(rows, spans, strict=True):
        height = max(high[1] - low[1] for low, high in row_spans)
        edge = 0.0
        for place, (view, (low, high)) in enumerate(zip(row, row_spans, strict=True)):
            edge += left if place == 0 or view.up != row[place - 1].up else 0.15 * left
            width = high[0] - low[0]
            inset = ax.inset_axes((edge, top - height, width, high[1] - low[1]), transform=ax.transData)
            _draw_view(inset, coords, colours, view, low, high, diameter, font_size)
            inset.tick_params(labelleft=place == 0 or view.up != row[place - 1].up)
            if place == 0 or view.up != row[place - 1].up:
                inset.set_ylabel(f"{AXES[view.up]} (mm)", fontsize=font_size, labelpad=1)
            edge += width
        right = max(right, edge)
        top -= height + below + 0.5 * below
    ax.set(xlim=(0, right), ylim=(top + 0.5 * below, 0.4 * below))
    ax.set_aspect("equal", anchor="N")
    ax.axis("off")


def _span(
    coords: Float[np.ndarray, "n_voxels 3"], view: View, margin: float
) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
    shown = coords[:, [view.across, view.up]].astype(np.float64)
    return shown.min(axis=0) - margin, shown.max(axis=0) + margin


def _draw_view(
    ax: Axes,
    coords: Float[np.ndarray, "n_voxels 3"],
    colours: Float[np.ndarray, "n_voxels 3"],
    view: View,
    low: Float[np.ndarray, "2"],
    high: Float[np.ndarray, "2"],
    diameter: float,
    font_size: float,
) -> None:
    chosen = np.flatnonzero(view.voxels)
    known = ~np.isnan(colours[chosen]).any(axis=1)
    near = (
        np.zeros(len(chosen)) if view.towards is None else coords[chosen, view.towards[0]] * view.towards[1]
    )
    # grey ones first, then from far to near
    chosen = chosen[np.lexsort((near, known))]
    places = coords[chosen][:, [view.across, view.up]].astype(np.float64)
    known = ~np.isnan(colours[chosen]).any(axis=1)
    painted = np.where(known[:, None], colours[chosen], np.array(NO_VALUE))
    size = np.full(len(chosen), diameter)
    dots = EllipseCollection(
        size, size, np.zeros(len(chosen)), units="xy", offsets=places, offset_transform=ax.transData,
        facecolors=painted.clip(0, 1), edgecolors=EDGE, linewidths=0.25,
    )  # fmt: skip
    dots.set_rasterized(True)
    ax.add_collection(dots, autolim=False)
    ax.set(xlim=(high[0], low[0]) if view.mirrored else (low[0], high[0]), ylim=(low[1], high[1]))
    ticks = MaxNLocator(3).tick_values(low[0], high[0])
    # no labels where two hemispheres meet
    room = (0.12 if view.across == 1 else 0) * (high[0] - low[0])
    ax.set_xticks(ticks[(ticks > low[0] + room) & (ticks < high[0] - room)])
    ax.yaxis.set_major_locator(MaxNLocator(3))
    ax.grid(False)
    ax.patch.set_alpha(0)
    ax.tick_params(labelsize=font_size, length=2, pad=1.5, width=0.5, colors=FAINT)
    ax.tick_params(axis="y", length=2)
    ax.spines[:].set(linewidth=0.5, color="#b5b5b5")
    ax.set_xlabel(f"{AXES[view.across]} (mm)", fontsize=font_size, labelpad=1)
    if view.title:
        ax.set_title(view.title, fontsize=font_size, fontweight="normal", color=INK, pad=2, loc="center")


def _diameter(coords: Float[np.ndarray, "n_voxels 3"], longest: float) -> float:
    """Of a voxel, mm: so large that neighbours touch, within bounds."""
    smallest, largest = (share * longest for share in DIAMETER)
    distinct = np.unique(coords, axis=0)
    if len(distinct) < 2:
        return largest
    apart = cKDTree(distinct).query(distinct, k=2)[0][:, 1]
    return float(np.clip(np.median(apart), smallest, largest))
