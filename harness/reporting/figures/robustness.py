"""Figures of distribution shifts: accuracy over steps, and effective robustness on logit axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from scipy.special import expit, logit

from harness.measures import apply_line, fit_line
from harness.plot import figure_style
from harness.reporting.figures.curves import draw_panel
from harness.reporting.figures.legends import (
    draw_legend,
    list_marks,
    mark_point,
)
from harness.reporting.figures.panels import (
    COLUMNS,
    Line,
    are_measured,
    keep_measured,
    label_lowest,
    make_panels,
)
from harness.reporting.robustness import Judged, measured_shifts

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)


def draw_shifts(lines: Sequence[Line]) -> Figure:
    """Draw the linear probe's accuracy under every shift over steps, and the corruption errors."""
    runs = [run for line in lines for run in line.runs]
    pairs = measured_shifts(runs)
    metrics = {f"shift/{task}/{shift}/accuracy": f"{task}, {shift}" for task, shift in pairs}
    metrics |= {
        f"shift/{task}/{shift}/corruption_error": f"{task}, mCE"
        for task, shift in pairs
        if shift == "corruptions"
    }
    metrics = {metric: title for metric, title in metrics.items() if are_measured(lines, metric)}
    with figure_style():
        n_columns = min(len(metrics), COLUMNS)
        figure, axes = make_panels(math.ceil(len(metrics) / n_columns), n_columns, 2.1)
        used = list(axes.flat)[: len(metrics)]
        for ax, (metric, title) in zip(used, metrics.items(), strict=True):
            draw_panel(ax, lines, metric, title)
            if metric.endswith("/accuracy"):
                ax.set_ylim(0, 1.02)
        for ax in list(axes.flat)[len(metrics) :]:
            ax.set_axis_off()
        label_lowest(used, "optimizer step")
        draw_legend(figure, keep_measured(lines, list(metrics)), list_marks(lines, list(metrics)))
    return figure


def draw_robustness(lines: Sequence[Line], judged: Sequence[Judged]) -> Figure:
    """Draw accuracy under shift over clean accuracy on logit axes, with the line of all trained models."""
    with figure_style():
        n_columns = max(2, min(len(judged), 3))
        figure, axes = make_panels(math.ceil(len(judged) / n_columns), n_columns, 3.2)
        for ax, one in zip(axes.flat, judged, strict=False):
            _draw_panel(ax, one)
        for ax in list(axes.flat)[len(judged) :]:
            ax.set_axis_off()
        draw_legend(figure, lines, [mark_point("after fine-tuning"), mark_point("before", "none")])
    return figure


def _draw_panel(ax: Axes, judged: Judged) -> None:
    names = {one.name: one for one in judged.found}
    points = [(model, names[model.name]) for model in judged.models if model.name in names]
    clean = np.array([one.clean[0] for _, one in points]).clip(0.005, 0.995)
    shifted = np.array([one.shifted for _, one in points]).clip(0.005, 0.995)
    ends = np.array([[one.expected + one.low, one.expected + one.high] for _, one in points]).clip(
        0.003, 0.997
    )
    # intervals far from every point go on beyond the edge
    least, most = min(clean.min(), shifted.min()), max(clean.max(), shifted.max())
    low = max(0.9 * min(least, ends.min()), 0.5 * least)
    high = min(1 - 0.8 * (1 - max(most, ends.max())), 1 - 0.5 * (1 - most))
    reach = np.linspace(logit(low), logit(high), 50)
    ax.plot(expit(reach), expit(reach), ":", color="#8a8a8a", linewidth=0.9)
    trained = np.array([not model.run.config.backbone.untrained for model, _ in points])
    if trained.sum() > 1:
        line = fit_line(logit(clean[trained])[:, None], logit(shifted[trained]))
        expected = [float(apply_line(line, np.array([x]))) for x in reach]
        ax.plot(expit(reach), expected, color="#444444", linewidth=1)
    for (model, _), x, y, interval in zip(points, clean, shifted, ends, strict=True):
        ax.plot([x, x], interval, color=model.line.colour, linewidth=1.1, alpha=0.6)
        face = model.line.colour if model.after else "white"
        ax.plot(x, y, model.line.marker, color=model.line.colour, markerfacecolor=face, markeredgewidth=1.1)
    ax.set_xscale("logit")
    ax.set_yscale("logit")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(FixedLocator([tick for tick in TICKS if low <= tick <= high] or [low, high]))
        axis.set_minor_locator(FixedLocator([]))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.set_title(f"{judged.task}, {judged.shift}")
    ax.set_xlabel("clean accuracy")
    ax.set_ylabel("accuracy under shift")
