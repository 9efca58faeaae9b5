"""Names of metrics in MLflow's charts.

MLflow groups charts by what stands before the last slash, sorts the groups, and cuts long titles. So
``rewiring/V4/wasserstein_excess`` is ``Rewiring/V4 wasserstein_excess`` there: one group per kind, what
differs first, and the kinds that a user looks for at the top, since capitals come first.
"""

from __future__ import annotations

from typing import Literal

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
"""Of a run, as MLflow has it."""
RUN_TAG = "palimpsest.run"
"""Tag of every run: the name of its folder."""
FIRST = ("forgetting", "rewiring", "verdict")
"""Kinds of metrics that the charts open on."""


def metric_key(name: str) -> str:
    """Return the name in MLflow of a metric: ``train/loss``, ``Rewiring/V4 wasserstein_excess``."""
    stage, _, rest = name.partition("/")
    if "/" not in rest:
        return name
    section = stage.capitalize() if stage in FIRST else stage
    # another slash would open a group of its own
    return f"{section}/{rest.replace('/', ' ')}"


def metric_name(key: str) -> str:
    """Return the metric that a name in MLflow stands for: the inverse of `metric_key`."""
    section, _, rest = key.partition("/")
    if " " not in rest:
        # no place, or written by an earlier version
        return key
    stage = section.lower() if section.lower() in FIRST else section
    return f"{stage}/{rest.replace(' ', '/')}"
