"""Rows of a benchmark as lines of text: means over its replicates."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np


def tabulate_means(
    rows: list[dict[str, Any]],
    group: Callable[[dict[str, Any]], tuple[Any, ...]],
    keys: Collection[str],
) -> str:
    """One line per group: its name, the number of its rows, and means of all that is not among `keys`."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(group(row), []).append(row)
    lines = []
    for name, members in groups.items():
        measures = [measure for measure in members[0] if measure not in keys]
        values = [f"{measure} {np.mean([row[measure] for row in members]):.3f}" for measure in measures]
        lines.append(" | ".join([*map(str, name), f"n {len(members)}", *values]))
    return "\n".join(lines)
