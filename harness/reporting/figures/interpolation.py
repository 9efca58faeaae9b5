"""WiSE-FT: curves between a run's pretrained and fine-tuned weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from harness.measures import split_name
from harness.plot import figure_style
from harness.reporting.comparison import choose_interpolated
from harness.reporting.figures.legends import (
    draw_legend,
    list_marks,
)
from harness.reporting.figures.panels import (
    COLUMNS,
    Line,
    draw_curves,
    make_panels,
    mark_zero,
    share_limits,
    start_at_zero,
)


def draw_interpolation(lines: Sequence[Line]) -> Figure:
    """Draw every measure over α, a panel each; `lines` are those with such a curve, at least one."""
    metrics = choose_interpolated([run for line in lines for run in line.runs])
    with figure_style():
        figure, axes = make_panels(math.ceil(len(metrics) / COLUMNS), COLUMNS, 2.3)
        deltas = []
        for ax, (metric, title) in zip(axes.flat, metrics.items(), strict=False):
            stage = split_name(metric).stage
            draw_curves(ax, lines, metric, title)
            ax.set_xlim(-4, 104)
            ax.set_xticks([0, 50, 100], ["0", "0.5", "1"])
            ax.set_xlabel("α: 0 pretrained, 1 fine-tuned")
            if stage == "task":
                ax.set_ylim(0, 1.02)
            elif stage == "forgetting":
                deltas.append(ax)
            elif stage == "rewiring":
                mark_zero([ax])
            else:
                start_at_zero(ax)
        for ax in axes.flat[len(metrics) :]:
            ax.set_axis_off()
        if deltas:
            mark_zero(deltas)
            share_limits(deltas)
        draw_legend(figure, lines, list_marks(lines, list(metrics)))
    return figure
