"""Curves over steps, and depth by region: forgetting, rewiring, hierarchy alignment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy import stats

from harness.measures import (
    PROBE_KINDS,
    ProbeKind,
    describe,
    name_auroc,
)
from harness.plot import (
    FAINT,
    WIDTH,
    draw_steps,
    draw_task_steps,
    figure_style,
)
from harness.reporting.columns import (
    TASK,
    write_title,
)
from harness.reporting.comparison import (
    choose_measure,
    task_measures,
)
from harness.reporting.figures.panels import (
    ALPHA,
    COLUMNS,
    Line,
    are_measured,
    draw_curves,
    draw_legend,
    make_panels,
    mark_zero,
    share_limits,
)
from harness.runs import name_of_subject

FLOOR = "one more refit of step 0, 95 %"
BESIDE = ("r2_change", "confidence_change")
"""Changes that stand beside every distance: a loss of signal moves distances too."""


def draw_forgetting(lines: Sequence[Line], probes: Sequence[str]) -> Figure:
    """Draw accuracy on the task beside forgetting on every probe, over steps.

    The first row shows the head's accuracy beside the first kind of probe; every other kind that any run has
    adds a row, the second with the task's probe. If a run has several tasks, each has a panel.
    """
    first, *others = (kind for kind in PROBE_KINDS if kind.in_tables)
    measured = {
        kind: [probe for probe in probes if are_measured(lines, _delta(lines, probe, kind))]
        for kind in others
    }
    rows = {first: list(probes)} | {kind: found for kind, found in measured.items() if found}
    runs = [run for line in lines for run in line.runs]
    several = any(len(run.tasks) > 1 for run in runs)
    tasks = task_measures(runs) if several else [(TASK, choose_measure(runs))]
    # beside each row of changes: the task's head, then the probes that are shown on it
    own = [("task/{}/{}", "head")]
    own += [(f"probe/{{}}/{kind.prefix}{{}}", kind.title) for kind in PROBE_KINDS if kind.on_task]
    with figure_style():
        n_own = len(tasks)
        figure, axes = make_panels(len(rows), n_own + len(probes), 2.5)
        deltas = []
        for index, (kind, found) in enumerate(rows.items()):
            for ax, (task, main) in zip(axes[index], tasks, strict=False):
                if index >= len(own):
                    ax.set_axis_off()
                    continue
                pattern, scored_by = own[index]
                title = f"{write_title(f'task/{task}/{main}')}, {scored_by}"
                _draw_panel(ax, lines, pattern.format(task, main), title)
                ax.set_ylim(0, 1.02)
            for ax, probe in zip(axes[index, n_own:], probes, strict=True):
                if probe in found:
                    title = f"{kind.symbol} {probe}"
                    deltas.append(_draw_panel(ax, lines, _delta(lines, probe, kind), title))
                else:
                    ax.set_axis_off()
        mark_zero(deltas)
        share_limits(deltas)
        draw_legend(figure, lines)
    return figure


def _delta(lines: Sequence[Line], probe: str, kind: ProbeKind) -> str:
    """Metric of the change of a probe's score: of AUROC for multi-label tasks."""
    name, of_auroc = (f"forgetting/{probe}/{one}" for one in (kind.delta, name_auroc(kind.delta)))
    return of_auroc if are_measured(lines, of_auroc) else name


