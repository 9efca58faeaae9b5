"""What a study's own run in MLflow gets: the report, the comparison, and A against B."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from harness.reporting.contrast import Contrast
from harness.reporting.paired_measures import END
from harness.tracking import (
    log_study,
    metric_key,
)


def log_report(study: Path, report: Path, comparison: pd.DataFrame) -> bool:
    """Log a study's report and its table, as `compare_runs` returns it; returns whether that worked."""
    table = comparison.copy()
    table.columns = pd.Index([" ".join(map(str, column)) for column in table.columns])
    return log_study(study, {"comparison": table.reset_index()}, [report])


def log_contrast(study: Path, contrast: Contrast) -> bool:
    """Log a contrast in MLflow: the whole table, and the differences at the last snapshot as metrics.

    Metrics are those of probes and of the whole brain: ``<contrast>/Forgetting shapes delta_lp`` is A − B,
    and ``… p`` its corrected p.
    """
    table = contrast.table
    whole = table["family"].str.startswith(("forgetting", "task")) | (table["place"] == "all")
    chosen = table[(table["at"] == END) & whole]
    name = re.sub(r"[^\w.-]+", "-", f"contrast {contrast.factor} {contrast.title}").strip("-")
    metrics = {}
    for _, row in chosen.iterrows():
        key = metric_key(row["metric"].replace("<", "").replace(">", "")).replace("/", " ")
        metrics[f"{name}/{key}"] = float(row["d"])
        if not pd.isna(row["p_family"]):
            metrics[f"{name}/{key} p"] = float(row["p_family"])
    return log_study(study, {name: table}, metrics=metrics)
