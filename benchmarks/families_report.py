"""Counts, tables and picture of `families_agree.py`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from families_fits import FAMILIES, VERDICT
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest

from harness.brains.area_groups import AREA_GROUPS
from harness.plot.style import FAINT, INK, WIDTH, choose_colours, figure_style

CHANGED = "V4"
STEP_0, SHIFT, NOISE, DEMO = "step 0", "V4 +1", "tokens 1 sd", "demo"
SHARES = {
    "areas_right": "Areas' layers right",
    "found": "V4 +1: found",
    "elsewhere": "V4 +1: called elsewhere",
    "false": "Noise: called, none is",
}
"""Measures of `count` that are shares, with the panels' titles."""


def count(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Measures of some planted brains under one family: means, and counts for shares of brains."""
    found, elsewhere, false, shifts, calm, noisy, areas = [], [], [], [], [], [], []
    for cell in cells:
        changes, to = cell["changes"], cell["moved_to"]
        moved = changes[SHIFT].get(CHANGED)
        arrived = moved is not None and (cell["family"] == VERDICT or moved["last"] == to)
        found.append(arrived and moved["called"])
        others = [each for place, each in changes[SHIFT].items() if place != CHANGED]
        elsewhere.append(any(each["called"] for each in others))
        false.append(any(each["called"] for each in changes[NOISE].values()))
        shifts += [moved["depth"]] if moved else []
        calm += [abs(each["depth"]) for each in others]
        noisy += [abs(each["depth"]) for each in changes[NOISE].values()]
        areas += [each["first"] == cell["planted"][place] for place, each in changes[STEP_0].items()]
    true = [(cell["moved_to"] - cell["planted"][CHANGED]) / (cell["n_layers"] - 1) for cell in cells]
    measures = {name: _mean(cell[name] for cell in cells) for name in ("voxels_right", "r2", "seconds")}
    shares = {"areas_right": areas, "found": found, "elsewhere": elsewhere, "false": false}
    return {
        **measures,
        **{name: (sum(each), len(each)) for name, each in shares.items()},
        "shift": _mean(shifts),
        "true_shift": _mean(true),
        "shift_elsewhere": _mean(calm),
        "shift_in_noise": _mean(noisy),
    }


def describe(cell: dict[str, Any], evidence: dict[str, Any] | None) -> dict[str, Any]:
    """Measures of one family on one run; `evidence` is the verdict's cell of that run."""
    changes = cell["changes"][DEMO]
    groups = {
        group: _mean(each["depth"] for place, each in changes.items() if cell["groups"].get(place) == group)
        for group in AREA_GROUPS
    }
    expected = evidence["changes"][DEMO] if evidence else {}
    pairs = [
        (each["depth"], expected[place]["depth"]) for place, each in changes.items() if place in expected
    ]
    alike = len(pairs) > 2 and np.ptp(pairs, axis=0).min() > 0 and cell["family"] != VERDICT
    return {
        **groups,
        "regions": len(changes),
        "fell": sum(each["r2_after"] < each["r2_before"] for each in changes.values()),
        "called": sum(each["called"] for each in changes.values()),
        "correlation": float(np.corrcoef(np.transpose(pairs))[0, 1]) if alike else None,
        "r2": cell["r2"],
        "seconds": cell["seconds"],
    }


def write_tables(cells: Sequence[dict[str, Any]]) -> str:
    """All families in one table, then the details of planted brains and of the demo, as Markdown."""
    planted, demo = _parts(cells)
    families = [family for family in FAMILIES if any(cell["family"] == family for cell in cells)]
    runs = list(dict.fromkeys(cell["backbone"] for cell in demo))
    evidence = {cell["backbone"]: cell for cell in demo if cell["family"] == VERDICT}
    head = ["family", "areas right", "V4 +1 found", "called elsewhere", "noise: called"]
    head += [f"{run}: early, middle, high; r" for run in runs]
    rows = []
    for family in families:
        own = [cell for cell in planted if cell["family"] == family]
        counted = count(own) if own else {}
        row = [family, *(_share(name, counted) if own else "–" for name in SHARES)]
        for run in runs:
            here = [cell for cell in demo if (cell["family"], cell["backbone"]) == (family, run)]
            row.append(_story(describe(here[0], evidence.get(run))) if here else "–")
        rows.append(row)
    tables = [_table(head, rows)]
    if planted:
        tables.append(_planted_table(planted))
    if demo:
        tables.append(_demo_table(demo, evidence))
    return "\n\n".join(tables)


def _planted_table(planted: Sequence[dict[str, Any]]) -> str:
    head = ["backbone", "family", "brains", "voxels right", "areas right", "V4 +1: shift (true)"]
    head += [
        "found",
        "size of shifts elsewhere",
        "called elsewhere",
        "noise: size of shifts",
        "noise: called",
        "R²",
        "seconds",
    ]
    rows = []
    for (backbone, family), own in _grouped(planted, "backbone", "family").items():
        found = count(own)
        rows.append(
            [
                backbone,
                family,
                str(len(own)),
                f"{100 * found['voxels_right']:.0f} %",
                _share("areas_right", found),
                f"{_signed(found['shift'])} ({_signed(found['true_shift'])})",
                _share("found", found),
                f"{found['shift_elsewhere']:.3f}",
                _share("elsewhere", found),
                f"{found['shift_in_noise']:.3f}",
                _share("false", found),
                f"{found['r2']:.3f}",
                f"{found['seconds']:.0f}",
            ]
        )
    return _table(head, rows)


def _demo_table(demo: Sequence[dict[str, Any]], evidence: dict[str, dict[str, Any]]) -> str:
    head = ["run", "family", "R²: before → after", "regions whose R² fell", "early", "middle", "high"]
    head += ["regions called", "r with the evidence", "seconds"]
    rows, lines = [], []
    for cell in demo:
        found = describe(cell, evidence.get(cell["backbone"]))
        rows.append(
            [
                cell["backbone"],
                cell["family"],
                " → ".join(f"{each:.3f}" for each in found["r2"]),
                f"{found['fell']} of {found['regions']}",
                *(_signed(found[group]) for group in AREA_GROUPS),
                f"{found['called']} of {found['regions']}",
                "–" if found["correlation"] is None else _signed(found["correlation"], 2),
                "–" if cell["family"] == VERDICT else f"{found['seconds']:.0f}",
            ]
        )
        if cell["family"] == VERDICT:
            lines.append(f"- {cell['backbone']}: {cell['verdict']}")
    return "\n".join([_table(head, rows), "", "The runs' own verdicts:", "", *lines])


def draw(cells: Sequence[dict[str, Any]]) -> Figure:
    """Draw shares on planted brains with 95 % intervals, and the demo's changes of depth, by family."""
    planted, demo = _parts(cells)
    families = [family for family in FAMILIES if any(cell["family"] == family for cell in cells)]
    runs = list(dict.fromkeys(cell["backbone"] for cell in demo))
    with figure_style():
        heights = [0.9 + 0.27 * len(families)] * (bool(planted) + bool(demo))
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        parts = iter(np.atleast_1d(figure.subfigures(len(heights), 1)))
        if planted:
            part = next(parts)
            panels = part.subplots(1, len(SHARES), sharey=True)
            for ax, (name, title) in zip(panels, SHARES.items(), strict=True):
                _draw_shares(ax, planted, families, name)
                _set_up(ax, families, title, "%")
            part.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        if demo:
            part = next(parts)
            panels = np.atleast_1d(part.subplots(1, len(runs), sharey=True, sharex=True))
            for ax, run in zip(panels, runs, strict=True):
                _draw_depths(ax, [cell for cell in demo if cell["backbone"] == run], families)
                _set_up(ax, families, f"Demo: {run}", "change of expected depth")
            part.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _draw_shares(ax: Axes, planted: Sequence[dict[str, Any]], families: Sequence[str], name: str) -> None:
    backbones = dict.fromkeys((cell["backbone"] for cell in planted), True)
    for place, (backbone, colour) in enumerate(choose_colours(backbones).items()):
        own = [cell for cell in planted if cell["backbone"] == backbone]
        counted = {key[0]: count(each)[name] for key, each in _grouped(own, "family").items()}
        y = [families.index(family) + 0.24 * (place - (len(backbones) - 1) / 2) for family in counted]
        share = np.array([hits / n for hits, n in counted.values()])
        ends = np.array([_interval(*each) for each in counted.values()])
        # areas of one brain are no independent draws
        spread = None if name == "areas_right" else 100 * np.abs(ends.T - share)
        style = {"fmt": "o", "markersize": 4, "linewidth": 1, "color": colour, "label": backbone}
        ax.errorbar(100 * share, y, xerr=spread, **style)
    ax.set_xlim(-3, 103)


def _draw_depths(ax: Axes, cells: Sequence[dict[str, Any]], families: Sequence[str]) -> None:
    shades = ("#9ecae1", "#3182bd", "#08306b")  # from early to high areas
    for place, (group, colour) in enumerate(zip(AREA_GROUPS, shades, strict=True)):
        depth = [describe(cell, None)[group] for cell in cells]
        y = [families.index(cell["family"]) + 0.2 * (place - 1) for cell in cells]
        ax.plot(depth, y, "o", color=colour, label=group.replace("_", " "))
    ax.axvline(0, color=INK, linewidth=0.8)


def _set_up(ax: Axes, families: Sequence[str], title: str, label: str) -> None:
    ax.set_yticks(range(len(families)), families)
    ax.set_ylim(len(families) - 0.5, -0.5)
    ax.set_title(title)
    ax.set_xlabel(label, color=FAINT)


def _parts(cells: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Cells of planted brains, and of the demo, by backbone and family."""
    ordered = sorted(cells, key=lambda cell: (cell["backbone"], FAMILIES.index(cell["family"])))
    planted, demo = ([cell for cell in ordered if cell["part"] == part] for part in ("planted", "demo"))
    return planted, demo


def _grouped(cells: Sequence[dict[str, Any]], *names: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell[name] for name in names), []).append(cell)
    return groups


def _story(found: dict[str, Any]) -> str:
    depths = ", ".join(_signed(found[group], 2) for group in AREA_GROUPS)
    correlation = found["correlation"]
    return depths if correlation is None else f"{depths}; {_signed(correlation, 2)}"


def _interval(hits: int, n: int) -> tuple[float, float]:
    """Binomial (Clopper-Pearson) interval, 95 %."""
    found = binomtest(hits, n).proportion_ci()
    return found.low, found.high


def _share(name: str, counted: dict[str, Any]) -> str:
    """Percent, and of brains its interval; areas of one brain are no independent draws."""
    hits, n = counted[name]
    if name == "areas_right":
        return f"{100 * hits / n:.0f} % of {n}"
    low, high = _interval(hits, n)
    return f"{100 * hits / n:.0f} ({100 * low:.0f}–{100 * high:.0f}) of {n}"


def _mean(values: Iterable[float]) -> float:
    """Mean; not a number if there is none."""
    found = list(values)
    return float(np.mean(found)) if found else float("nan")


def _signed(value: float, digits: int = 3) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