def draw_rewiring(lines: Sequence[Line], places: Sequence[str], measure: str = "wasserstein") -> Figure:
    """Draw excess rewiring over steps: the whole brain, and a small panel for every place.

    Below the whole brain are its ΔR² and Δconfidence: where they fall, distances grow by noise alone. Points
    are filled where the verdict is rewired, and crosses where the backbone is collapsed.

    Parameters
    ----------
    lines : sequence of Line
    places : sequence of str
        Names of ROIs, in panel order.
    measure : str
        A measure with a noise floor.
    """
    with figure_style():
        n_rows = max(3, math.ceil(len(places) / COLUMNS))
        layout = ConstrainedLayoutEngine(wspace=0.02, hspace=0.02)
        figure = Figure(figsize=(WIDTH, 0.5 + 1.65 * n_rows), layout=layout)
        grid = figure.add_gridspec(n_rows, COLUMNS + 2)
        whole = figure.add_subplot(grid[:2, :2])
        beside = {figure.add_subplot(grid[2, column]): name for column, name in enumerate(BESIDE)}
        axes = [
            figure.add_subplot(grid[index // COLUMNS, 2 + index % COLUMNS]) for index in range(len(places))
        ]
        for ax, place in zip([whole, *axes], ["all", *places], strict=True):
            name = f"rewiring/{place}/{measure}"
            title = f"Whole brain: {describe(f'{name}_excess').title}" if place == "all" else place
            _draw_panel(ax, lines, f"{name}_excess", title, judged=place)
            for line in lines:
                floor = _floor_ends(line, name)
                if floor is not None:
                    _draw_floor(ax, line, *floor)
        for ax, change in beside.items():
            name = f"rewiring/all/{change}"
            _draw_panel(ax, lines, name, describe(name).heading)
            ax.set_xlabel("")
            ax.margins(y=0.2)
        mark_zero([whole, *axes, *beside])
        share_limits([whole, *axes])
        for index, ax in enumerate(axes):
            ax.tick_params(labelleft=index % COLUMNS == 0)
            ax.set_xlabel("")
        points = []
        if any(len(line.rewired(place)) for line in lines for place in ("all", *places)):
            points = [_point("rewired"), _point("any other verdict", "none")]
        draw_legend(figure, lines, [*points, *_collapse_mark(lines), _floor_patch()])
    return figure


def find_alignment(lines: Sequence[Line]) -> list[str]:
    """Measures of hierarchy alignment to draw: ρ over regions, or else over voxels, and the slope.

    Empty if no line has any, as without known ranks.
    """
    over_rois, over_voxels, slope = (
        f"alignment/all/{name}" for name in ("hierarchy_rois", "hierarchy", "slope")
    )
    first = over_rois if are_measured(lines, over_rois) else over_voxels
    return [metric for metric in (first, slope) if are_measured(lines, metric)]


def draw_alignment(lines: Sequence[Line]) -> Figure:
    """Draw hierarchy alignment over steps, with the spread of step 0's refits, and brain R².

    Points are filled where p < .05, for single subjects. Without known ranks, only R² is drawn.
    """
    hierarchy = find_alignment(lines)
    with figure_style():
        figure, axes = make_panels(1, 1 + len(hierarchy), 2.9)
        for ax, metric in zip(axes[0], hierarchy, strict=False):
            p = f"{metric}_p"
            _draw_panel(ax, lines, metric, write_title(metric), p=p if are_measured(lines, p) else None)
            for line in lines:
                centre, sd = line.curve(f"{metric}_null_mean"), line.curve(f"{metric}_null_sd")
                if len(sd):
                    n_fits = 1 + line.runs[0].config.mapping.floor_refits
                    margin = stats.t.ppf(0.975, n_fits - 1) * math.sqrt(1 + 1 / n_fits)
                    middle, spread = float(centre["mean"].iloc[0]), float(sd["mean"].iloc[0])
                    reach = float(margin) * spread
                    _draw_floor(ax, line, middle - reach, middle + reach)
            low, high = describe(metric).low, describe(metric).high
            ends = ax.get_ylim()
            ax.set_ylim(max(ends[0], 1.06 * low), min(ends[1], 1.06 * high))
        mark_zero(list(axes[0, : len(hierarchy)]))
        r2, ax = "brain/all/r2", axes[0, -1]
        _draw_panel(ax, lines, r2, f"{write_title(r2)}, held-out stimuli")
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
        points = [_point(f"p < {ALPHA:g}"), _point(f"p ≥ {ALPHA:g}", "none")]
        tested = any(are_measured(lines, f"{metric}_p") for metric in hierarchy)
        draw_legend(figure, lines, [*(points if tested else []), *([_floor_patch()] if hierarchy else [])])
    return figure


def draw_depths(lines: Sequence[Line], places: Sequence[str]) -> Figure:
    """Draw the expected depth of every place at step 0 and at the last snapshot, a panel per line.

    The bar between the two is strong if the last snapshot's verdict is rewired; without verdicts, all are.
    """
    with figure_style():
        n_columns = min(max(len(lines), 2), COLUMNS)
        n_rows = math.ceil(len(lines) / n_columns)
        figure, axes = make_panels(n_rows, n_columns, 0.9 + 0.2 * len(places))
        heights = np.arange(len(places))[::-1]
        for index, ax in enumerate(axes.flat):
            if index >= len(lines):
                ax.set_axis_off()
                continue
            line = lines[index]
            curves = [line.curve(f"selectors/{place}/expected_depth")["mean"] for place in places]
            verdicts = [line.rewired(place) for place in places]
            judged = any(len(one) for one in verdicts) or any(run.collapsed for run in line.runs)
            for height, curve, rewired in zip(heights, curves, verdicts, strict=True):
                if len(curve):
                    strong = bool(rewired.iloc[-1]) if len(rewired) else not judged
                    ends = [curve.iloc[0], curve.iloc[-1]]
                    ax.plot(
                        ends,
                        [height, height],
                        color=line.colour,
                        alpha=1.0 if strong else 0.3,
                        linewidth=2.4 if strong else 1.2,
                        zorder=1,
                    )
                    ax.plot(ends[0], height, "o", color=line.colour, markerfacecolor="white", markersize=6)
                    ax.plot(ends[1], height, "o", color=line.colour, markersize=6)
            ax.set_title(line.title)
            ax.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(places) - 0.4))
            ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
            ax.set_xlabel("expected depth: 0 first layer, 1 last")
            ax.set_yticks(heights, places if index % n_columns == 0 else [""] * len(places))
            ax.grid(axis="x")
        bars = []
        if any(len(line.rewired(place)) for line in lines for place in places):
            bars = [
                Line2D([], [], color=FAINT, linewidth=2.4, label="verdict: rewired"),
                Line2D([], [], color=FAINT, alpha=0.4, linewidth=1.2, label="any other"),
            ]
        draw_legend(figure, [], [_point("step 0", "none"), _point("last snapshot"), *bars])
    return figure


