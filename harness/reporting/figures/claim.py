"""Figure of a preregistered test: how brain-like backbones are against what they forget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox, BboxBase

from harness.measures import Claim
from harness.plot import (
    FAINT,
    INK,
    WIDTH,
    figure_style,
)

MARKERS = "osD^vPX*"
# of labels around their points: offset in points, and alignment
PLACES = (
    (6, 0, "left", "center"), (-6, 0, "right", "center"), (0, 6, "center", "bottom"),
    (0, -6, "center", "top"), (5, 5, "left", "bottom"), (-5, 5, "right", "bottom"),
    (5, -5, "left", "top"), (-5, -5, "right", "top"),
)  # fmt: skip


def draw_claim(claim: Claim, level: float) -> Figure:
    """Draw H against F(a), one named point per backbone, coloured and marked by size class."""
    with figure_style():
        figure = Figure(figsize=(0.62 * WIDTH, 0.46 * WIDTH), layout="constrained")
        ax = figure.add_subplot()
        classes = list(dict.fromkeys(sorted(backbone.size_class for backbone in claim.backbones)))
        palette = sns.color_palette("colorblind", len(classes)).as_hex()
        for place, size_class in enumerate(classes):
            members = [one for one in claim.backbones if one.size_class == size_class]
            ax.plot(
                [one.score for one in members],
                [one.forgetting for one in members],
                linestyle="none",
                marker=MARKERS[place % len(MARKERS)],
                markersize=6,
                color=palette[place],
                markeredgecolor="white",
                markeredgewidth=0.6,
                label=f"size class {size_class}",
                zorder=3,
            )
        ax.axhline(0, color=FAINT, linewidth=0.8, linestyle=":", zorder=1)
        ax.margins(0.12)
        ax.set_xlabel("H: how brain-like before fine-tuning")
        ax.set_ylabel(f"F({level:g}): Δ at matched learning, negative = forgetting")
        ax.set_title(
            f"ρ = {claim.test.rho:+.2f}"
            + (f", within size classes {claim.test.within:+.2f}" if len(classes) > 1 else "")
            + (f", p = {claim.test.p:.3f}" if claim.test.p >= 0.001 else ", p < .001")
        )
        if len(classes) > 1:
            ax.legend(loc="best")
        _label(figure, ax, [(one.name, one.score, one.forgetting) for one in claim.backbones])
    return figure


def _label(figure: Figure, ax: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write names beside points, each where it covers least of other names and points."""
    figure.draw_without_rendering()  # so that places on the page are known
    dots = ax.transData.transform([(x, y) for _, x, y in points])
    radius = 4 * figure.dpi / 72
    taken = [Bbox([dot - radius, dot + radius]) for dot in dots]
    for name, x, y in points:
        options: list[tuple[float, Annotation]] = []
        for right, up, across, along in PLACES:
            text = ax.annotate(
                name, (x, y), (right, up), textcoords="offset points", ha=across, va=along,
                fontsize=6.5, color=INK, annotation_clip=False,
            )  # fmt: skip
            box = text.get_window_extent()
            covered = sum(_overlap(box, other) for other in taken)
            inside = _overlap(box, ax.bbox)
            options.append((covered + 2 * (box.width * box.height - inside), text))
        best = int(np.argmin([cost for cost, _ in options]))
        for place, (_, text) in enumerate(options):
            if place != best:
                text.remove()
        taken.append(options[best][1].get_window_extent())


def _overlap(one: BboxBase, other: BboxBase) -> float:
    shared = Bbox.intersection(one, other)
    return 0.0 if shared is None else float(shared.width * shared.height)
