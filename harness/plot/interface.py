"""Figures of the Python interface: ``harness.plot.layers(mapping, brain)`` and its like."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from harness.brains import Brain
from harness.mappings import Mapping
from harness.measures import N_CLUSTERS
from harness.plot.brain_maps import draw_brain
from harness.plot.cluster_maps import (
    draw_clusters,
    label_voxels,
)
from harness.plot.flatmap import (
    draw_layer_legend,
    layer_colours,
)
from harness.plot.layer_maps import (
    COLOUR_MAP,
    choose_limit,
    draw_shift_bar,
    measure_shift,
)
from harness.plot.style import figure_style
from harness.plot.voxel_maps import (
    draw_values,
    draw_voxels,
)
from harness.storage import InputError

HEIGHT = 4.2  # of a map, inches


def layers(mapping: Mapping, brain: Brain, *, title: str = "Layer that voxels read") -> Figure:
    """Map the layer that every voxel reads.

    Hue is the most selected layer, blue (first) to red (last); brightness is confidence, from the entropy of
    the distribution over layers (Yang et al. 2024, arXiv:2312.01280).

    Parameters
    ----------
    mapping : Mapping
        From `harness.fit`.
    brain : Brain
        Drawn on its surface or, without one, as a scatter of its coordinates in mm.
    title : str

    Returns
    -------
    Figure
        Of matplotlib; ``figure.savefig("layers.png")`` writes it.

    Raises
    ------
    InputError
        If mapping and brain have different numbers of voxels.

    Examples
    --------
    >>> harness.plot.layers(mapping, brain).savefig("layers.png")
    """
    _check(len(mapping.layer), brain)
    with figure_style():
        figure, (ax, side) = _start(title, brain)
        draw_voxels(ax, brain, layer_colours(mapping.layer))
        draw_layer_legend(side, mapping.layers)
    return figure


def shift(
    mapping_a: Mapping,
    mapping_b: Mapping,
    brain: Brain,
    *,
    limit: float | int | None = None,
    title: str = "Depth shift",
) -> Figure:
    """Map how much deeper every voxel reads in `mapping_b` than in `mapping_a`.

    Two fits of one network differ too: draw the shift between refits beside it.

    Parameters
    ----------
    mapping_a, mapping_b : Mapping
        Of the same voxels.
    brain : Brain
    limit : float, optional
        Shift at the ends of the colour map, in shares of the depth (0 to 1); by default 99 % of the voxels
        lie within.
    title : str

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        If mappings and brain have different numbers of voxels.

    Examples
    --------
    >>> harness.plot.shift(before, after, brain).savefig("shift.png")
    """
    for mapping in (mapping_a, mapping_b):
        _check(len(mapping.layer), brain)
    found = measure_shift([mapping_a], mapping_b)
    limit = choose_limit([found]) if limit is None else float(limit)
    with figure_style():
        figure, (ax, side) = _start(title, brain)
        scale = draw_values(ax, brain, found.end, COLOUR_MAP, (-limit, limit), names=False)
        draw_shift_bar(side, scale, limit)
    return figure


def values(
    values: Any,
    brain: Brain,
    *,
    label: str = "",
    title: str = "",
    limits: tuple[float | int, float | int] | None = None,
    colour_map: str = "viridis",
) -> Figure:
    """Map any number per voxel, such as ``mapping.r2`` or a column of `harness.compare`.

    Parameters
    ----------
    values : array [n_voxels]
        NaN: grey.
    brain : Brain
    label : str
        Of the colour bar, with the unit.
    title : str
    limits : (low, high), optional
        Values at the ends of the colour map; by default the 1st and 99th percentile.
    colour_map : str
        Name in matplotlib; "RdBu_r" for values with a sign.

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        If there is not one value per voxel.

    Examples
    --------
    >>> harness.plot.values(mapping.r2, brain, label="R² of held-out stimuli", limits=(0, 1))
    """
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (brain.n_voxels,):
        raise InputError(f"values: found shape {array.shape}, expected one value per voxel, {brain.n_voxels}")
    with figure_style():
        figure, (ax, side) = _start(title, brain)
        scale = draw_values(ax, brain, array, colour_map, limits)
        bar = figure.colorbar(scale, cax=side)
        bar.outline.set_visible(False)
        bar.set_label(label, fontsize=8)
        bar.ax.tick_params(labelsize=7, length=2)
    return figure


def clusters(
    mapping: Mapping,
    brain: Brain,
    *,
    n_clusters: int = N_CLUSTERS,
    seed: int = 0,
    title: str = "Voxels that read alike",
) -> Figure:
    """Map clusters of voxels with similar channel weights, and the composition of every region.

    Parameters
    ----------
    mapping : Mapping
        Of a family with channel weights: not "layer_ridge".
    brain : Brain
    n_clusters : int
    seed : int
        Of k-means.
    title : str

    Returns
    -------
    Figure
        Voxels that are not predicted (R² of held-out stimuli at most 0) are grey.

    Raises
    ------
    InputError
        If the mapping has no channel weights, no voxel is predicted, or numbers of voxels differ.

    Examples
    --------
    >>> harness.plot.clusters(mapping, brain, n_clusters=6)
    """
    _check(len(mapping.layer), brain)
    if mapping.weights is None:
        raise InputError(f"mapping: found the family {mapping.family}, expected one with channel weights")
    (labels,) = label_voxels([mapping], n_clusters, seed)
    if (labels < 0).all():
        raise InputError("mapping: no voxel is predicted (R² above 0), expected one or more")
    ranked = sorted(brain.rois, key=lambda roi: np.inf if roi.rank is None else roi.rank)
    return draw_clusters(brain, ranked, labels, title)


def brain(brain: Brain) -> Figure:
    """Map the regions of a brain, and its noise ceiling where it is known.

    Parameters
    ----------
    brain : Brain

    Returns
    -------
    Figure

    Examples
    --------
    >>> harness.plot.brain(harness.load_brain("simulated")).savefig("brain.png")
    """
    return draw_brain(brain)


def _check(n_voxels: int, brain: Brain) -> None:
    if n_voxels != brain.n_voxels:
        raise InputError(
            f"mapping: found {n_voxels} voxels, expected {brain.n_voxels}, as brain {brain.name} has"
        )


def _start(title: str, brain: Brain) -> tuple[Figure, Any]:
    """A figure with axes for a map and, beside it, for its legend."""
    width = 5.6 if brain.surface is not None else 4.6
    # a legend's label is wider than its axes
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, rect=(0, 0, 0.96, 1))
    figure = Figure(figsize=(width, HEIGHT), layout=layout)
    axes = figure.subplots(1, 2, width_ratios=(1, 0.05))
    figure.suptitle(title, x=0.02, ha="left", fontweight="bold", fontsize=10)
    return figure, axes
