"""Parts of figures of curves: lines, panels, curves of a metric, shared limits. Legends: `legends`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

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

Dash = Literal["-", "--", ":", "-."] | tuple[float, tuple[float, ...]]

DASHES: tuple[Dash, ...] = ("-", "--", ":", "-.", (0.0, (7.0, 1.5, 1.5, 1.5, 1.5, 1.5)), (0.0, (10.0, 3.0)))
MARKERS = ("o", "s", "^", "D", "v", "p", "<")
"""In turn, with dashes: one more marker than dashes, so that 42 pairs differ. A cross marks a collapse."""

BANDS = {
    "seeds": "± 1 sd over seeds",
    "subjects": "95 % interval over subjects",
    "images": "95 % interval over test images",
}
"""What the band around a curve can be."""


ALPHA = 0.05
"""Tests below this level are drawn filled."""


@dataclass(frozen=True)
class Line:
    """One line in every panel: runs that differ only in their seed.

    Attributes
    ----------
    label : str
    colour : str
    dash : str or tuple
        Line style of matplotlib: "-", "--", …
    runs : tuple of RunResult
    marker : str
        Of matplotlib: "o", "s", …
    backbone, variant : str
        What the colour stands for, and what the dash and marker do; an empty backbone: the label says all.
    """

    label: str
    colour: str
    dash: Dash
    runs: tuple[RunResult, ...]
    marker: str = "o"
    backbone: str = ""
    variant: str = ""

    def curve(self, metric: str) -> pd.DataFrame:
        """Mean, sd (0 for one seed) and maximum of a metric over seeds, indexed by step; may be empty.

        ``<task>`` and ``<main>`` stand for the run's task and its main measure.
        """
        if metric not in self._curves:
            curves = [run.curve(run.resolve(metric)) for run in self.runs]
            values = pd.concat(curves, axis=1)
            self._curves[metric] = pd.DataFrame(
                {"mean": values.mean(axis=1), "sd": values.std(axis=1).fillna(0.0), "max": values.max(axis=1)}
            ).sort_index()
        return self._curves[metric]

    @cached_property
    def _curves(self) -> dict[str, pd.DataFrame]:
        # limits, legends and several figures ask for the same curves
        return {}

    @cached_property
    def _intervals(self) -> dict[str, pd.DataFrame]:
        return {}

    def interval(self, metric: str) -> pd.DataFrame:
        """Ends of the 95 % interval by step; empty without one.

        Over subjects, mean over seeds; of scores and of forgetting over test images, for one seed.
        """
        if metric not in self._intervals:
            self._intervals[metric] = self._find_interval(metric)
        return self._intervals[metric]

    def _find_interval(self, metric: str) -> pd.DataFrame:
        over = "_subjects"
        if split_name(metric).stage in ("task", "probe"):
            found = self.runs[0].score_intervals(metric) if len(self.runs) == 1 else {}
            return pd.DataFrame.from_dict(found, orient="index", columns=["low", "high"]).sort_index()
        if metric.startswith("forgetting/"):
            over = "" if len(self.runs) == 1 else over
        ends = {end: self.curve(f"{metric}{over}_{end}")["mean"] for end in ("low", "high")}
        return pd.DataFrame(ends)

    def band(self, metric: str) -> str | None:
        """What the band around a metric's curve is, by name in `BANDS`; None without one."""
        if len(self.interval(metric)):
            of_images = split_name(metric).stage in ("task", "probe", "forgetting")
            return "images" if of_images else "subjects"
        return "seeds" if self.curve(metric)["sd"].any() else None

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


def are_measured(lines: Sequence[Line], metric: str) -> bool:
    """Whether any line has values of a metric."""
    return any(len(line.curve(metric)) for line in lines)


def keep_measured(lines: Sequence[Line], metrics: Sequence[str]) -> list[Line]:
    """Lines that have values of any of these metrics."""
    return [line for line in lines if any(are_measured([line], metric) for metric in metrics)]


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
    thin lines are single subjects; of scores and forgetting, with one seed, it is the interval over test
    images. Points
    are filled; given a place that is `judged`, only where its verdict is rewired, as far as there are
    verdicts; given a metric `p`, only where it is below `ALPHA` for every seed. A cross is a snapshot whose
    backbone is collapsed.
    """
    bands = []
    # untrained controls come last: below the others
    for line in reversed(lines):
        curve = line.curve(metric)
        if not len(curve):
            continue
        steps, mean, sd = (np.asarray(column) for column in (curve.index, curve["mean"], curve["sd"]))
        ax.plot(steps, mean, linestyle=line.dash, color=line.colour)
        for label in line.subjects:
            own = line.curve(name_of_subject(metric, label))["mean"]
            ax.plot(own.index, own, linestyle=line.dash, color=line.colour, linewidth=0.6, alpha=0.55)
        over = line.interval(metric)
        if len(over):
            bands.append((line, over))
        elif sd.any():
            alpha = 0.2 * fade(len(lines))
            ax.fill_between(steps, mean - sd, mean + sd, color=line.colour, alpha=alpha, linewidth=0)
        rewired = pd.Series(dtype=bool) if judged is None else line.rewired(judged)
        filled = (
            rewired.reindex(curve.index, fill_value=False) if len(rewired) else pd.Series(True, curve.index)
        )
        if p is not None:
            filled &= line.curve(p)["max"].reindex(curve.index) < ALPHA
        broken = line.collapsed(split_name(metric).interpolated).reindex(curve.index, fill_value=False)
        for chosen, marker, face in (
            (filled & ~broken, line.marker, line.colour),
            (~filled & ~broken, line.marker, "white"),
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


def fade(n: int) -> float:
    """How strong each of n bands may be, at most 1: many that overlap would hide the curves."""
    return min(1.0, 3 / max(n, 1))


def _draw_bands(ax: Axes, bands: Sequence[tuple[Line, pd.DataFrame]]) -> None:
    """Draw intervals; for those over subjects, a panel grows by at most half its height on either side."""
    if not bands:
        return
    low, high = ax.get_ylim()
    room = 0.5 * (high - low) if any(line.subjects for line, _ in bands) else np.inf
    lowest, highest = (
        min(over["low"].min() for _, over in bands),
        max(over["high"].max() for _, over in bands),
    )
    for line, over in bands:
        alpha = 0.16 * fade(len(bands))
        ax.fill_between(over.index, over["low"], over["high"], color=line.colour, alpha=alpha, linewidth=0)
    # bands end within the panel as curves do
    margin = 0.05 * (max(high, highest) - min(low, lowest))
    lowest, highest = lowest - margin, highest + margin
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


def start_at_zero(ax: Axes) -> None:
    """Let a vertical axis begin at 0, or below for negative values, with room for points at both ends."""
    low, high = ax.get_ylim()
    low = min(0.0, low)
    ax.set_ylim(low, high + 0.05 * (high - low))


def label_lowest(axes: Sequence[Axes], label: str) -> None:
    """Name the horizontal axis below the lowest panel of every column only; panels stand in a grid."""
    lowest: dict[int, tuple[int, Axes]] = {}
    for ax in axes:
        spec = ax.get_subplotspec()
        assert spec is not None
        ax.set_xlabel("")
        column, row = spec.colspan.start, spec.rowspan.stop
        if column not in lowest or lowest[column][0] < row:
            lowest[column] = (row, ax)
    for _, ax in lowest.values():
        ax.set_xlabel(label)
