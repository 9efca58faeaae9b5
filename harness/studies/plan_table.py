"""Plans of studies as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.storage import (
    format_bytes,
    format_seconds,
)
from harness.studies.availability import (
    DOWNLOAD,
    HERE,
    MISSING,
    Need,
)
from harness.studies.costs import PlannedRun

NAME_WIDTH = 47
UNKNOWN = "?"


def format_runs(runs: Sequence[PlannedRun]) -> str:
    """Format the runs as a table of at most 110 columns, followed by the total left to do."""
    head = f"{'run':<{NAME_WIDTH}} {'steps':>6} {'snap':>4} {'fits':>4} {'weights':>8} "
    lines = [head + f"{'tokens':>8} {'disk':>8} {'time':>7}  state"]
    for run in runs:
        numbers = (
            UNKNOWN if value is None else str(value) for value in (run.n_steps, run.n_snapshots, run.n_fits)
        )
        steps, snapshots, fits = numbers
        name = run.name if len(run.name) <= NAME_WIDTH else f"{run.name[: NAME_WIDTH - 9]}…{run.name[-8:]}"
        lines.append(
            f"{name:<{NAME_WIDTH}} {steps:>6} {snapshots:>4} {fits:>4} {format_bytes(run.weights):>8} "
            f"{format_bytes(run.tokens):>8} {format_bytes(run.disk):>8} "
            f"{format_seconds(run.seconds):>7}  {'finished' if run.finished else 'to do'}"
        )
    left = [run for run in runs if not run.finished]
    lines += ["", f"{len(runs)} runs, {len(runs) - len(left)} finished; left to do:"]
    for name, values, describe in (
        ("optimizer steps", [run.n_steps for run in left], "{:,}".format),
        ("snapshots", [run.n_snapshots for run in left], "{:,}".format),
        ("fits", [run.n_fits for run in left], "{:,}".format),
        ("disk", [run.disk for run in left], format_bytes),
        ("disk for snapshots alone", [run.snapshots for run in left], format_bytes),
        ("time, run after run", [run.seconds for run in left], format_seconds),
    ):
        lines.append(f"  {name}: {describe_sum(values, describe)}")
    if left:
        most = max(run.weights for run in left)
        tokens = [run.tokens for run in left if run.tokens is not None]
        lines.append(
            f"  peak memory of a run: {format_bytes(most)} for weights in fine-tuning, "
            f"{format_bytes(max(tokens, default=None))} for tokens in tracking"
        )
    return "\n".join(lines)


def describe_sum(values: Sequence[int | float | None], describe: Callable[[Any], str]) -> str:
    """Format the sum of known values and the number of unknown ones."""
    known = [value for value in values if value is not None]
    n_unknown = len(values) - len(known)
    if n_unknown and not known:
        return "unknown"
    return describe(sum(known)) + (f", and {n_unknown} unknown" if n_unknown else "")


def format_needs(needs: Sequence[Need], sizes: dict[str, int]) -> str:
    """List external inputs by what has to be done about them; `sizes` are bytes by name."""
    titles = {
        MISSING: "missing, and no run can download it",
        DOWNLOAD: "to be downloaded",
        HERE: "cached (matched by name, not verified)",
    }
    lines = []
    for state, title in titles.items():
        found = sorted(need for need in set(needs) if need.state == state)
        lines += [f"{title}: {len(found) or 'none'}"]
        for need in found:
            size = f", about {format_bytes(sizes[need.what])}" if need.what in sizes else ""
            lines.append(f"  {need.what} ({need.place}{size})")
    return "\n".join(lines)
