"""Parts of figures of curves: lines, panels, curves of a metric, shared limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness.measures import (
    INTERPOLATED,
    VERDICTS,
    split_name,
)
from harness.plot import WIDTH
from harness.reporting.run_results import RunResult
from harness.runs import name_of_subject

COLUMNS = 4  # of small multiples
REWIRED = VERDICTS.index("rewired")

Dash = Literal["-", "--", ":", "-."]


ALPHA = 0.05
"""Tests below this level are drawn filled."""


@dataclass(frozen=True)
class Line:
    """One line in every panel: runs that differ only in their seed.

    Attributes
    ----------
    label : str
    colour : str
    dash : str
        Line style of matplotlib: "-", "--", …
    runs : tuple of RunResult
    """

    label: str
    colour: str
    dash: Dash
    runs: tuple[RunResult, ...]

    def curve(self, metric: str) -> pd.DataFrame:
        """Mean, sd (0 for one seed) and maximum of a metric over seeds, indexed by step; may be empty.

        ``<task>`` and ``<main>`` stand for the run's task and its main measure.
        """
        curves = [run.curve(run.resolve(metric)) for run in self.runs]
        values = pd.concat(curves, axis=1)
        return pd.DataFrame(
            {"mean": values.mean(axis=1), "sd": values.std(axis=1).fillna(0.0), "max": values.max(axis=1)}
        ).sort_index()

    def interval(self, metric: str) -> pd.DataFrame:
        """Ends of the 95 % interval by step; empty without one.

        Over subjects, mean over seeds; of forgetting over test images, for one seed.
        """
        over = "_subjects"
        if metric.startswith("forgetting/"):
            over = "" if len(self.runs) == 1 else over
        ends = {end: self.curve(f"{metric}{over}_{end}")["mean"] for end in ("low", "high")}
        return pd.DataFrame(ends)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Labels of the subjects if there are several, else empty."""
        return self.runs[0].subjects

    @property
    def title(self) -> str:
        """The label, and whether the backbone has collapsed by the last snapshot of any seed."""
        return f"{self.label} (collapsed)" if any(run.collapsed for run in self.runs) else self.label

    def collapsed(self, interpolated: bool = False) -> pd.Series:
        """Whether the backbone is collapsed in any seed, by step; empty if it is not known."""
        prefix = INTERPOLATED if interpolated else ""
        return self.curve(f"{prefix}collapse/all/collapsed")["max"] > 0

    def rewired(self, place: str) -> pd.Series:
        """Whether a place is rewired in every seed and subject that has a verdict, by step."""
        name = f"verdict/{place}/kind"
        names = [name_of_subject(name, label) for label in self.subjects] or [name]
        kinds = pd.concat([run.curve(one) for run in self.runs for one in names], axis=1)
        return kinds.min(axis=1).sort_index() == REWIRED

    @property
    def steps(self) -> list[int]:
        """Steps of the snapshots."""
        return sorted({step for run in self.runs for step in run.steps})


def make_panels(n_rows: int, n_columns: int, height: float) -> tuple[Figure, np.ndarray]:
    """Make a figure of a report's width with panels [n_rows, n_columns], each `height` inches high."""
    layout = ConstrainedLayoutEngine(wspace=0.04, hspace=0.04)
    figure = Figure(figsize=(WIDTH, 0.4 + height * n_rows), layout=layout)
    return figure, figure.subplots(n_rows, n_columns, squeeze=False)


def draw_legend(figure: Figure, lines: Sequence[Line], more: Sequence[Line2D | Patch] = ()) -> None:
    """Draw a legend of all lines above the panels, with `more` after them."""
    handles = [
        Line2D([], [], color=line.colour, linestyle=line.dash, marker="o", label=line.title) for line in lines
    ]
    figure.legend(
        handles=[*handles, *more], loc="outside upper left", ncols=len(handles) + len(more), handlelength=1.8
    )


def are_measured(lines: Sequence[Line], metric: str) -> bool:
    """Whether any line has values of a metric."""
    return any(len(line.curve(metric)) for line in lines)


def draw_curves(
    ax: Axes,
    lines: Sequence[Line],
    metric: str,
    title: str,
    *,
    judged: str | None = None,
    p: str | None = None,
) -> None:
    """Draw a metric of every line, with a band of one standard deviation over seeds.

    With several subjects, the band is the interval over subjects, clipped where it would dwarf the lines, and
    thin lines are single subjects; of forgetting, with one seed, it is the interval over test images. Points
    are filled; given a place that is `judged`, only where its verdict is rewired, as far as there are
    verdicts; given a metric `p`, only where it is below `ALPHA` for every seed. A cross is a snapshot whose
    backbone is collapsed.
    """
    bands = []
    for line in lines:
        curve = line.curve(metric)
        steps, mean, sd = (np.asarray(column) for column in (curve.index, curve["mean"], curve["sd"]))
        ax.plot(steps, mean, line.dash, color=line.colour)
        for label in line.subjects:
            own = line.curve(name_of_subject(metric, label))["mean"]
            ax.plot(own.index, own, line.dash, color=line.colour, linewidth=0.6, alpha=0.55)
        over = line.interval(metric)
        if len(over):
            bands.append((line, over))
        elif sd.any():
            ax.fill_between(steps, mean - sd, mean + sd, color=line.colour, alpha=0.2, linewidth=0)
        rewired = pd.Series(dtype=bool) if judged is None else line.rewired(judged)
        filled = (
            rewired.reindex(curve.index, fill_value=False) if len(rewired) else pd.Series(True, curve.index)
        )
        if p is not None:
            filled &= line.curve(p)["max"].reindex(curve.index) < ALPHA
        broken = line.collapsed(split_name(metric).interpolated).reindex(curve.index, fill_value=False)
        for chosen, marker, face in (
            (filled & ~broken, "o", line.colour),
            (~filled & ~broken, "o", "white"),
            (broken, "X", "white"),
        ):
            where = chosen.to_numpy(dtype=bool)
            ax.plot(
                steps[where],
                mean[where],
                marker,
                color=line.colour,
                markerfacecolor=face,
                markeredgewidth=1.1,
            )
    _draw_bands(ax, bands)
    ax.set_title(title)


def _draw_bands(ax: Axes, bands: Sequence[tuple[Line, pd.DataFrame]]) -> None:
    """Draw intervals over subjects; a panel grows for them by at most half its height on either side."""
    if not bands:
        return
    low, high = ax.get_ylim()
    room = 0.5 * (high - low)
    lowest, highest = (
        min(over["low"].min() for _, over in bands),
        max(over["high"].max() for _, over in bands),
    )
    for line, over in bands:
        ax.fill_between(over.index, over["low"], over["high"], color=line.colour, alpha=0.16, linewidth=0)
    ax.set_ylim(max(min(low, lowest), low - room), min(max(high, highest), high + room))


def mark_zero(axes: Sequence[Axes]) -> None:
    """Draw a line at 0 in every panel."""
    for ax in axes:
        ax.axhline(0, color="#8a8a8a", linewidth=0.8, zorder=1)


def share_limits(axes: Sequence[Axes]) -> None:
    """Give panels the same vertical axis."""
    limits = np.array([ax.get_ylim() for ax in axes])
    for ax in axes:
        ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
