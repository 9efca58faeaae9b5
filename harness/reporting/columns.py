"""The columns of a comparison: which metric, where, under which heading, and how its numbers are written."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

At = Literal["start", "end"]
TASK = "<task>"  # in a metric's name: the task of the row, where a study has several
MAIN = "<main>"  # ... and the measure that stands for it: accuracy, or AUROC of several labels
MEASURES = {"accuracy": "accuracy", "auroc": "AUROC", MAIN: "accuracy or AUROC"}
ABSENT = "–"
# measures of several tasks, one after the other, with their headings; for which ways to score a task
SEQUENCE = {
    "average_accuracy": "ACC",
    "backward_transfer": "BWT",
    "forgetting_chaudhry": "forgetting (Chaudhry)",
    "forgetting_max_all": "forgetting (max of all)",
    "relative_forgetting": "relative",
    "forward_transfer": "FWT",
    "transfer": "transfer",
}
SCORED_BY = {"head": "head", "linear": "linear probe", "zero_shot": "zero-shot"}


@dataclass(frozen=True)
class Column:
    """A column of the comparison.

    Attributes
    ----------
    metric : str
        Name in ``results.jsonl``; ``<task>`` in it stands for the row's task, ``<main>`` for its measure.
    at : "start" (step 0) or "end" (the last snapshot)
    above, heading : str
        Heading of the group of columns, and of this one.
    kind : str
        How it is written: "number", "signed" (+ or −) or "p".
    """

    metric: str
    at: At
    above: str
    heading: str
    kind: Literal["number", "signed", "p"] = "number"

    def write(self, value: float, sd: float = float("nan")) -> str:
        """Text of a value, and of its standard deviation over seeds where there is one."""
        if pd.isna(value):
            return ABSENT
        if self.kind == "p":
            return "<.001" if value < 0.001 else f"{value:.3f}"
        text = f"{value:+.3f}" if self.kind == "signed" else f"{value:.3f}"
        # a zero has no sign, whatever was rounded away
        text = "0.000" if float(text) == 0 else text
        return text.replace("-", "−") + ("" if pd.isna(sd) else f" ±{sd:.3f}")

    def summarise(self, values: Sequence[float]) -> tuple[float, float]:
        """Mean over seeds, of a p value the largest, and the sample's sd; NaN where there is none."""
        nan = float("nan")
        if not values:
            return nan, nan
        if self.kind == "p":
            return max(values), nan
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else nan

    def write_interval(self, low: float, high: float) -> str:
        """Text of an interval over subjects; empty where there is none."""
        return "" if pd.isna(low) else f"[{self.write(low)}, {self.write(high)}]"


def group_by_heading(columns: Sequence[Column]) -> dict[str, list[int]]:
    """Places of the columns that stand under each heading, in order."""
    groups: dict[str, list[int]] = {}
    for place, column in enumerate(columns):
        groups.setdefault(column.above, []).append(place)
    return groups


def stack(widths: Sequence[int], room: int) -> list[list[int]]:
    """Places of neighbours that share a table: as many as there is room for, and one at the least."""
    tables: list[list[int]] = []
    left = 0
    for place, width in enumerate(widths):
        if not tables or width > left:
            tables.append([])
            left = room
        tables[-1].append(place)
        left -= width
    return tables


def describe_column(metric: str, at: At) -> Column:
    """Headings and form of a column of the comparison."""
    stage, place, measure = metric.split("/")
    when = "before" if at == "start" else "after"
    column = Column(metric, at, metric, when)
    match stage, measure:
        case "task", "accuracy" | "auroc" | "<main>":
            return replace(column, above=f"{place}: {MEASURES[measure]}")
        case "probe", "linear_accuracy":
            return replace(column, above=f"{place}: linear probe")
        case "probe", "linear_auroc" | "linear_<main>":
            named = MEASURES[measure.removeprefix("linear_")]
            return replace(column, above=f"{place}: linear probe, {named}")
        case "forgetting", "delta_lp" | "delta_lp_auroc":
            named = place + " (AUROC)" * measure.endswith("auroc")
            return replace(column, above="Δ_LP, linear probe", heading=named, kind="signed")
        case "forgetting", "delta_zs" | "delta_zs_auroc":
            named = place + " (AUROC)" * measure.endswith("auroc")
            return replace(column, above="Δ_ZS, zero-shot", heading=named, kind="signed")
        case "sequence", _:
            bare = measure.removesuffix("_auroc")
            heading = "average AUROC" if bare == "average" else SEQUENCE.get(bare, bare)
            signed = bare in ("backward_transfer", "forward_transfer", "forgetting_chaudhry")
            named = f"sequence, {SCORED_BY.get(place, place)}" + " (AUROC)" * measure.endswith("auroc")
            return replace(column, above=named, heading=heading, kind="signed" if signed else "number")
        case "rewiring", "wasserstein":
            return replace(column, above="rewiring, Wasserstein", heading="raw")
        case "rewiring", "wasserstein_null":
            return replace(column, above="rewiring, Wasserstein", heading="floor")
        case "rewiring", "wasserstein_excess":
            return replace(column, above="rewiring, Wasserstein", heading="excess", kind="signed")
        case "rewiring", "wasserstein_p":
            return replace(column, above="rewiring, Wasserstein", heading="p", kind="p")
        case "rewiring", "wasserstein_excess_subjects_p":
            return replace(column, above="rewiring, Wasserstein", heading="p, subjects", kind="p")
        case "alignment", "hierarchy":
            return replace(column, above="hierarchy alignment")
        case "alignment", "hierarchy_null_sd":
            return replace(column, above="hierarchy alignment", heading="refit sd")
        case "brain", "r2":
            return replace(column, above="brain R²")
    return column
