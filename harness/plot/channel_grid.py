"""What regions read in several networks, side by side: a row per region, a column per network."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.plot.projections import (
    RoiReading,
    choose_limits,
    colour_pictures,
)
from harness.plot.style import (
    FAINT,
    INK,
    WIDTH,
    figure_style,
)

MOST_NETWORKS = 6  # side by side in a figure
MOST_PICTURES = 6  # in a cell
# inches
_MARGIN, _NAMES, _GAP, _BETWEEN, _SCORE, _LINE = 0.05, 0.95, 0.04, 0.2, 0.26, 0.165
_SMALLEST, _LARGEST = 0.66, 1.0  # edge of a picture
_LETTER = 0.088  # of a bold label
_DASH = "–"


@dataclass(frozen=True)
class ChannelColumn:
    """One network in the figure.

    Attributes
    ----------
    label, colour : str
    images : float array [n_images, height, width, 3], 0 to 1
        As the network sees them.
    readings : dict of region to RoiReading
        Of these images; regions that the network was not mapped to are absent.
    scores : dict of region to (R², R² over the noise ceiling)
        Of held-out stimuli, mean over the region's voxels; None: unknown.
    """

    label: str
    colour: str
    images: Float[np.ndarray, "n_images _ _ 3"]
    readings: Mapping[str, RoiReading]
    scores: Mapping[str, tuple[float | None, float | None]]


def count_pictures(n_networks: int) -> int:
    """Choose how many images a cell shows, 2 to `MOST_PICTURES`, so that the networks fit side by side."""
    return int(np.clip(_column_width(n_networks) // (0.5 * (_SMALLEST + _LARGEST)), 2, MOST_PICTURES))


def _column_width(n_networks: int) -> float:
    """Width of a network's column without the gap to the next, inches."""
    side_by_side = math.ceil(n_networks / math.ceil(n_networks / MOST_NETWORKS))
    return (WIDTH - 2 * _MARGIN - _NAMES) / side_by_side - _BETWEEN


def draw_channel_grid(columns: Sequence[ChannelColumn], regions: Sequence[str]) -> list[Figure]:
    """Draw every region's pictures in every network under the images, with its R² below them.

    Pictures are those of `draw_readout`: layers mixed as the region reads them, in the three directions of
    channels with the region's largest weights. Every cell has its own directions and colour scale. The second
    number, in brackets, is R² over the noise ceiling.

    Parameters
    ----------
    columns : sequence of ChannelColumn
        With the same images; more than `MOST_NETWORKS` are spread over several figures.
    regions : sequence of str
        Names, from top to bottom.

    Returns
    -------
    list of Figure
        Each of the page's width.
    """
    n_figures = math.ceil(len(columns) / MOST_NETWORKS)
    each = math.ceil(len(columns) / n_figures)
    parts = [columns[start : start + each] for start in range(0, len(columns), each)]
    return [_draw_part(part, regions, _column_width(len(columns))) for part in parts]


def _draw_part(columns: Sequence[ChannelColumn], regions: Sequence[str], width: float) -> Figure:
    edge = min(width / len(columns[0].images), _LARGEST)
    labels = [textwrap.wrap(column.label, max(int(width / _LETTER), 8)) for column in columns]
    top = _MARGIN + _LINE * max(map(len, labels)) + 0.08
    row = edge + _SCORE
    height = top + edge + 0.12 + row * len(regions)
    with figure_style():
        figure = Figure(figsize=(WIDTH, height))
        ax = figure.add_axes((0, 0, 1, 1))  # one plane in inches, as in `draw_readout`
        ax.text(_MARGIN, height - top - edge / 2, "image", va="center", color=FAINT)
        for place, region in enumerate(regions):
            middle = height - top - edge - 0.12 - place * row - edge / 2
            name = "\n".join(textwrap.wrap(region, int(_NAMES / _LETTER)))
            ax.text(_MARGIN, middle, name, va="center", fontsize=9, fontweight="bold")
        for number, (column, label) in enumerate(zip(columns, labels, strict=True)):
            left = _MARGIN + _NAMES + number * (width + _BETWEEN)
            ax.text(
                left, height - _MARGIN, "\n".join(label),
                va="top", fontsize=9, fontweight="bold", color=column.colour, linespacing=1.3,
            )  # fmt: skip
            _show(ax, column.images, left, height - top, edge, "antialiased")
            for place, region in enumerate(regions):
                upper = height - top - edge - 0.12 - place * row
                reading = column.readings.get(region)
                if reading is None:
                    ax.text(left, upper - edge / 2, "not mapped", va="center", color=FAINT)
                    continue
                mixed = reading.projection.mixed
                pictures = colour_pictures(mixed, choose_limits([mixed]))
                _show(ax, pictures, left, upper, edge, "bicubic")
                _write_score(ax, column.scores.get(region, (None, None)), left, upper - edge)
        ax.set(xlim=(0, WIDTH), ylim=(0, height), aspect="auto")
        ax.axis("off")
    return figure


def _show(
    ax: Axes,
    pictures: Float[np.ndarray, "n_images _ _ 3"],
    left: float,
    upper: float,
    edge: float,
    interpolation: str,
) -> None:
    for place, picture in enumerate(pictures):
        start = left + place * edge
        extent = (start, start + edge - _GAP, upper - edge + _GAP, upper)
        ax.imshow(picture, extent=extent, interpolation=interpolation)


def _write_score(ax: Axes, score: tuple[float | None, float | None], left: float, upper: float) -> None:
    """Write R², and R² over the ceiling in brackets; faint where nothing is predicted."""
    r2, normalised = score
    text = f"R² {_DASH}" if r2 is None else f"R² {r2:.3f}"
    text += "" if normalised is None else f" ({normalised:.2f})"
    predicted = r2 is not None and r2 > 0
    ax.text(left, upper, text.replace("-", "−"), va="top", fontsize=8, color=INK if predicted else FAINT)
