"""Checks of a run's rows against the catalogue of metrics."""

from __future__ import annotations

from pathlib import Path

from harness.measures.catalogue import describe, is_headline
from harness.runs.journal import read_rows

MOST_HEADLINES = 120


def check_rows(folder: Path) -> set[str]:
    """Check every row's entry and range, and that headlines are few; return the rows' patterns."""
    rows, _ = read_rows(folder / "results.jsonl")
    assert rows
    for row in rows:
        metric = describe(row["name"])
        assert metric.contains(row["value"]), (
            f"{row['name']}: {row['value']} not in [{metric.low}, {metric.high}]"
        )
    names = {row["name"] for row in rows}
    assert 0 < sum(map(is_headline, names)) <= MOST_HEADLINES
    return {describe(name).pattern for name in names}
