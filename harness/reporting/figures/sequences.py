"""The matrix R of sequences of tasks: accuracy on every task when each has ended."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from harness.measures import (
    CATALOGUE,
    SCORINGS,
)
from harness.plot import (
    INK,
    WIDTH,
    figure_style,
)
from harness.reporting.columns import (
    SHOWN_SCORINGS,
    describe_column,
    describe_metric,
)
from harness.reporting.comparison import (
    range_of_images,
    task_measures,
)
from harness.reporting.figures.panels import Line


def read_matrix(line: Line, scoring: str) -> Float[np.ndarray, "n_rows n_tasks"] | None:
    """Accuracy (or AUROC) on every task at step 0 and at the end of each task, mean over seeds.

    None if the line's runs are not sequences, or do not score all tasks in this way.
    """
    run = line.runs[0]
    steps = [0, *run.task_ends]
    columns = []
    for name, measure in task_measures([run]):
        metric = f"task/{name}/{measure}" if scoring == "head" else f"probe/{name}/{scoring}_{measure}"
        columns.append(line.curve(metric)["mean"].reindex(steps).to_numpy())
    matrix = np.stack(columns, axis=1)
    return None if len(steps) < 2 or np.isnan(matrix).any() else matrix


def choose_scorings(lines: Sequence[Line]) -> list[str]:
    """Ways to score a task for which any line has a matrix."""
    return [
        scoring for scoring in SHOWN_SCORINGS if any(read_matrix(line, scoring) is not None for line in lines)
    ]


def draw_matrices(lines: Sequence[Line]) -> Figure:
    """Draw a row of matrices for every line that is a sequence, one for each way to score a task.

    A matrix has a row for step 0 and one for the end of every task, where the task that ended is framed.
    """
    lines = [line for line in lines if len(line.runs[0].tasks) > 1]
    scorings = choose_scorings(lines)
    most = max(len(line.runs[0].tasks) for line in lines)
    with figure_style():
        height = 1.1 + 0.34 * (most + 1)
        layout = ConstrainedLayoutEngine(wspace=0.05, hspace=0.06)
        figure = Figure(figsize=(WIDTH, height * len(lines)), layout=layout)
        # at least three columns, so that small matrices are not stretched over the page
        n_columns = max(len(scorings), 3)
        axes = figure.subplots(len(lines), n_columns, squeeze=False)
        for row, line in zip(axes, lines, strict=True):
            for ax, scoring in zip(row, [*scorings, *[None] * (n_columns - len(scorings))], strict=True):
                matrix = None if scoring is None else read_matrix(line, scoring)
                if scoring is None or matrix is None:
                    ax.set_axis_off()
                    continue
                counts = [range_of_images(line.runs, f"task/{name}/accuracy") for name in line.runs[0].tasks]
                _draw_matrix(ax, matrix, line.runs[0].tasks, counts)
                task, measure = task_measures([line.runs[0]])[0]
                title = describe_metric(f"task/{task}/{measure}").title
                ax.set_title(f"{line.label}: {SCORINGS[scoring]}, {title}", fontsize=8.5)
                ax.set_xlabel(_summarise(line, scoring), fontsize=8, color=INK, loc="left")
    return figure


def _draw_matrix(
    ax: Axes, matrix: Float[np.ndarray, "n_rows n_tasks"], tasks: Sequence[str], counts: Sequence[str]
) -> None:
    """Draw a matrix; `counts` are numbers of test images, empty where unknown."""
    ax.imshow(matrix, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    for (row, column), value in np.ndenumerate(matrix):
        # ink is illegible on dark blue
        colour = "white" if value > 0.65 else INK
        ax.text(column, row, f"{value:.3f}", ha="center", va="center", color=colour, fontsize=8)
        if row == column + 1:
            frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=1.6)
            ax.add_patch(frame)
    names = [f"{task}\nn = {n}" if n else task for task, n in zip(tasks, counts, strict=True)]
    ax.set_xticks(range(len(tasks)), names)
    ax.set_yticks(range(len(matrix)), ["step 0", *(f"after {task}" for task in tasks)])
    ax.xaxis.set_ticks_position("top")
    ax.tick_params(length=0)
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _summarise(line: Line, scoring: str) -> str:
    """The headline measures of the whole sequence, on two lines; the report's table has all."""
    found = []
    for measure in CATALOGUE:
        if measure.stage == "sequence" and measure.headline != "never":
            metric = measure.pattern.replace("<scoring>", scoring)
            curve = line.curve(metric)["mean"]
            if len(curve):
                column = describe_column(metric, "end")
                found.append(f"{column.heading} {column.write(float(curve.iloc[-1]))}")
    return ",  ".join(found[:2]) + "\n" + ",  ".join(found[2:])
