"""Depth that regions read: where it was at step 0 and is at the last snapshot, and its shift enlarged."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.plot import (
    FAINT,
    figure_style,
)
from harness.reporting.figures.curves import (
    floor_of_excess,
    reach_of_floors,
)
from harness.reporting.figures.legends import (
    FLOOR,
    Handle,
    draw_legend,
    mark_point,
)
from harness.reporting.figures.panels import (
    BANDS,
    Line,
    are_measured,
    make_panels,
)

PER_ROW = 2  # lines side by side
SMALLEST = 0.005  # shift that an axis has room for
FINER = 4  # shifts this many times smaller than those of another line get an axis of their own


def draw_depths(lines: Sequence[Line], places: Sequence[str]) -> Figure:
    """Draw the expected depth of every place at step 0 and at the last snapshot, and its shift beside it.

    A line has two panels: depth on the axis from the first layer to the last, and the shift since step 0 on a
    finer axis with the range in which one more refit of step 0 falls; a line without later snapshots has the
    first only. All shifts share an axis, but for lines whose shifts are a fraction of the others': their axis
    says so. The bar between two depths is strong if the last snapshot's verdict is rewired; without verdicts,
    all are.
    """
    lines = [line for line in lines if any(are_measured([line], _depth(place)) for place in places)]
    places = [place for place in places if are_measured(lines, _depth(place))]
    with figure_style():
        n_columns = 2 * min(max(len(lines), 1), PER_ROW)
        n_rows = math.ceil(len(lines) / PER_ROW)
        figure, axes = make_panels(n_rows, n_columns, 1.0 + 0.2 * len(places))
        limits = {line.label: _limit(line, places) for line in lines}
        widest = max(limits.values(), default=0.0)
        bands = set()
        for index in range(n_rows * n_columns // 2):
            row, column = divmod(index, n_columns // 2)
            left, right = axes[row, 2 * column : 2 * column + 2]
            if index >= len(lines):
                left.set_axis_off()
                right.set_axis_off()
                continue
            line = lines[index]
            _draw_depths(left, line, places)
            limit = limits[line.label]
            if not limit:
                right.set_axis_off()
                continue
            finer = limit * FINER < widest
            bands |= _draw_shifts(right, line, places, limit if finer else widest, finer)
        draw_legend(figure, [], [*_name_marks(lines, places), *_name_bands(bands)])
    return figure


def _depth(place: str) -> str:
    return f"selectors/{place}/expected_depth"


def _set_rows(ax: Axes, places: Sequence[str]) -> np.ndarray:
    """Give every place a row, the first on top."""
    heights = np.arange(len(places))[::-1]
    ax.set_ylim(-0.6, len(places) - 0.4)
    ax.set_yticks(heights, places)
    ax.grid(axis="x")
    return heights


def _draw_depths(ax: Axes, line: Line, places: Sequence[str]) -> None:
    """Draw depths at both ends on the axis of all layers."""
    verdicts = [line.rewired(place) for place in places]
    judged = any(len(one) for one in verdicts) or any(run.collapsed for run in line.runs)
    for height, place, rewired in zip(_set_rows(ax, places), places, verdicts, strict=True):
        curve = line.curve(_depth(place))["mean"]
        if not len(curve):
            continue
        ends = [curve.iloc[0], curve.iloc[-1]]
        if len(curve) > 1:
            strong = bool(rewired.iloc[-1]) if len(rewired) else not judged
            ax.plot(
                ends,
                [height, height],
                color=line.colour,
                alpha=1.0 if strong else 0.3,
                linewidth=2.4 if strong else 1.2,
                zorder=1,
            )
            ax.plot(ends[1], height, "o", color=line.colour, markersize=6)
        ax.plot(ends[0], height, "o", color=line.colour, markerfacecolor="white", markersize=6)
    ax.set_title(line.title)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    ax.set_xlabel("depth\n0 first layer, 1 last")


def _read_shift(line: Line, place: str) -> tuple[float, tuple[float, float] | None, str | None] | None:
    """Shift at the last snapshot, its interval, and what that is; None without a shift."""
    name = f"rewiring/{place}/depth_shift"
    curve = line.curve(name)
    if not len(curve):
        return None
    mean, sd = float(curve["mean"].iloc[-1]), float(curve["sd"].iloc[-1])
    band = line.band(name)
    if band == "subjects":
        ends = line.interval(name).iloc[-1]
        return mean, (float(ends["low"]), float(ends["high"])), band
    return mean, (mean - sd, mean + sd) if band else None, band


def _limit(line: Line, places: Sequence[str]) -> float:
    """End of an axis that shows all shifts, and floors unless they dwarf them; 0 without a shift."""
    shifts: list[float] = []
    floors: list[float] = []
    for place in places:
        shift = _read_shift(line, place)
        if shift is not None:
            shifts += [shift[0], *(shift[1] or ()), SMALLEST]
            floors += floor_of_excess(line, f"rewiring/{place}/depth_shift", "") or ()
    if not shifts:
        return 0.0
    largest, floor = float(np.abs(shifts).max()), float(np.abs(floors).max()) if floors else 0.0
    return 1.1 * max(largest, min(floor, reach_of_floors(largest, floors)))


def _draw_shifts(ax: Axes, line: Line, places: Sequence[str], limit: float, finer: bool) -> set[str]:
    """Draw shifts beside their floors up to ± `limit`; return the kinds of bars drawn."""
    drawn = set()
    ax.axvline(0, color="#8a8a8a", linewidth=0.8, zorder=1)
    for height, place in zip(_set_rows(ax, places), places, strict=True):
        shift = _read_shift(line, place)
        if shift is None:
            continue
        mean, ends, band = shift
        floor = floor_of_excess(line, f"rewiring/{place}/depth_shift", "")
        if floor is not None:
            ax.barh(height, floor[1] - floor[0], 0.62, floor[0], color=FAINT, alpha=0.22, linewidth=0)
            drawn.add("floor")
        if ends is not None and band is not None:
            ax.plot(ends, [height, height], color=line.colour, linewidth=1.3)
            drawn.add(band)
        ax.plot(mean, height, "o", color=line.colour, markersize=5)
    ax.set_yticklabels([])
    ax.set_xlim(-limit, limit)
    ax.set_title("own axis, finer than the others" if finer else "", fontsize=8, fontweight="normal")
    # what the axis covers, in shares of the one beside it
    ax.set_xlabel(f"shift since step 0\nzoomed: ±{limit:.2g} of the depth")
    return drawn


def _name_marks(lines: Sequence[Line], places: Sequence[str]) -> list[Handle]:
    found: list[Handle] = [mark_point("step 0", "none")]
    if any(len(line.steps) > 1 for line in lines):
        found.append(mark_point("last snapshot"))
    if any(len(line.rewired(place)) for line in lines for place in places):
        found += [
            Line2D([], [], color=FAINT, linewidth=2.4, label="verdict: rewired"),
            Line2D([], [], color=FAINT, alpha=0.4, linewidth=1.2, label="any other verdict"),
        ]
    return found


def _name_bands(bands: set[str]) -> list[Handle]:
    found: list[Handle] = [
        Line2D([], [], color=FAINT, linewidth=1.3, label=label)
        for band, label in BANDS.items()
        if band in bands
    ]
    if "floor" in bands:
        found.append(Line2D([], [], color=FAINT, alpha=0.22, linewidth=7, label=FLOOR))
    return found
