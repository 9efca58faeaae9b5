"""Geometry beside selectors: RSA of every region with every layer, and which layer either prefers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from harness.plot import WIDTH, figure_style
from harness.reporting.figures.layers import read_shares
from harness.reporting.figures.legends import draw_legend
from harness.reporting.figures.panels import Line

MOST_LINES = 8
"""Lines that are drawn; more would fill the page with maps."""
_RING: dict[str, Any] = {
    "marker": "o",
    "markerfacecolor": "none",
    "markeredgecolor": "#111111",
    "linestyle": "none",
}
_DOT: dict[str, Any] = {"marker": "D", "color": "#d6336c", "mec": "white", "linestyle": "none"}


def read_correlations(line: Line, places: Sequence[str], step: int) -> pd.DataFrame:
    """Mean RSA over seeds and subjects at a step [place, layer], input first; empty without any."""
    layers = line.runs[0].layers
    rows = {}
    for place in places:
        curves = [line.curve(f"rsa/{place}/layer/{layer}")["mean"] for layer in layers]
        if curves and all(step in curve.index for curve in curves):
            rows[place] = [float(curve[step]) for curve in curves]
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(layers))


def have_geometry(lines: Sequence[Line], places: Sequence[str]) -> list[Line]:
    """Lines with RSA of any region at step 0."""
    return [line for line in lines if len(read_correlations(line, places, 0))]


def draw_geometry(lines: Sequence[Line], places: Sequence[str]) -> Figure:
    """Draw RSA of regions and layers at step 0 and at the last snapshot, one row of maps per line.

    Shades are correlations relative to the region's noise ceiling where it is known. A ring marks the layer
    that RSA prefers, a diamond the one that selectors do.

    Parameters
    ----------
    lines : sequence of Line
        Of `have_geometry`; the first `MOST_LINES` are drawn.
    places : sequence of str
        Names of regions, in panel order.
    """
    lines = lines[:MOST_LINES]
    ends = {line.label: [0, line.steps[-1]] if len(line.steps) > 1 else [0] for line in lines}
    shown = {
        (line.label, step): _over_ceiling(line, read_correlations(line, places, step))
        for line in lines
        for step in ends[line.label]
    }
    high = max(float(table.to_numpy().max()) for table in shown.values())
    n_columns = max(len(steps) for steps in ends.values())
    with figure_style():
        height = 0.75 + 0.19 * max(len(table) for table in shown.values())
        figure = Figure(
            figsize=(WIDTH, 0.6 + height * len(lines)),
            layout=ConstrainedLayoutEngine(wspace=0.04, hspace=0.05),
        )
        axes = figure.subplots(len(lines), n_columns, squeeze=False)
        image = None
        for row, line in zip(axes, lines, strict=True):
            for ax in row[len(ends[line.label]) :]:
                ax.set_axis_off()
            for ax, step in zip(row, ends[line.label], strict=False):
                image = _draw_map(ax, line, step, shown[line.label, step], max(high, 1e-6))
        assert image is not None
        bar = figure.colorbar(image, ax=list(axes.flat), shrink=0.6, pad=0.01)
        _label_bar(bar, all(_has_ceiling(line, places) for line in lines))
        draw_legend(
            figure,
            [],
            [
                Line2D([], [], label="layer that RSA prefers", markersize=8, **_RING),
                Line2D([], [], label="layer that selectors prefer", markersize=6, **_DOT),
            ],
        )
    return figure


def _has_ceiling(line: Line, places: Sequence[str]) -> bool:
    return any(len(line.curve(f"rsa/{place}/noise_ceiling")) for place in places)


def _over_ceiling(line: Line, table: pd.DataFrame) -> pd.DataFrame:
    """Divide every region's correlations by its noise ceiling, which stands at step 0; unknown ones are 1."""
    ceilings = [line.curve(f"rsa/{place}/noise_ceiling")["mean"] for place in table.index]
    known = np.array([float(each.iloc[0]) if len(each) else 1.0 for each in ceilings])
    return table.div(known, axis=0)


def _draw_map(ax: Axes, line: Line, step: int, table: pd.DataFrame, high: float) -> AxesImage:
    image = ax.imshow(table.to_numpy(), cmap="Blues", vmin=0, vmax=high, aspect="auto")
    for height, (place, row) in enumerate(table.iterrows()):
        ax.plot(int(row.to_numpy().argmax()), height, markersize=9, markeredgewidth=1.3, **_RING)
        shares = read_shares(line, str(place))
        if step in shares.index:
            ax.plot(int(shares.loc[step].to_numpy().argmax()), height, markersize=5, **_DOT)
    layers = list(table.columns)
    every = math.ceil(len(layers) / 8)
    ax.set_xticks(range(0, len(layers), every), layers[::every], fontsize=7)
    ax.set_yticks(range(len(table)), list(table.index), fontsize=7.5)
    ax.set_title(f"{line.title}, step {step:,}", fontsize=9, color=line.colour)
    agreement = line.curve("rsa/all/layers_agreement")["mean"]
    if step in agreement.index:
        ax.set_title(f"agreement {agreement[step]:.2f}", loc="right", fontsize=8, fontweight="normal")
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return image


def _label_bar(bar: Colorbar, relative: bool) -> None:
    bar.set_label("RSA, share of the noise ceiling" if relative else "RSA (Pearson correlation)", fontsize=8)
    bar.outline.set_visible(False)
