"""Graft and repair: what every layer gives back, and how fast orders of layers repair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from harness.plot import FAINT, INK, figure_style
from harness.reporting.figures.panels import Dash, make_panels
from harness.reporting.grafts import ORDERS, Grafted

DRAWN: dict[str, tuple[str, Dash]] = {
    "measured": ("#000000", ":"),
    "map": ("#c2303a", "-"),
    "map_reversed": ("#e58b90", "--"),
}
RIVALS: dict[str, tuple[str, Dash]] = {
    "weight_distance": ("#7f6a00", "-"),
    "cka_lost": ("#cc78bc", "--"),
    "cka_added": ("#cc78bc", "-"),
    "gradient_share": ("#029e73", "-"),
}
RANDOM = "#b8b8b8"


def draw_grafts(grafted: Sequence[Grafted]) -> Figure:
    """Draw a row of three panels per run: repair by layer, the map beside it, and curves of orders."""
    with figure_style():
        figure, axes = make_panels(len(grafted), 3, 2.9)
        for row, one in zip(axes, grafted, strict=True):
            _draw_units(row[0], one)
            _draw_map(row[1], one)
            _draw_orders(row[2], one)
        names = {name for one in grafted for name in one.summary["orders"]}
        styles = {**DRAWN, **RIVALS}
        handles: list[Line2D | Patch] = [
            Line2D([], [], color=colour, linestyle=dash, label=ORDERS[name])
            for name, (colour, dash) in styles.items()
            if name in names
        ]
        if any(one.random for one in grafted):
            handles.append(Line2D([], [], color=RANDOM, linewidth=1, label="random orders"))
        figure.legend(handles=handles, loc="outside upper left", ncols=4, handlelength=2.6)
    return figure


def _draw_units(ax: Axes, grafted: Grafted) -> None:
    """Draw the repair of every unit with its interval, and what it costs on the task."""
    units = grafted.summary["units"]
    places = np.arange(len(units))
    repair = np.array([one["repair"] for one in units.values()])
    ends = np.array([[one["repair_low"], one["repair_high"]] for one in units.values()], dtype=float)
    cost = [one["task_lost"] for one in units.values()]
    ax.bar(places, repair, 0.62, color=grafted.colour, alpha=0.75, label="repair")
    ax.vlines(places, ends[:, 0], ends[:, 1], color=INK, linewidth=1)
    ax.plot(places, cost, "D", color=INK, markerfacecolor="white", markersize=4, label="lost on the task")
    ax.axhline(0, color=FAINT, linewidth=0.8)
    ax.set_xticks(places, list(units), rotation=60, ha="right", rotation_mode="anchor")
    ax.set_title(grafted.title)
    ax.set_ylabel("change of accuracy")
    ax.legend(loc="best", handlelength=1.2)


def _draw_map(ax: Axes, grafted: Grafted) -> None:
    """Draw repair over the map's prediction, a point per layer."""
    units, found = grafted.summary["units"], grafted.summary["foretold"].get("map")
    known = {
        unit: one
        for unit, one in units.items()
        if unit in grafted.summary["compared"] and "map" in one["predictors"]
    }
    for unit, one in known.items():
        x, y = one["predictors"]["map"], one["repair"]
        ax.plot(x, y, "o", color=grafted.colour)
        ax.annotate(_short(unit), (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7, color=FAINT)
    ax.axhline(0, color=FAINT, linewidth=0.8)
    ax.margins(x=0.12, y=0.12)
    text = "no order" if found is None else f"ρ {found['rho_given_depth']:+.2f}, p {found['p']:.2g}"
    ax.set_title(f"Map, given depth: {text}".replace("-", "−") if known else "No evidence per layer")
    ax.set_xlabel("change of the layer’s share of reading")
    ax.set_ylabel("repair")


def _draw_orders(ax: Axes, grafted: Grafted) -> None:
    """Draw repair over the number of layers put back, a curve per order; the other units come after them."""
    orders, n_compared = grafted.summary["orders"], len(grafted.summary["compared"])
    for order in grafted.random:
        ax.plot(order["repair"][: n_compared + 1], color=RANDOM, linewidth=0.9, zorder=1)
    for styles, width in ((RIVALS, 1.1), (DRAWN, 1.9)):
        for name, (colour, dash) in styles.items():
            if name in orders:
                repair = orders[name]["repair"][: n_compared + 1]
                ax.plot(repair, color=colour, linestyle=dash, linewidth=width, zorder=2 + width)
    whole = f"all weights: {grafted.summary['all']['repair']:+.3f}".replace("-", "−")
    ax.text(0.02, 0.97, whole, transform=ax.transAxes, va="top", color=FAINT)
    ax.axhline(0, color=FAINT, linewidth=0.8)
    ax.set_title("One after the other")
    ax.set_xlabel("layers with pretrained weights")
    ax.set_ylabel("repair")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _short(unit: str) -> str:
    """The last part of a layer's name that says something: ``blocks.3`` → ``3``."""
    last = unit.rpartition(".")[2]
    return last if last.isdigit() else unit
