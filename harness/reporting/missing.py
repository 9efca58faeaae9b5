"""What a reader would look for in a report and does not find, with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from harness.measures import PROBE_KINDS
from harness.reporting.figures.curves import find_alignment
from harness.reporting.figures.layers import read_shares
from harness.reporting.figures.panels import (
    Line,
    are_measured,
)
from harness.reporting.verdicts import (
    SHOWN_NAMES,
    enumerate_names,
)


def list_missing(lines: Sequence[Line], probes: Sequence[str], places: Sequence[str]) -> list[str]:
    """List what is not shown, a sentence each.

    Parameters
    ----------
    lines : sequence of Line
    probes, places : sequence of str
        Names of the probe tasks and of the regions.
    """
    found = []
    still = [line for line in lines if len(line.steps) < 2]
    moved = [line for line in lines if line not in still]
    if still:
        found.append(
            f"{_name(still, lines)}: no snapshot after step 0, so nothing can have changed; there is no "
            "rewiring, drift, shift of depth or verdict."
        )
    collapsed = [line for line in moved if all(run.collapsed for run in line.runs)]
    if collapsed:
        found.append(
            f"{_name(collapsed, lines)}: no verdict at the last snapshot, as the backbone has collapsed; "
            "what voxels read of it says nothing about rewiring."
        )
    unjudged = [line for line in moved if not any(run.verdicts for run in line.runs)]
    if unjudged:
        found.append(
            f"{_name(unjudged, lines)}: no verdict, as there is no evidence per layer. It takes distinct "
            "stimuli in the fitting set and a region that is predicted at step 0, and runs of earlier "
            "versions lack it."
        )
    if not probes:
        found.append("Forgetting: no task but those fine-tuned on was probed (probes.tasks).")
    for kind in PROBE_KINDS:
        measured = [line for line in lines if _has_changes(line, kind.delta)]
        without = [line for line in lines if line not in measured]
        if kind.in_tables and measured and without:
            found.append(
                f"{_name(without, lines)}: no {kind.symbol}"
                + (", which takes a pretrained text tower." if kind.name == "zero_shot" else ".")
            )
    found += _list_places(lines, places)
    if not find_alignment(lines):
        found.append("Order of layers: the regions have no known place in the visual hierarchy.")
    return found


def _has_changes(line: Line, delta: str) -> bool:
    return any(
        name.startswith("forgetting/") and name.split("/")[-1].startswith(delta)
        for run in line.runs
        for name in run.names
    )


def _list_places(lines: Sequence[Line], places: Sequence[str]) -> list[str]:
    """Regions that are missing from figures of regions, by the lines that lack them."""
    lacking: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        gone = tuple(
            place
            for place in places
            if not len(read_shares(line, place))
            or (len(line.steps) > 1 and not are_measured([line], f"rewiring/{place}/wasserstein"))
        )
        if gone:
            lacking.setdefault(gone, []).append(line)
    return [
        f"{_name(alike, lines)}: {_shorten(gone)} {'have' if len(gone) > 1 else 'has'} fewer than 5 "
        "predicted voxels, so neither shares of layers nor rewiring."
        for gone, alike in lacking.items()
    ]


def _name(some: Sequence[Line], lines: Sequence[Line]) -> str:
    """Names of lines, or "All runs"."""
    return "All runs" if len(some) == len(lines) > 1 else enumerate_names([line.label for line in some])


def _shorten(names: Sequence[str]) -> str:
    if len(names) <= 3 * SHOWN_NAMES:
        return enumerate_names(names)
    return f"{len(names)} regions ({', '.join(names[:SHOWN_NAMES])}, …)"
