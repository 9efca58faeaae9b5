"""Counts, tables and picture of `rewiring_validity.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest

from harness.measures.verdict_rows import VerdictKind
from harness.plot.style import (
    FAINT,
    INK,
    choose_colours,
    figure_style,
)

GOALS = {"rewired": 0.05, "reweighted": 0.07, "found": 0.9}
"""At most this share of unrewired brains may be called so, and at least this share of others found."""
MIXTURE = "V4 +1 by "


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read the verdicts there are."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def count(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Count verdicts by size, bed and condition, with 95 % binomial (Clopper-Pearson) intervals."""
    cells: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["size"], row["bed"], row["condition"]), []).append(row)
    table = []
    for (size, bed, condition), found in cells.items():
        n = len(found)
        spared = [
            [v for place, v in enumerate(row["verdicts"]) if place not in row["moved"]] for row in found
        ]
        hit = [[row["verdicts"][place] for place in row["moved"]] for row in found]
        entry: dict[str, Any] = {"size": size, "bed": bed, "condition": condition, "replicates": n}
        for name, called in (
            ("rewired", [VerdictKind.REWIRED in each for each in spared]),
            ("reweighted", [VerdictKind.REWEIGHTED in each for each in spared]),
            ("found", [VerdictKind.REWIRED in each for each in hit]),
            ("found_or_reweighted", [max(each, default=0) >= VerdictKind.REWEIGHTED for each in hit]),
        ):
            if name.startswith("found") and not any(hit):
                continue
            interval = binomtest(sum(called), n).proportion_ci()
            entry[name] = sum(called) / n
            entry[f"{name}_interval"] = [interval.low, interval.high]
        if any(hit):
            shifts = [
                np.mean([row["shift"][place] for place in row["moved"]]) for row in found if row["moved"]
            ]
            entry["shift"], entry["shift_sd"] = float(np.mean(shifts)), float(np.std(shifts))
        table.append(entry)
    return table


def write_tables(cells: Sequence[dict[str, Any]]) -> str:
    """Write one Markdown table per size and kind of condition: percent, with the interval in brackets."""
    parts = []
    for size in dict.fromkeys(cell["size"] for cell in cells):
        here = [cell for cell in cells if cell["size"] == size]
        for columns, chosen in (
            (("rewired", "reweighted"), [cell for cell in here if "found" not in cell]),
            (("found", "found_or_reweighted"), [cell for cell in here if "found" in cell]),
        ):
            if chosen:
                parts.append(_write_table(size, columns, chosen))
    return "\n\n".join(parts)


def _write_table(size: str, columns: Sequence[str], cells: Sequence[dict[str, Any]]) -> str:
    beds = list(dict.fromkeys(cell["bed"] for cell in cells))
    titles = {
        "rewired": "called rewired",
        "reweighted": "reweighted",
        "found": "found",
        "found_or_reweighted": "or reweighted",
    }
    lines = [
        f"| {size} | " + " | ".join(f"{bed}: {titles[column]}" for bed in beds for column in columns) + " |",
        "| --- |" + " ---: |" * (len(beds) * len(columns)),
    ]
    for condition in dict.fromkeys(cell["condition"] for cell in cells):
        entries = []
        for bed in beds:
            found = [cell for cell in cells if (cell["bed"], cell["condition"]) == (bed, condition)]
            for column in columns:
                entries.append(_write_share(found[0], column) if found else "")
        lines.append(f"| {condition} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def _write_share(cell: dict[str, Any], column: str) -> str:
    low, high = cell[f"{column}_interval"]
    return f"{100 * cell[column]:.0f} ({100 * low:.0f}–{100 * high:.0f}) of {cell['replicates']}"


def draw(cells: Sequence[dict[str, Any]]) -> Figure:
    """Draw shares with their intervals, and the estimated shift, for the size with the most replicates."""
    sizes: dict[str, int] = {}
    for cell in cells:
        sizes[cell["size"]] = sizes.get(cell["size"], 0) + cell["replicates"]
    size = max(sizes, key=lambda name: sizes[name])
    here = [cell for cell in cells if cell["size"] == size]
    spared = [cell for cell in here if "found" not in cell]
    moved = [cell for cell in here if "found" in cell and not cell["condition"].startswith(MIXTURE)]
    with figure_style():
        mixed = any(cell["condition"].startswith(MIXTURE) for cell in here)
        figure = Figure(figsize=(12, 5.4), layout="constrained")
        axes = figure.subplots(1, 3 + mixed, width_ratios=(3, 3, 3, 2.4)[: 3 + mixed])
        _draw_shares(axes[0], spared, "rewired", "Called rewired; none is")
        _draw_shares(axes[1], spared, "reweighted", "Called reweighted; none is")
        axes[1].set_yticklabels([])
        _draw_shares(axes[2], moved, "found", "Rewired, and found")
        if mixed:
            _draw_shift(axes[3], here)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
        figure.suptitle(size, x=0.01, ha="left", fontsize=9, color=FAINT)
    return figure


def _draw_shares(axes: Axes, cells: Sequence[dict[str, Any]], column: str, title: str) -> None:
    conditions = list(dict.fromkeys(cell["condition"] for cell in cells))
    beds = list(dict.fromkeys(cell["bed"] for cell in cells))
    for place, (bed, colour) in enumerate(choose_colours(dict.fromkeys(beds, True)).items()):
        own = [cell for cell in cells if cell["bed"] == bed]
        y = [conditions.index(cell["condition"]) + 0.16 * (place - (len(beds) - 1) / 2) for cell in own]
        share = np.array([cell[column] for cell in own])
        ends = np.array([cell[f"{column}_interval"] for cell in own])
        axes.errorbar(
            100 * share,
            y,
            xerr=100 * np.abs(ends.T - share),
            fmt="o",
            markersize=3.5,
            linewidth=1,
            color=colour,
            label=bed,
        )
    axes.axvline(100 * GOALS[column], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(conditions)), conditions)
    axes.set_ylim(len(conditions) - 0.5, -0.5)
    largest = max(cell[f"{column}_interval"][1] for cell in cells)
    axes.set_xlim((-2, 102) if column == "found" or largest > 0.25 else (-0.5, 25))
    axes.set_xlabel("% of brains")
    axes.set_title(title, loc="left", fontsize=9)


def _draw_shift(axes: Axes, cells: Sequence[dict[str, Any]]) -> None:
    """Estimated shift of depth beyond the controls, against the share of the next layer that V4 reads."""
    shares = {f"{MIXTURE}{share}%": share for share in (25, 50, 75)} | {"V4 +1": 100}
    beds = [bed for bed in dict.fromkeys(cell["bed"] for cell in cells) if bed.startswith("planted")]
    for bed, colour in choose_colours(dict.fromkeys(beds, True)).items():
        own = {shares[c["condition"]]: c for c in cells if c["bed"] == bed and c["condition"] in shares}
        x = sorted(own)
        axes.errorbar(
            [0, *x],
            [0, *(own[share]["shift"] for share in x)],
            yerr=[0, *(own[share]["shift_sd"] for share in x)],
            marker="o",
            markersize=3.5,
            color=colour,
            capsize=2,
            label=bed,
        )
    axes.axhline(1 / 7, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xlabel("next layer's share in V4, %")
    axes.set_title("Shift of depth", loc="left", fontsize=9)
