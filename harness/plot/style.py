"""The style of all figures: type, lines, colours of backbones, and export to pages and files."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.storage import write_atomically

WIDTH = 10.8  # of a figure, inches: the page's column width
DECADES_TO_FIRST = 0.5  # on an axis of steps, from 0 to the first step
INK, FAINT, GRID = "#222222", "#6b6b6b", "#e6e6e6"
# pages use the reader's fonts; matplotlib's is wider than any of these, so nothing overflows
PAGE_TYPE = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial"

_SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.color": INK,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.labelsize": 8.5,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": "#b5b5b5",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": "#b5b5b5",
    "ytick.color": "#b5b5b5",
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1.7,
    "lines.markersize": 4.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "palimpsest",
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Apply the report's style to figures made inside."""
    with mpl.rc_context(_SETTINGS):
        yield


def choose_colours(backbones: Mapping[str, bool]) -> dict[str, str]:
    """Choose a fixed colour for every backbone from seaborn's colour-blind palette.

    Parameters
    ----------
    backbones : mapping of name to whether it was pretrained
        Untrained controls are grey; the others are coloured in the order of their names.
    """
    import seaborn as sns  # takes a second to import

    palette = [mpl.colors.to_hex(colour) for colour in sns.color_palette("colorblind")]
    grey = palette.pop(7)
    trained = sorted(name for name, pretrained in backbones.items() if pretrained)
    controls = sorted(set(backbones) - set(trained))
    colours = {name: palette[place % len(palette)] for place, name in enumerate(trained)}
    shades = [grey, *(mpl.colors.to_hex(shade) for shade in sns.color_palette("Greys_d", len(controls)))]
    return colours | dict(zip(controls, shades, strict=False))


def draw_steps(ax: Axes, steps: Sequence[int]) -> None:
    """Set up an axis of optimizer steps: linear from 0 to the first step, then logarithmic."""
    first = min((step for step in steps if step > 0), default=1)
    last = max(*steps, first)
    # matplotlib's linscale is 0.9 of a decade
    ax.set_xscale("symlog", linthresh=first, linscale=DECADES_TO_FIRST * 0.9)
    ax.set_xlim(-0.14 * first, first * (last / first) ** 1.02 * 1.05)
    ax.set_xticks(choose_ticks(steps), [f"{step:,}" for step in choose_ticks(steps)])
    ax.set_xticks([], minor=True)


def draw_task_steps(ax: Axes, ends: Sequence[int]) -> None:
    """Set up a linear axis of optimizer steps for a sequence of tasks, with dotted lines between tasks.

    `ends` are the steps at which tasks end, in order. A logarithmic axis would squeeze the later tasks.
    """
    last = ends[-1]
    ax.set_xlim(-0.03 * last, 1.03 * last)
    apart = math.ceil(len(ends) / 5)
    ticks = [0, *ends[::-1][::apart][::-1]]
    ax.set_xticks(ticks, [f"{step:,}" for step in ticks])
    for step in ends[:-1]:
        ax.axvline(step, color=FAINT, linewidth=0.8, linestyle=":", zorder=0)


def choose_ticks(steps: Sequence[int], most: int = 6) -> list[int]:
    """Choose the labelled steps of `draw_steps`: both ends, and others that fit between."""
    ordered = sorted(set(steps))
    first = next((step for step in ordered if step > 0), 1)
    place = [DECADES_TO_FIRST * min(step / first, 1) + math.log10(max(step / first, 1)) for step in ordered]
    apart = (place[-1] - place[0]) / most
    chosen = [0]
    for index in range(1, len(ordered) - 1):
        if place[index] - place[chosen[-1]] >= apart and place[-1] - place[index] >= apart:
            chosen.append(index)
    return [ordered[index] for index in dict.fromkeys([*chosen, len(ordered) - 1])]


def embed_svg(figure: Figure) -> str:
    """Return a figure as a data URL of vector graphics (SVG)."""
    buffer = io.BytesIO()
    with figure_style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().decode().replace("'DejaVu Sans'", PAGE_TYPE)
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


def embed_png(figure: Figure, dots_per_inch: int = 160) -> str:
    """Return a figure as a data URL of pixels (PNG)."""
    buffer = io.BytesIO()
    with figure_style():
        figure.savefig(buffer, format="png", dpi=dots_per_inch)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def save_png(figure: Figure, path: Path, dots_per_inch: int = 160) -> None:
    """Write a figure as a PNG file on white, whole or not at all."""
    with figure_style(), write_atomically(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dots_per_inch, transparent=False, facecolor="white")
