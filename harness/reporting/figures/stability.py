"""The stability gap: scores of earlier tasks around the step at which the next task starts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.plot import (
    FAINT,
    figure_style,
)
from harness.reporting.figures.legends import draw_legend, mark_point
from harness.reporting.figures.panels import (
    Line,
    fade,
    label_lowest,
    make_panels,
    share_limits,
)


def list_evaluated(line: Line) -> dict[str, str]:
    """Metric of every task of a line that was evaluated around boundaries, by task; empty without any."""
    names = [
        (task, f"stability/{task}/{measure}")
        for task in line.runs[0].tasks
        for measure in ("accuracy", "auroc")
    ]
    return {task: metric for task, metric in names if len(line.curve(metric))}


def draw_gaps(lines: Sequence[Line]) -> Figure:
    """Draw a panel for every start of a task (columns) and earlier task (rows), with steps from the start.

    Lines whose sequences differ share no panel: each has panels of its own, one sequence below the other.
    """
    sequences = list(dict.fromkeys(line.runs[0].tasks for line in lines))
    rows = [(tasks, earlier) for tasks in sequences for earlier in range(len(tasks) - 1)]
    n_columns = max(len(tasks) - 1 for tasks in sequences)
    with figure_style():
        # at least three columns, so that few panels are not stretched over the page
        figure, axes = make_panels(len(rows), max(n_columns, 3), 1.75)
        drawn = []
        for row, (tasks, earlier) in zip(axes, rows, strict=True):
            own = [line for line in lines if line.runs[0].tasks == tasks]
            for start, ax in enumerate(row, 1):
                if earlier < start < len(tasks) and _draw_gap(ax, own, tasks, earlier, start):
                    drawn.append(ax)
                else:
                    ax.set_axis_off()
        share_limits(drawn)
        for ax in drawn:
            # room for whole crosses at the edge
            low, high = ax.get_ylim()
            ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        label_lowest(drawn, "steps on the new task")
        draw_legend(figure, lines, [mark_point("lowest after the start", "full", "x")])
    return figure


def _draw_gap(ax: Axes, lines: Sequence[Line], tasks: Sequence[str], earlier: int, start: int) -> bool:
    """Draw one task's scores around the start of another; return whether there are any."""
    found = False
    for line in lines:
        metric = list_evaluated(line).get(tasks[earlier])
        boundary = dict(enumerate(line.runs[0].task_ends)).get(start - 1)
        if metric is None or boundary is None:
            continue
        window = line.runs[0].config.stability.window
        curve = line.curve(metric).loc[boundary - window : boundary + window]
        steps = np.asarray(curve.index, dtype=float) - boundary
        mean, sd = curve["mean"].to_numpy(), curve["sd"].to_numpy()
        ax.plot(steps, mean, linestyle=line.dash, color=line.colour, marker=line.marker, markersize=2.5)
        if sd.any():
            alpha = 0.2 * fade(len(lines))
            ax.fill_between(steps, mean - sd, mean + sd, color=line.colour, alpha=alpha, linewidth=0)
        if (after := np.flatnonzero(steps > 0)).size:
            lowest = after[mean[after].argmin()]
            ax.plot(steps[lowest], mean[lowest], "x", color=line.colour, markersize=7, markeredgewidth=1.6)
        found = True
    ax.axvline(0, color=FAINT, linestyle=":", linewidth=0.8, zorder=1)
    measure = "AUROC" if found and metric_is_auroc(lines, tasks[earlier]) else "accuracy"
    ax.set_title(f"{tasks[earlier]} {measure}, {tasks[start]} starts", fontsize=8.5)
    return found


def metric_is_auroc(lines: Sequence[Line], task: str) -> bool:
    """Whether a task is scored by AUROC in any line."""
    return any(list_evaluated(line).get(task, "").endswith("auroc") for line in lines)
