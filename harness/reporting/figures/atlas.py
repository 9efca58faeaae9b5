"""Mapped networks side by side: R² by region, and depth against place in the hierarchy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.brains import Roi
from harness.plot import (
    FAINT,
    WIDTH,
    figure_style,
    region_colours,
)
from harness.reporting.mapped_networks import MappedNetwork

COLUMNS = 4  # at most, of panels


def draw_scores(
    networks: Sequence[MappedNetwork],
    places: Sequence[str],
    spreads: Sequence[Mapping[str, float]],
) -> Figure:
    """Draw R² by region, a dot per network, with the standard deviation over its refits.

    Parameters
    ----------
    networks : sequence of MappedNetwork
    places : sequence of str
        Names of regions, from left to right.
    spreads : sequence of dict of place to float
        Of every network.
    """
    with figure_style():
        figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
        ax = figure.subplots()
        for index, (network, spread) in enumerate(zip(networks, spreads, strict=True)):
            shift = 0.6 * ((index + 0.5) / len(networks) - 0.5)
            known = [place for place in places if f"brain/{place}/r2" in network.rows]
            ax.errorbar(
                [places.index(place) + shift for place in known],
                [network.rows[f"brain/{place}/r2"] for place in known],
                [spread.get(place, 0.0) for place in known],
                fmt="o", markersize=4.5, color=network.colour, elinewidth=1.1, label=network.label,
            )  # fmt: skip
        for place in range(1, len(places)):
            ax.axvline(place - 0.5, color="#eeeeee", linewidth=0.7, zorder=0)
        ax.axhline(0, color=FAINT, linewidth=0.7)
        slanted = len(places) > 12
        ax.set_xticks(
            range(len(places)), places, rotation=50 if slanted else 0, ha="right" if slanted else "center"
        )
        ax.set(xlim=(-0.6, len(places) - 0.4), ylabel="R² of held-out stimuli")
        figure.legend(loc="outside upper left", ncols=min(len(networks), 5))
    return figure


def draw_hierarchy(
    networks: Sequence[MappedNetwork], rois: Sequence[Roi], depths: Sequence[Mapping[str, float]]
) -> Figure:
    """Draw the depth that regions read against their place in the hierarchy, a panel per network.

    The line is that of the rows: from b0 (lowest rank) to b1 (highest).

    Parameters
    ----------
    networks : sequence of MappedNetwork
    rois : sequence of Roi
        With a rank each, in order.
    depths : sequence of dict of region to float
        Mean expected depth of every network's predicted voxels.
    """
    ranks = np.array([roi.rank for roi in rois], dtype=np.float64)
    place = dict(
        zip((roi.name for roi in rois), (ranks - ranks.min()) / max(np.ptp(ranks), 1e-9), strict=True)
    )
    colours = dict(zip(place, region_colours(len(rois)), strict=True))
    n_columns = min(max(len(networks), 2), COLUMNS)
    n_rows = math.ceil(len(networks) / n_columns)
    with figure_style():
        figure = Figure(figsize=(WIDTH, 2.5 * n_rows + 0.55), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True)
        for ax in axes.flat[len(networks) :]:
            ax.axis("off")
        for ax, network, depth in zip(axes.flat, networks, depths, strict=False):
            for name, value in depth.items():
                if name in place:
                    ax.plot(place[name], value, "o", markersize=5, color=colours[name])
            _draw_line(ax, network)
            ax.set_title(network.label, color=network.colour)
            ax.set(xlim=(-0.06, 1.06), ylim=(0, 1), xlabel="place in the hierarchy")
        for ax in axes[:, 0]:
            ax.set_ylabel("expected depth")
        dots = [
            Line2D([], [], linestyle="", marker="o", markersize=4, color=colours[name], label=name)
            for name in place
        ]
        figure.legend(handles=dots, loc="outside lower center", ncols=14, fontsize=7, handletextpad=0.2)
    return figure


def _draw_line(ax: Axes, network: MappedNetwork) -> None:
    names = [f"alignment/all/intercept_{end}" for end in ("low", "high")]
    ends = [network.rows[name] for name in names if name in network.rows]
    if len(ends) == len(names):
        ax.plot([0, 1], ends, color=network.colour, linewidth=1.4, zorder=1)
