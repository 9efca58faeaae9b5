"""The verdict of a run as tags for MLflow, so that runs can be searched by it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.config import Config
from harness.measures import (
    read_verdict,
    tag_verdicts,
)
from harness.runs import (
    Row,
    label_subjects,
)


def tag_rows(config: Config, rows: Sequence[Row]) -> dict[str, str]:
    """Find the verdict of a run's last snapshot among its rows.

    Returns
    -------
    dict
        ``verdict`` in words, such as ``rewired: V4, LO2`` or ``collapsed, no verdict``, and
        ``rewired_regions``, such as ``V4,LO2``; empty if the run has none.
    """
    # every tracked snapshot has one of these
    steps = [row["step"] for row in rows if row["name"] in ("brain/all/r2", "collapse/all/collapsed")]
    last = {row["name"]: row["value"] for row in rows if steps and row["step"] == max(steps)}
    found = {label: read_verdict(last, label) for label in label_subjects(config.brain) or (None,)}
    return tag_verdicts({label: verdict for label, verdict in found.items() if verdict is not None})
