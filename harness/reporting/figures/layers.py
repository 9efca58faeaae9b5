"""What regions read: shares of layers over steps, as stacked areas."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from harness.brains import AREA_GROUPS
from harness.plot import (
    FAINT,
    WIDTH,
    draw_steps,
    draw_task_steps,
    figure_style,
    shade_layers,
)
from harness.reporting.figures.panels import Line

GROUPS = {"all": "Whole brain"} | {name: name.replace("_", " ").capitalize() for name in AREA_GROUPS}
"""Places of the large panels, with their titles."""

MOST_COLUMNS = 11  # small panels side by side
_SMALL: dict[str, Any] = {"fontsize": 7, "color": FAINT, "fontweight": "normal"}


def read_shares(line: Line, place: str) -> pd.DataFrame:
    """Mean share of every layer over seeds [step, layer], input first; empty if none was recorded."""
    layers = line.runs[0].layers
    curves = {layer: line.curve(f"selectors/{place}/layer/{layer}")["mean"] for layer in layers}
    return pd.DataFrame(curves, columns=pd.Index(layers)).dropna()


def find_groups(lines: Sequence[Line]) -> list[str]:
    """Places of `GROUPS` for which any line has shares of layers."""
    return [place for place in GROUPS if any(len(read_shares(line, place)) for line in lines)]


def draw_layers(lines: Sequence[Line], places: Sequence[str], areas: Mapping[str, Sequence[str]]) -> Figure:
    """Draw shares of layers over steps, a block per line: large panels for groups, small ones for regions.

    Layers are stacked, the first at the bottom. All lines share the axis of steps: a shorter run ends early.

    Parameters
    ----------
    lines : sequence of Line
        Those without shares are left out.
    places : sequence of str
        Names of regions, in panel order.
    areas : dict of group to sequence of str
        Names of the regions in each group, for the titles.
    """
    lines = [line for line in lines if len(read_shares(line, "all"))]
    groups = find_groups(lines)
    places = [place for place in places if any(len(read_shares(line, place)) for line in lines)]
    steps = sorted({step for line in lines for step in line.steps})
    ends = sorted({step for line in lines for run in line.runs for step in run.task_ends})
    n_columns = min(max(len(places), 1), MOST_COLUMNS)
    n_small = math.ceil(len(places) / n_columns)
    with figure_style():
        height = 2.25 + 0.98 * n_small
        figure = Figure(
            figsize=(WIDTH, 0.1 + height * len(lines)), layout=ConstrainedLayoutEngine(hspace=0.03)
        )
        blocks = figure.subfigures(len(lines), 1, squeeze=False)[:, 0]
        for block, line in zip(blocks, lines, strict=True):
            block.suptitle(line.title, x=0.004, ha="left", fontsize=10, fontweight="bold", color=line.colour)
            above, below = block.subfigures(2, 1, height_ratios=(2.0, max(0.98 * n_small, 0.01)))
            large = above.subplots(1, len(groups) + 1, width_ratios=[*[1] * len(groups), 0.05])
            for index, (ax, place) in enumerate(zip(large, groups, strict=False)):
                _draw_shares(ax, line, place, steps, ends)
                ax.set_title(GROUPS[place])
                ax.set_title(_shorten(areas.get(place, ())), loc="right", **_SMALL)
                ax.tick_params(labelleft=index == 0)
                ax.set_xlabel("optimizer step")
            large[0].set_ylabel("share of the layers")
            _draw_key(large[-1], line)
            if n_small:
                small = below.subplots(n_small, n_columns, squeeze=False)
                for index, ax in enumerate(small.flat):
                    if index >= len(places):
                        ax.set_axis_off()
                        continue
                    _draw_shares(ax, line, places[index], steps, ends)
                    ax.set_title(places[index], fontsize=8, pad=3)
                    ax.set_xticks([])
                    ax.set_yticks([])
    return figure


def _draw_shares(ax: Axes, line: Line, place: str, steps: Sequence[int], ends: Sequence[int]) -> None:
    """Stack the shares of one place over the axis of steps that curves have; of one snapshot, as a bar."""
    shares = read_shares(line, place)
    if len(shares) == 1:
        ax.set_xlim(0, 1)
        ax.set_xticks([0.5], [f"{shares.index[0]:,}"])
    elif ends:
        draw_task_steps(ax, ends)
        ax.set_xlim(0, max(steps))
    else:
        draw_steps(ax, steps)
        ax.set_xlim(0, max(*steps, 1))
    if len(shares):
        colours = shade_layers(shares.shape[1])
        found = pd.concat([shares, shares]) if len(shares) == 1 else shares
        at = [0, 1] if len(shares) == 1 else found.index
        ax.stackplot(at, found.T.to_numpy(), colors=colours, edgecolor="white", linewidth=0.35)
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def _shorten(names: Sequence[str], most: int = 4) -> str:
    """Names of regions, or the first and the last of many."""
    return ", ".join(names) if len(names) <= most else f"{names[0]} … {names[-1]}"


def _draw_key(ax: Axes, line: Line) -> None:
    """Draw the key of a line's layers, the last on top."""
    layers = line.runs[0].layers
    rows = [[index] for index in range(len(layers))]
    ax.imshow(rows, cmap=ListedColormap(shade_layers(len(layers))), origin="lower", aspect="auto")
    ax.yaxis.set_ticks_position("right")
    every = math.ceil(len(layers) / 12)
    shown = range(len(layers) - 1, -1, -every)
    ax.set_yticks(list(shown), [layers[index] for index in shown], fontsize=6.5)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