def _floor_ends(line: Line, metric: str) -> tuple[float, float] | None:
    """Range of the excess of one more refit of step 0, 95 %; with several subjects, their average."""
    names = [name_of_subject(metric, label) for label in line.subjects] or [metric]
    ends = []
    for name in names:
        excess = line.curve(f"{name}_excess")["mean"]
        if len(excess):
            low, high = (line.curve(f"{name}_excess_{end}")["mean"] for end in ("low", "high"))
            # it belongs to step 0; the voxels that count differ a little between snapshots
            ends.append((float((excess - high).iloc[-1]), float((excess - low).iloc[-1])))
    if not ends:
        return None
    lowest, highest = np.mean(ends, axis=0)
    return float(lowest), float(highest)


def _draw_panel(
    ax: Axes,
    lines: Sequence[Line],
    metric: str,
    title: str,
    *,
    judged: str | None = None,
    p: str | None = None,
) -> Axes:
    """Draw a metric of every line over optimizer steps; see `draw_curves`."""
    draw_curves(ax, lines, metric, title, judged=judged, p=p)
    ax.set_xlabel("optimizer step")
    ends = sorted({step for line in lines for run in line.runs for step in run.task_ends})
    if ends:
        draw_task_steps(ax, ends)
    else:
        draw_steps(ax, sorted({step for line in lines for step in line.steps}))
    return ax


def _draw_floor(ax: Axes, line: Line, low: float, high: float) -> None:
    ax.axhspan(low, high, color=line.colour, alpha=0.11, linewidth=0, zorder=0)


def _point(label: str, fill: Literal["full", "none"] = "full") -> Line2D:
    return Line2D([], [], color=FAINT, marker="o", linestyle="", fillstyle=fill, label=label)


def _collapse_mark(lines: Sequence[Line]) -> list[Line2D]:
    """Legend of the crosses, if there are any."""
    if not any(line.collapsed().any() for line in lines):
        return []
    return [Line2D([], [], color=FAINT, marker="X", linestyle="", fillstyle="none", label="collapsed")]


def _floor_patch() -> Patch:
    return Patch(color=FAINT, alpha=0.16, linewidth=0, label=FLOOR)
