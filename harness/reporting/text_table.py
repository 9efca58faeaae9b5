"""A comparison of runs as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from harness.measures import split_name
from harness.reporting.columns import (
    Column,
    group_by_heading,
    stack,
)
from harness.reporting.comparison import (
    Group,
    columns_of,
)

WIDTH = 120  # characters of a terminal
GAP = 3  # between groups of columns


def format_table(frame: pd.DataFrame) -> str:
    """Format a frame from `compare_runs` for a terminal, in stacked tables of at most 120 characters.

    Numbers are means over seeds with their standard deviation and, with several subjects, the interval over
    subjects; p is the largest over seeds. Accuracies and Δ have the interval over test images.
    A last line says so.
    """
    groups = [Group(*index[:-1]) for index in frame.index]
    seeds = [index[-1] for index in frame.index]
    names = [group.label(groups) for group in groups]
    if max(seeds) > 1:
        names = [f"{name} ({n} seed{'s' * (n > 1)})" for name, n in zip(names, seeds, strict=True)]
    first = _pad(["", "backbone", *names])
    columns, room = columns_of(frame), WIDTH - len(first[0]) - GAP
    parts = [
        part
        for above, places in group_by_heading(columns).items()
        for part in _split(frame, above, [columns[place] for place in places], room)
    ]
    tables = stack([GAP + len(part[0]) for part in parts], WIDTH - len(first[0]))
    blocks = [zip(first, *(parts[place] for place in places), strict=True) for places in tables]
    text = "\n\n".join("\n".join((GAP * " ").join(line).rstrip() for line in block) for block in blocks)
    note = _explain(frame, max(seeds) > 1)
    return f"{text}\n\n{note}" if note else text


def _explain(frame: pd.DataFrame, several_seeds: bool) -> str:
    """Say what n and the brackets of accuracies and of Δ are, if there are any."""
    counted = not frame.xs("n_test", axis=1, level="statistic").isna().all(axis=None)
    lows = frame.xs("low", axis=1, level="statistic")
    bracketed = {split_name(metric).stage for metric, at in lows if lows[metric, at].notna().any()}
    over = "test images and seeds" if several_seeds else "test images"
    notes = ["n: test images"] * counted
    kinds = {
        "accuracies": ("bootstrap" if several_seeds else "Wilson") if bracketed & {"task", "probe"} else "",
        "Δ": "paired bootstrap" if "forgetting" in bracketed else "",
    }
    found = {kind: how for kind, how in kinds.items() if how}
    if found:
        names, ways = " and ".join(found), "; ".join(found.values())
        notes.append(f"brackets after {names}: 95 % interval over {over} ({ways})")
    return "; ".join(notes)


def _split(frame: pd.DataFrame, above: str, columns: Sequence[Column], room: int) -> list[list[str]]:
    """Parts of a group of columns, each as wide as there is room, at least one column."""
    parts: list[list[Column]] = []
    for column in columns:
        if parts and len(_write_part(frame, above, [*parts[-1], column])[0]) <= room:
            parts[-1].append(column)
        else:
            parts.append([column])
    return [_write_part(frame, above, part) for part in parts]


def _write_part(frame: pd.DataFrame, above: str, columns: Sequence[Column]) -> list[str]:
    """Lines of the columns under one heading, all of equal length."""
    cells = []
    for column in columns:
        numbers = (frame[column.metric, column.at, kind] for kind in ("value", "sd", "low", "high"))
        written = [
            f"{column.write(value, sd)} {column.write_interval(low, high)}".rstrip()
            for value, sd, low, high in zip(*numbers, strict=True)
        ]
        cells.append(_pad([column.heading, *written], right=True))
    lines = ["  ".join(line) for line in zip(*cells, strict=True)]
    return _pad([above, *lines])


def _pad(lines: Sequence[str], right: bool = False) -> list[str]:
    width = max(map(len, lines))
    return [line.rjust(width) if right else line.ljust(width) for line in lines]
