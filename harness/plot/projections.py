"""Figures of what regions read of images, as RGB pictures: a row per region, or per layer of one region."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from harness.measures import (
    N_COLOURS,
    Projection,
)
from harness.plot.flatmap import layer_colours
from harness.plot.style import (
    FAINT,
    WIDTH,
    figure_style,
)

PERCENTILE = 98.0  # of a direction's absolute values: the end of its colour
MOST_IMAGES = 12  # in a figure
# inches
_MARGIN, _NAMES, _LAYERS, _TOP, _BOTTOM, _GAP, _LARGEST = 0.1, 1.25, 0.95, 0.45, 0.1, 0.05, 1.5
_LINE = 0.168  # of the caption
_CAPTION_WIDTH = 172  # characters
_COLOURS = ("#d62728", "#2ca02c", "#1f3fd6")  # of type: pure green would be too light


@dataclass(frozen=True)
class RoiReading:
    """One region in the figures.

    Attributes
    ----------
    name : str
    projection : Projection
        Of all images of the figure.
    layer : float array [n_layers]
        Mean layer distribution ω̄ of its voxels.
    scale : float or None
        Mean share of the global token, which pictures cannot show; None: unknown.
    share : float array [rank]
        Share of the weights' sum of squares in each direction.
    """

    name: str
    projection: Projection
    layer: Float[np.ndarray, " n_layers"]
    scale: float | None
    share: Float[np.ndarray, " rank"]


@dataclass(frozen=True)
class _Row:
    name: str
    note: str
    shares: tuple[float, ...]  # of the directions
    bars: Float[np.ndarray, " n_layers"]
    marked: int | None  # layer of the row, if it is a single one
    pictures: Float[np.ndarray, "n_images height width 3"]


def choose_limits(pictures: Sequence[Float[np.ndarray, "n_images _ _ 3"]]) -> Float[np.ndarray, "3"]:
    """Choose the ends of the colours: per direction, the 98th percentile of absolute values."""
    values = np.concatenate([picture.reshape(-1, N_COLOURS) for picture in pictures])
    return np.percentile(np.abs(values), PERCENTILE, axis=0)


def colour_pictures(
    pictures: Float[np.ndarray, "*shape 3"], limits: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "*shape 3"]:
    """Convert to RGB: 0.5 (grey) for 0, and 0 and 1 from ∓ the limits on; 0.5 everywhere for a limit of 0."""
    share = np.divide(pictures, limits, out=np.zeros(pictures.shape), where=limits > 0)
    return 0.5 + 0.5 * share.clip(-1, 1)


def draw_readout(
    images: Float[np.ndarray, "n_images _ _ 3"], readings: Sequence[RoiReading], title: str
) -> Figure:
    """Draw every region's picture, mixed over layers, in a row under the images.

    Colours share a scale within a row. Every row has its own directions.

    Parameters
    ----------
    images : float array [n_images, height, width, 3], 0 to 1
        As the network sees them.
    readings : sequence of RoiReading
    title : str
    """
    caption = (
        "Red, green and blue: the three directions of channels with the region’s largest weights "
        "(numbers: share of the weights), at every place of the image. Grey: the average token of the "
        "training stimuli. More of a direction is brighter and raises the region’s mean response. Layers "
        "are mixed as the region reads them (bars, first to last). Every row has its own colour scale and"
        " directions: red in one row is unrelated to red in another. Smoothed between tokens (bicubic). "
        "The global token has no place and is not drawn; its share is given."
    )
    return _draw_grid(images, [_mixed_row(reading) for reading in readings], title, caption)


def draw_layers(
    images: Float[np.ndarray, "n_images _ _ 3"], reading: RoiReading, layers: tuple[str, ...], title: str
) -> Figure:
    """Draw one region's mixed picture, then a picture per layer, the last on top.

    Layers share a colour scale; the mixed picture has its own. Parameters as for `draw_readout`.
    """
    limits = choose_limits(reading.projection.layers)
    rows = [_mixed_row(reading)]
    for index in reversed(range(len(layers))):
        picture = colour_pictures(reading.projection.layers[index], limits)
        note = f"{reading.layer[index]:.0%} of the reading"
        rows.append(_Row(layers[index], note, (), reading.layer, index, picture))
    caption = (
        "First row: layers mixed as the region reads them (bars, first to last). Below: every layer "
        "alone, even those it hardly reads. Red, green and blue: the three directions of channels with "
        "the region’s largest weights, the same in all rows (numbers: share of the weights). Grey: the "
        "average token of the training stimuli. More of a direction is brighter and raises the region’s "
        "mean response. Layers share one colour scale; the mixture has its own. Smoothed between tokens "
        "(bicubic). The global token has no place and is not drawn; its share is given."
    )
    return _draw_grid(images, rows, title, caption)


def _mixed_row(reading: RoiReading) -> _Row:
    mixed = reading.projection.mixed
    note = "" if reading.scale is None else f"global token {reading.scale:.0%}"
    picture = colour_pictures(mixed, choose_limits([mixed]))
    return _Row(reading.name, note, tuple(reading.share), reading.layer, None, picture)


def _draw_grid(
    images: Float[np.ndarray, "n_images _ _ 3"], rows: Sequence[_Row], title: str, caption: str
) -> Figure:
    edge = min((WIDTH - 2 * _MARGIN - _NAMES - _LAYERS) / len(images), _LARGEST)
    lines = textwrap.wrap(caption, _CAPTION_WIDTH)
    height = _TOP + (len(rows) + 1) * edge + _LINE * (len(lines) + 1) + _BOTTOM
    highest = max(float(row.bars.max()) for row in rows)
    with figure_style():
        figure = Figure(figsize=(WIDTH, height))
        # one plane in inches: a hundred axes would take seconds
        ax = figure.add_axes((0, 0, 1, 1))
        for line, pictures in enumerate((images, *(row.pictures for row in rows))):
            for column, picture in enumerate(pictures):
                left = _MARGIN + _NAMES + _LAYERS + column * edge
                top = height - _TOP - line * edge
                extent = (left, left + edge - _GAP, top - edge + _GAP, top)
                ax.imshow(picture, extent=extent, interpolation="bicubic" if line else None)
        for index, row in enumerate(rows, 1):
            top = height - _TOP - index * edge
            _draw_label(ax, row, top - edge / 2)
            _draw_bars(ax, row, highest, top - 0.8 * edge, 0.6 * edge)
        ax.text(_MARGIN, height - 0.12, title, va="top", fontsize=11, fontweight="bold")
        ax.text(_MARGIN, _BOTTOM, "\n".join(lines), va="bottom", color=FAINT, linespacing=1.4)
        ax.set(xlim=(0, WIDTH), ylim=(0, height), aspect="auto")
        ax.axis("off")
    return figure


def _draw_label(ax: Axes, row: _Row, middle: float) -> None:
    ax.text(_MARGIN, middle + 0.17, row.name, va="center", fontsize=9, fontweight="bold")
    ax.text(_MARGIN, middle - 0.02, row.note, va="center", color=FAINT)
    for index, (share, colour) in enumerate(zip(row.shares, _COLOURS, strict=False)):
        text = ax.text(_MARGIN + 0.36 * index, middle - 0.2, f"{share:.0%}", va="center", fontsize=8)
        text.set(color=colour, fontweight="bold")


def _draw_bars(ax: Axes, row: _Row, highest: float, bottom: float, tall: float) -> None:
    """Draw the layer distribution; in a single layer's row, the others are faint."""
    left, width = _MARGIN + _NAMES, (_LAYERS - 0.2) / len(row.bars)
    for index, colour in enumerate(layer_colours(np.eye(len(row.bars)))):
        size = (0.88 * width, tall * row.bars[index] / highest)
        alpha = 1.0 if row.marked in (None, index) else 0.2
        ax.add_patch(Rectangle((left + index * width, bottom), *size, color=colour, alpha=alpha, linewidth=0))
    ax.plot([left, left + _LAYERS - 0.2], [bottom, bottom], color=FAINT, linewidth=0.7)
