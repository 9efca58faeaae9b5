"""Drift by the end of fine-tuning, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.measures import describe
from harness.plot import figure_style
from harness.reporting.figures.legends import (
    draw_legend,
    mark_band_of_seeds,
)
from harness.reporting.figures.panels import (
    Line,
    fade,
    make_panels,
    start_at_zero,
)

DRAWN = ("cka_unbiased", "weight_distance_relative", "grad_norm")
"""Measures of drift that are drawn, a panel each; for similarities 1 − the value, so that up is change."""


def draw_drift(lines: Sequence[Line]) -> Figure:
    """Draw how far each layer's representation and weights are from step 0 at the end, and its gradients.

    Layers run from input to output; every network spans the same width. Only what any run has is drawn.
    """
    measures = find_measures(lines)
    with figure_style():
        figure, axes = make_panels(1, len(measures), 2.7)
        banded = False
        for ax, measure in zip(axes[0], measures, strict=True):
            for line in reversed(lines):
                banded |= _draw_line(ax, line, measure, fade(len(lines)))
            title = describe(f"drift/<layer>/{measure}").title
            ax.set_title(f"1 − {title}" if _is_similarity(measure) else title[:1].upper() + title[1:])
            ax.set_xlabel("layer: 0 first, 1 last")
            if measure == "grad_norm" and _have_values(ax):
                ax.set_yscale("log")  # the head's gradient is many times that of the layers
            else:
                start_at_zero(ax)
        draw_legend(figure, lines, mark_band_of_seeds() if banded else [])
    return figure


def find_measures(lines: Sequence[Line]) -> list[str]:
    """Measures of `DRAWN` that any line has."""
    return [measure for measure in DRAWN if any(find_layers(line, measure) for line in lines)]


def find_layers(line: Line, measure: str) -> list[str]:
    """Layers for which a line has a measure of drift, from input to output."""
    names = line.runs[0].rows["name"].unique()
    return [
        name.split("/")[1] for name in names if name.startswith("drift/") and name.endswith(f"/{measure}")
    ]


def _is_similarity(measure: str) -> bool:
    return measure.startswith("cka")


def _have_values(ax: Axes) -> bool:
    return any((np.asarray(drawn.get_ydata()) > 0).any() for drawn in ax.lines)


def _draw_line(ax: Axes, line: Line, measure: str, strength: float) -> bool:
    """Draw a line's last snapshot, with a band of one standard deviation over seeds; whether it has one."""
    curves = [line.curve(f"drift/{layer}/{measure}") for layer in find_layers(line, measure)]
    ends: Float[np.ndarray, "n_layers 2"] = np.array(
        [(curve["mean"].iloc[-1], curve["sd"].iloc[-1]) for curve in curves]
    )
    if not len(ends):
        return False
    mean, sd = ends.T
    mean = 1 - mean if _is_similarity(measure) else mean
    place = np.linspace(0, 1, len(mean))
    ax.plot(place, mean, linestyle=line.dash, color=line.colour, marker=line.marker)
    if sd.any():
        alpha = 0.2 * strength
        ax.fill_between(place, mean - sd, mean + sd, color=line.colour, alpha=alpha, linewidth=0)
    return bool(sd.any())
