"""Legends of figures: what colours, dashes, markers, bands and shades stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness.plot import (
    FAINT,
    WIDTH,
)
from harness.reporting.figures.panels import (
    BANDS,
    Line,
)

FLOOR = "one more refit of step 0, 95 %"
LETTER, HANDLE = 0.071, 0.66
"""Widths in inches: of a letter, and of what stands before and after a label."""

Handle = Line2D | Patch


def draw_legend(figure: Figure, lines: Sequence[Line], more: Sequence[Handle] = ()) -> None:
    """Draw a legend above the panels, with `more` after the lines; none without entries.

    Where one backbone has several lines, colours and dashes have entries of their own, as a line for every
    pair would fill the page; else every line has one.
    """
    handles = [*name_lines(lines), *more]
    if handles:
        labels = [str(handle.get_label()) for handle in handles]
        figure.legend(
            handles=handles,
            loc="outside upper left",
            ncols=count_columns(labels),
            handlelength=3.2,
            columnspacing=1.4,
        )


def name_lines(lines: Sequence[Line]) -> list[Handle]:
    """Entries of lines: a colour per backbone and a dash per variant, or one for each line."""
    colours = {line.backbone: line.colour for line in lines}
    variants = {line.variant: line for line in lines}
    told_apart = all(colours) and len(set(colours.values())) == len(colours)
    if len(variants) < 2 or len(lines) == len(colours) or not told_apart:
        return [_line(line.colour, line, line.title) for line in lines]
    found: list[Handle] = []
    for backbone, colour in colours.items():
        own = [line for line in lines if line.backbone == backbone]
        collapsed = all(line.title != line.label for line in own)
        label = f"{backbone} (collapsed)" if collapsed else backbone
        found.append(Line2D([], [], color=colour, linewidth=5, label=label))
    return [*found, *(_line(FAINT, line, variant) for variant, line in variants.items())]


def _line(colour: str, line: Line, label: str) -> Line2D:
    return Line2D([], [], color=colour, linestyle=line.dash, marker=line.marker, label=label)


def count_columns(labels: Sequence[str]) -> int:
    """Count the columns that fit a figure; labels fill one column after the other, as evenly as they can."""
    widths = np.array([HANDLE + LETTER * len(label) for label in labels])
    for n_columns in range(len(labels), 1, -1):
        if sum(float(column.max()) for column in np.array_split(widths, n_columns)) <= WIDTH:
            return n_columns
    return 1


def list_marks(lines: Sequence[Line], metrics: Sequence[str]) -> list[Handle]:
    """Entries of what stands beside the curves of these metrics: bands, starts of tasks, collapses."""
    # around a single point there is nothing to fill
    bands = {line.band(metric) for line in lines for metric in metrics if len(line.curve(metric)) > 1}
    found: list[Handle] = []
    if any(line.subjects for line in lines) and "subjects" in bands:
        found.append(Line2D([], [], color=FAINT, linewidth=0.6, label="one subject"))
    found += [_patch(label, 0.3) for band, label in BANDS.items() if band in bands]
    if any(len(run.task_ends) > 1 for line in lines for run in line.runs):
        start: dict[str, Any] = {"color": FAINT, "linestyle": ":", "linewidth": 0.8}
        found.append(Line2D([], [], label="the next task starts", **start))
    if any(line.collapsed().any() for line in lines):
        found.append(mark_point("collapsed", "none", "X"))
    return found


def mark_point(label: str, fill: Literal["full", "none"] = "full", marker: str = "o") -> Line2D:
    """Entry of a point."""
    return Line2D([], [], color=FAINT, marker=marker, linestyle="", fillstyle=fill, label=label)


def mark_band_of_seeds() -> list[Handle]:
    """Entry of the band over seeds."""
    return [_patch(BANDS["seeds"], 0.3)]


def mark_floor() -> Patch:
    """Entry of the shade of the noise floor."""
    return _patch(FLOOR, 0.16)


def _patch(label: str, alpha: float) -> Patch:
    return Patch(color=FAINT, alpha=alpha, linewidth=0, label=label)
