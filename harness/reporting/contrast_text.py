"""A contrast in words and rows: for the terminal, the report, and a table to keep."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from harness.measures import (
    PROBE_KINDS,
    name_auroc,
)
from harness.reporting.columns import ABSENT
from harness.reporting.contrast import Contrast
from harness.reporting.paired_measures import (
    END,
    LEARNING,
)

HEADINGS = ("", "at", "A", "B", "A − B", "95 % interval", "pairs", "p", "corrected", "p, seeds")
SECTIONS = (
    ("Learned", ("task", "probe", "learning")),
    ("Forgotten", ("forgetting",)),
    ("Rewired", ("rewiring", "verdict")),
    ("Depth read", ("selectors",)),
    ("Predicted", ("brain",)),
)
ALPHA = 0.05
WIDTH = 120  # characters of a terminal


@dataclass(frozen=True)
class Section:
    """Rows of one kind of measure, as text."""

    title: str
    rows: tuple[tuple[str, ...], ...]


def choose_rows(contrast: Contrast, brief: bool = False) -> pd.DataFrame:
    """Choose the rows to show: the last snapshot everywhere, equal learning of probes and the whole brain.

    Kinds of probes that tables do not show are left out, and with `brief`, single regions too. The contrast's
    own table has all rows, also of single regions at equal learning and of every common step.
    """
    hidden = {
        f"forgetting/{change}"
        for kind in PROBE_KINDS
        if not kind.in_tables
        for change in (kind.delta, name_auroc(kind.delta))
    }
    table = contrast.table[~contrast.table["family"].isin(hidden)]
    whole = ~table["family"].str.startswith(("rewiring", "verdict", "selectors", "brain")) | (
        table["place"] == "all"
    )
    at_end = (table["at"] == END) & (whole | (not brief))
    return table[at_end | (whole & table["at"].str.endswith("learned"))]


def write_sections(contrast: Contrast, brief: bool = False) -> tuple[tuple[str, ...], list[Section]]:
    """Write the rows of `choose_rows` by kind of measure, and the columns' headings.

    Kinds without rows and columns without numbers are left out.
    """
    shown = choose_rows(contrast, brief)
    found = []
    for title, stages in SECTIONS:
        rows = [_write_row(row) for _, row in shown.iterrows() if row["family"].partition("/")[0] in stages]
        if rows:
            found.append(Section(title, tuple(rows)))
    kept = [
        column
        for column in range(len(HEADINGS))
        if any(row[column] != ABSENT for section in found for row in section.rows)
    ]
    cut = [
        Section(one.title, tuple(tuple(row[column] for column in kept) for row in one.rows)) for one in found
    ]
    return tuple(HEADINGS[column] for column in kept), cut


def _write_row(row: pd.Series) -> tuple[str, ...]:
    digits = 0 if row["metric"] == LEARNING else 3
    interval = ABSENT
    if not pd.isna(row["low"]):
        interval = f"[{_write(row['low'], digits, True)}, {_write(row['high'], digits, True)}]"
    return (
        row["title"],
        row["at"],
        _write(row["a"], digits),
        _write(row["b"], digits),
        _write(row["d"], digits, True),
        interval,
        str(row["n"]),
        _write_p(row["p"]),
        _write_p(row["p_family"]),
        _write_p(row["p_seeds"]),
    )


def _write(value: float, digits: int, signed: bool = False) -> str:
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def _write_p(p: float) -> str:
    if pd.isna(p):
        return ABSENT
    return "<.001" if p < 0.001 else f"{p:.3f}"


def explain(contrast: Contrast) -> list[str]:
    """Say in sentences what is compared, how many pairs there are, and what they cannot show."""
    pairs = contrast.pairs
    tasks = list(dict.fromkeys(pair.task for pair in pairs))
    seeds = sorted({pair.seed for pair in pairs})
    n = len(pairs)
    smallest = 2.0 ** (1 - min(n, 16))
    lines = [
        f"A is {contrast.factor}={contrast.a}, B is {contrast.b}: {n} pair{'s' * (n != 1)} of runs of the "
        f"same task and seed (tasks: {', '.join(tasks)}; seeds: {', '.join(map(str, seeds))})."
    ]
    if n == 1:
        lines.append(
            "One pair cannot carry a p or an interval: its two runs exchanged give a difference of the same "
            "size. The differences below describe these two runs and nothing else."
        )
    else:
        lines.append(
            f"The smallest p that sign flips of {n} pairs can reach is {smallest:.2g}"
            + (f", which is not below {ALPHA}." if smallest > ALPHA else ".")
        )
        counts = pd.Series([pair.task for pair in pairs]).value_counts()
        if counts.min() < 2:
            lines.append("A task with one seed has no spread over seeds, so there is no interval.")
    if n > 1:
        lines.append(
            "p is corrected over all places and moments of a measure (largest statistic over joint flips)."
        )
    if len(tasks) > 1 and len(seeds) > 1:
        lines.append(
            "p takes pairs as independent, but the tasks of a seed are measured against one step 0. In p, "
            f"seeds, all tasks of a seed are exchanged together: it holds either way, and {len(seeds)} seeds "
            f"cannot reach less than {2.0 ** (1 - min(len(seeds), 16)):.2g}."
        )
    lines.append(
        "This is about these two networks on these tasks; whether a kind of network differs takes several "
        "networks of each kind."
        if contrast.factor.startswith("backbone.")
        else "This is about the backbones and tasks of these runs."
    )
    if not contrast.table["at"].str.endswith("learned").any():
        lines.append(
            "Nothing is compared at equal learning: runs on several tasks have no single task to learn."
            if any(len(pair.a.tasks) > 1 for pair in pairs)
            else "Nothing is compared at equal learning: a probe of one side starts at or above the best "
            "that the other side reaches."
        )
    return [*lines, *(f"{note[:1].upper()}{note[1:]}." for note in contrast.notes)]


def summarise(contrast: Contrast) -> str:
    """Say in one line which shown differences hold after correction."""
    shown = choose_rows(contrast)
    holds = shown[shown["p_family"] <= ALPHA]
    if len(contrast.pairs) == 1:
        return "Nothing can be tested with one pair."
    if holds.empty:
        return f"No difference has a corrected p of at most {ALPHA}."
    found = "; ".join(
        f"{row['title']} ({row['at']}) {_write(row['d'], 3, True)}" for _, row in holds.head(6).iterrows()
    )
    more = f"; and {len(holds) - 6} more" if len(holds) > 6 else ""
    return f"Corrected p at most {ALPHA}: {found}{more}."


def format_contrasts(contrasts: Sequence[Contrast], brief: bool = False) -> str:
    """Format contrasts for a terminal; `brief` leaves out single regions."""
    return "\n\n".join(_format(contrast, brief) for contrast in contrasts)


def _format(contrast: Contrast, brief: bool) -> str:
    headings, sections = write_sections(contrast, brief)
    rows = [headings, *(row for section in sections for row in section.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(headings))]
    words = [contrast.title, *explain(contrast), summarise(contrast)]
    lines = [textwrap.fill(text, WIDTH) for text in words]
    for section in sections:
        lines += ["", _align((section.title, *headings[1:]), widths)]
        lines += [_align(row, widths) for row in section.rows]
    return "\n".join(lines)


def _align(row: Sequence[str], widths: Sequence[int]) -> str:
    left = [text.ljust(width) for text, width in zip(row[:2], widths[:2], strict=True)]
    right = [text.rjust(width) for text, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join([*left, *right]).rstrip()
