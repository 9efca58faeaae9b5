"""Curves over steps: forgetting, rewiring, hierarchy alignment."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from scipy import stats

from harness.measures import (
    PROBE_KINDS,
    ProbeKind,
    describe,
    name_auroc,
)
from harness.plot import (
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
    range_of_images,
    task_measures,
)
from harness.reporting.figures.legends import (
    draw_legend,
    list_marks,
    mark_floor,
    mark_point,
)
from harness.reporting.figures.panels import (
    ALPHA,
    COLUMNS,
    Line,
    are_measured,
    draw_curves,
    fade,
    keep_measured,
    label_lowest,
    make_panels,
    mark_zero,
    share_limits,
    start_at_zero,
)
from harness.runs import name_of_subject

BESIDE = ("r2_change", "confidence_change")
"""Changes that stand beside every distance: a loss of signal moves distances too."""


def draw_forgetting(lines: Sequence[Line], probes: Sequence[str]) -> Figure:
    """Draw accuracy on the task beside forgetting on every probe, over steps.

    The first row shows the head's accuracy beside the first kind of probe; every other kind that any run has
    adds a row, the second with the task's probe. If a run has several tasks, each has a panel. Below stands
    how many test images there are.
    """
    first, *others = (kind for kind in PROBE_KINDS if kind.in_tables)
    measured = {
        kind: [probe for probe in probes if are_measured(lines, _delta(lines, probe, kind))]
        for kind in (first, *others)
    }
    rows = {kind: found for kind, found in measured.items() if found or kind is first}
    shown = [probe for probe in probes if any(probe in found for found in rows.values())]
    runs = [run for line in lines for run in line.runs]
    several = any(len(run.tasks) > 1 for run in runs)
    tasks = task_measures(runs) if several else [(TASK, choose_measure(runs))]
    # beside each row of changes: the task's head, then the probes that are shown on it
    own = [("task/{}/{}", "head")]
    own += [(f"probe/{{}}/{kind.prefix}{{}}", kind.title) for kind in PROBE_KINDS if kind.on_task]
    with figure_style():
        n_own = len(tasks)
        figure, axes = make_panels(len(rows), n_own + len(shown), 2.5)
        deltas, drawn = [], []
        for index, (kind, found) in enumerate(rows.items()):
            for ax, (task, main) in zip(axes[index], tasks, strict=False):
                pattern, scored_by = own[index] if index < len(own) else ("", "")
                metric = pattern.format(task, main)
                if not metric or not are_measured(lines, metric):
                    ax.set_axis_off()
                    continue
                title = f"{write_title(f'task/{task}/{main}')}, {scored_by}"
                draw_panel(ax, lines, metric, title)
                _count_images(ax, lines, metric)
                ax.set_ylim(0, 1.02)
                drawn.append(metric)
            for ax, probe in zip(axes[index, n_own:], shown, strict=True):
                if probe in found:
                    metric = _delta(lines, probe, kind)
                    deltas.append(draw_panel(ax, lines, metric, f"{kind.symbol} {probe}"))
                    _count_images(ax, lines, metric)
                    drawn.append(metric)
                else:
                    ax.set_axis_off()
        mark_zero(deltas)
        if deltas:
            share_limits(deltas)
        draw_legend(figure, keep_measured(lines, drawn), list_marks(lines, drawn))
    return figure


def _count_images(ax: Axes, lines: Sequence[Line], metric: str) -> None:
    """Write below a panel how many test images are behind a score or its change, if that is known."""
    count = range_of_images([run for line in lines for run in line.runs], metric)
    if count:
        ax.set_xlabel(f"{ax.get_xlabel()}\nn = {count} test images")


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
    name = f"rewiring/{{}}/{measure}"
    places = [place for place in places if are_measured(lines, f"{name.format(place)}_excess")]
    changes = [f"rewiring/all/{change}" for change in BESIDE]
    changes = [change for change in changes if are_measured(lines, change)]
    with figure_style():
        n_columns = min(max(len(places), 1), COLUMNS)
        n_rows = max(3, math.ceil(len(places) / n_columns))
        layout = ConstrainedLayoutEngine(wspace=0.02, hspace=0.02)
        figure = Figure(figsize=(WIDTH, 0.5 + 1.65 * n_rows), layout=layout)
        grid = figure.add_gridspec(n_rows, (n_columns if places else 0) + 2)
        whole = figure.add_subplot(grid[: 2 if changes else 3, :2])
        beside = {figure.add_subplot(grid[2, column]): change for column, change in enumerate(changes)}
        axes = [
            figure.add_subplot(grid[index // n_columns, 2 + index % n_columns])
            for index in range(len(places))
        ]
        floors: list[float] = []
        for ax, place in zip([whole, *axes], ["all", *places], strict=True):
            own = name.format(place)
            title = f"Whole brain: {describe(f'{own}_excess').title}" if place == "all" else place
            draw_panel(ax, lines, f"{own}_excess", title, judged=place)
            curves = ax.get_ylim()
            for line in lines:
                floor = floor_of_excess(line, own)
                if floor is not None:
                    _draw_floor(ax, line, *floor, fade(len(lines)))
                    floors += floor
            ax.set_ylim(curves)
        for ax, change in beside.items():
            draw_panel(ax, lines, change, describe(change).heading)
            ax.margins(y=0.2)
        mark_zero([whole, *axes, *beside])
        share_limits([whole, *axes])
        low, high = whole.get_ylim()
        # floors as far as they do not dwarf the curves
        reach = reach_of_floors(max(-low, high), floors)
        for ax in (whole, *axes):
            ax.set_ylim(
                min(low, max(min(floors, default=0), -reach)), max(high, min(max(floors, default=0), reach))
            )
        for index, ax in enumerate(axes):
            ax.tick_params(labelleft=index % n_columns == 0)
        label_lowest([whole, *beside, *axes], "optimizer step")
        points = []
        if any(len(line.rewired(place)) for line in lines for place in ("all", *places)):
            points = [mark_point("rewired"), mark_point("any other verdict", "none")]
        drawn = [*(f"{name.format(place)}_excess" for place in ("all", *places)), *changes]
        marks = list_marks(lines, drawn)
        draw_legend(
            figure, keep_measured(lines, drawn), [*points, *marks, *([mark_floor()] if floors else [])]
        )
    return figure


def reach_of_floors(largest: float, floors: Sequence[float]) -> float:
    """How far from 0 an axis shows floors: half as far again as `largest` values, or their median end."""
    return max(1.5 * largest, float(np.median(np.abs(floors)))) if len(floors) else 0.0


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
        floors = 0
        for ax, metric in zip(axes[0], hierarchy, strict=False):
            low, high = describe(metric).low, describe(metric).high
            p = f"{metric}_p"
            draw_panel(ax, lines, metric, write_title(metric), p=p if are_measured(lines, p) else None)
            for line in lines:
                centre, sd = line.curve(f"{metric}_null_mean"), line.curve(f"{metric}_null_sd")
                if len(sd):
                    n_fits = 1 + line.runs[0].config.mapping.floor_refits
                    margin = stats.t.ppf(0.975, n_fits - 1) * math.sqrt(1 + 1 / n_fits)
                    middle, spread = float(centre["mean"].iloc[0]), float(sd["mean"].iloc[0])
                    reach = float(margin) * spread
                    ends = max(middle - reach, low), min(middle + reach, high)
                    _draw_floor(ax, line, *ends, fade(len(lines)))
                    floors += 1
            shown = ax.get_ylim()
            # room for half a point, and no ticks where no value can be
            ax.set_ylim(max(shown[0], low - 0.02), min(shown[1], high + 0.02))
        mark_zero(list(axes[0, : len(hierarchy)]))
        r2, ax = "brain/all/r2", axes[0, -1]
        draw_panel(ax, lines, r2, f"{write_title(r2)}, held-out stimuli")
        start_at_zero(ax)
        tested = any(are_measured(lines, f"{metric}_p") for metric in hierarchy)
        points = [mark_point(f"p < {ALPHA:g}"), mark_point(f"p ≥ {ALPHA:g}", "none")] if tested else []
        marks = list_marks(lines, [*hierarchy, r2])
        draw_legend(figure, lines, [*points, *marks, *([mark_floor()] if floors else [])])
    return figure


def floor_of_excess(line: Line, metric: str, over: str = "_excess") -> tuple[float, float] | None:
    """Range in which one more refit of step 0 falls, 95 %; with several subjects, their average.

    Of the excess, or with `over` "" of the measure itself. None without refits.
    """
    names = [name_of_subject(metric, label) for label in line.subjects] or [metric]
    ends = []
    for name in names:
        value = line.curve(f"{name}{over}")["mean"]
        low, high = (line.curve(f"{name}_excess_{end}")["mean"] for end in ("low", "high"))
        if len(value) and len(low) and len(high):
            # it belongs to step 0; the voxels that count differ a little between snapshots
            ends.append((float((value - high).iloc[-1]), float((value - low).iloc[-1])))
    if not ends:
        return None
    lowest, highest = np.mean(ends, axis=0)
    return float(lowest), float(highest)


def draw_panel(
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


def _draw_floor(ax: Axes, line: Line, low: float, high: float, strength: float) -> None:
    ax.axhspan(low, high, color=line.colour, alpha=0.11 * strength, linewidth=0, zorder=0)
