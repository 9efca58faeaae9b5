"""Figure of penalties as trade-offs: task accuracy against forgetting, over λ."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from harness.measures import TOLERANCE
from harness.plot import (
    FAINT,
    INK,
    WIDTH,
    figure_style,
)
from harness.reporting.anchoring import Anchoring, Curve
from harness.reporting.figures.panels import DASHES, MARKERS


def draw_trade_offs(anchorings: Sequence[Anchoring]) -> Figure:
    """Draw one panel per comparison: means over seeds with intervals, joined in order of λ, and all seeds."""
    names = list(dict.fromkeys(curve.name for one in anchorings for curve in one.curves))
    palette = sns.color_palette("colorblind", len(names)).as_hex()
    with figure_style():
        n_columns = min(len(anchorings), 2)
        n_rows = math.ceil(len(anchorings) / n_columns)
        figure = Figure(figsize=((0.72 if n_columns == 1 else 1) * WIDTH, 4.4 * n_rows), layout="constrained")
        panels = [figure.add_subplot(n_rows, n_columns, place + 1) for place in range(len(anchorings))]
        for ax, one in zip(panels, anchorings, strict=True):
            _draw_panel(ax, one, {name: (palette[place], place) for place, name in enumerate(names)})
        handles = {line.get_label(): line for ax in panels for line in ax.get_lines()}
        shown = [handles[name] for name in [*names, "no penalty"] if name in handles]
        figure.legend(handles=shown, loc="outside upper left", ncols=len(shown), handlelength=3.2)
    return figure


def _draw_panel(ax: Axes, anchoring: Anchoring, styles: dict[str, tuple[str, int]]) -> None:
    for curve in anchoring.curves:
        colour, place = styles[curve.name]
        marker, dash = MARKERS[place % len(MARKERS)], DASHES[place % len(DASHES)]
        change, accuracy = curve.points[..., 1], curve.points[..., 0]
        ax.plot(
            change[:, 1:].ravel(), accuracy[:, 1:].ravel(), marker, color=colour, markersize=3, alpha=0.25,
            markeredgewidth=0, linestyle="none", zorder=1,
        )  # fmt: skip
        x, y = change.mean(axis=0), accuracy.mean(axis=0)
        ax.errorbar(
            x[1:], y[1:], xerr=_half_widths(change[:, 1:]), yerr=_half_widths(accuracy[:, 1:]), fmt="none",
            ecolor=colour, elinewidth=0.8, alpha=0.6, zorder=2,
        )  # fmt: skip
        ax.plot(x, y, color=colour, linestyle=dash, linewidth=1.4, zorder=3)
        ax.plot(
            x[1:], y[1:], color=colour, linestyle=dash, marker=marker, markersize=5.5, linewidth=1.4,
            markeredgecolor="white", markeredgewidth=0.5, label=curve.name, zorder=4,
        )  # fmt: skip
        _label_weights(ax, curve, x, y, colour)
    free = anchoring.curves[0].points[:, 0]
    ax.plot(
        free[:, 1], free[:, 0], "X", color=INK, markersize=3.5, alpha=0.25, markeredgewidth=0,
        linestyle="none", zorder=1,
    )  # fmt: skip
    ax.plot(free[:, 1].mean(), free[:, 0].mean(), "X", color=INK, markersize=7, label="no penalty", zorder=5)
    ax.axhline(free[:, 0].mean() - TOLERANCE, color=FAINT, linewidth=0.8, linestyle=":", zorder=1)
    ax.set_xlabel("Δ_LP, mean over probes: negative = forgetting")
    ax.set_ylabel("task accuracy")
    ax.set_title(anchoring.title)


def _label_weights(ax: Axes, curve: Curve, x: np.ndarray, y: np.ndarray, colour: str) -> None:
    for place in (1, len(curve.weights) - 1):
        ax.annotate(
            f"λ = {curve.weights[place]:g}", (x[place], y[place]), (5, -9), textcoords="offset points",
            fontsize=6.5, color=colour, zorder=6,
        )  # fmt: skip


def _half_widths(values: Float[np.ndarray, "n_seeds n_points"]) -> Float[np.ndarray, " n_points"] | None:
    """Half of the 95 % interval of the mean over seeds, by the t distribution; None for one seed."""
    n_seeds = len(values)
    if n_seeds < 2:
        return None
    width: Float[np.ndarray, " n_points"] = (
        stats.t.ppf(0.975, n_seeds - 1) * values.std(axis=0, ddof=1) / math.sqrt(n_seeds)
    )
    return width
