"""The columns of a comparison: which metric, at which snapshot, its headings, and how numbers are written."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from harness.measures import (
    PROBE_KINDS,
    SCORINGS,
    At,
    Form,
    Metric,
    describe,
    split_name,
)

TASK = "<task>"
"""In a metric's name: the task of the row, where a study has several."""

MAIN = "<main>"
"""In a metric's name: the main measure of the row's task, accuracy or, for multi-label tasks, AUROC."""

ABSENT = "–"

SHOWN_SCORINGS = ("head", "joint", *(kind.name for kind in PROBE_KINDS if kind.in_tables))
"""Ways to score the tasks of a sequence that tables and figures show."""


@dataclass(frozen=True)
class Column:
    """A column of the comparison.

    Attributes
    ----------
    metric : str
        Name in ``results.jsonl``, with `TASK` for the row's task and `MAIN` for its main measure.
    at : "start" (step 0) or "end" (the last snapshot)
    above, heading : str
        Heading of the group of columns, and of this one.
    form : str
        How numbers are written: "number", "signed" (+ or −), "p", or "verdict" for one in words.
    """

    metric: str
    at: At
    above: str
    heading: str
    form: Form = "number"

    def write(self, value: float | str, sd: float = float("nan")) -> str:
        """Text of a value, with its standard deviation over seeds if there is one; words stay as they are."""
        if isinstance(value, str):
            return value or ABSENT
        if pd.isna(value):
            return ABSENT
        if self.form == "p":
            return "<.001" if value < 0.001 else f"{value:.3f}"
        text = f"{value:+.3f}" if self.form == "signed" else f"{value:.3f}"
        # no sign before what rounds to zero
        text = "0.000" if float(text) == 0 else text
        return text.replace("-", "−") + ("" if pd.isna(sd) else f" ±{sd:.3f}")

    def with_images(self, counts: Sequence[float]) -> Column:
        """Return this column with numbers of test images in its heading, that of the group if it has one."""
        if not len(counts):
            return self
        n_test = f"n {write_range(counts)}"
        if describe_metric(self.metric).heading:
            return replace(self, heading=f"{self.heading}, {n_test}")
        return replace(self, above=f"{self.above}, {n_test}")

    def write_interval(self, low: float, high: float) -> str:
        """Text of an interval over subjects, refits or test images; empty if there is none."""
        return "" if pd.isna(low) else f"[{self.write(low)}, {self.write(high)}]"

    def summarise(self, values: Sequence[float]) -> tuple[float, float]:
        """Mean over seeds (for p values the largest) and the sample's sd; NaN where undefined."""
        nan = float("nan")
        if not values:
            return nan, nan
        if self.form == "p":
            return max(values), nan
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else nan


def write_range(counts: Sequence[float]) -> str:
    """Whole numbers in words: ``200``, ``150–200``; empty without any."""
    if not len(counts):
        return ""
    low, high = round(min(counts)), round(max(counts))
    return str(low) if low == high else f"{low}–{high}"


def describe_metric(metric: str) -> Metric:
    """`harness.measures.describe`, also for a name with `MAIN`."""
    if MAIN not in metric:
        return describe(metric)
    accuracy, auroc = (describe(f"task/{TASK}/{score}").title for score in ("accuracy", "auroc"))
    both = f"{accuracy} or {auroc}"
    one, other = (describe(metric.replace(MAIN, score)) for score in ("accuracy", "auroc"))
    return replace(one, title=one.title.replace(accuracy, both), above=other.above.replace(auroc, both))


def write_title(metric: str) -> str:
    """What a metric is called, after its task's name if it has one, as the title of a panel."""
    title, name = describe_metric(metric).title, split_name(metric)
    if name.stage == "task" and name.place != TASK:
        return f"{name.place} {title}"
    title = f"task {title}" if name.stage == "task" else title
    return title[:1].upper() + title[1:]


def describe_column(metric: str, at: At) -> Column:
    """Headings and form of a column."""
    found, parts = describe_metric(metric), split_name(metric)
    place = parts.place if parts.shift is None else f"{parts.place} under {parts.shift}"
    above = (found.above or found.title).format(place=place, scoring=SCORINGS.get(parts.place))
    when = "before" if at == "start" else "after"
    return Column(metric, at, above, found.heading.format(place=place) or when, found.form)


def group_by_heading(columns: Sequence[Column]) -> dict[str, list[int]]:
    """Indices of the columns under each heading, in order."""
    groups: dict[str, list[int]] = {}
    for index, column in enumerate(columns):
        groups.setdefault(column.above, []).append(index)
    return groups


def stack(widths: Sequence[int], room: int) -> list[list[int]]:
    """Indices of neighbours that share a table: as many as fit, at least one."""
    tables: list[list[int]] = []
    left = 0
    for index, width in enumerate(widths):
        if not tables or width > left:
            tables.append([])
            left = room
        tables[-1].append(index)
        left -= width
    return tables
