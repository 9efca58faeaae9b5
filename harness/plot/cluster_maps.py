"""Clusters of voxels with similar channel weights: maps, and the composition of regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from harness.brains import (
    Brain,
    Roi,
)
from harness.mappings import Mapping
from harness.measures import (
    cluster_channels,
    match_clusters,
)
from harness.plot.style import (
    FAINT,
    WIDTH,
    figure_style,
)
from harness.plot.voxel_maps import draw_voxels

_LIGHTNESS = (0.85, 0.65, 0.45)  # in turn, so that neighbouring hues differ
_GREY = "#d9d9d9"


def label_voxels(fits: Sequence[Mapping], n_clusters: int, seed: int) -> list[Int[np.ndarray, " n_voxels"]]:
    """Cluster every fit's voxels, and number clusters by the first fit's that share most voxels.

    Voxels that a fit does not predict (R² of held-out stimuli at most 0) are −1.

    Parameters
    ----------
    fits : sequence of Mapping
        Of one brain, with weights.
    n_clusters : int
    seed : int
        Of k-means.
    """
    labels: list[Int[np.ndarray, " n_voxels"]] = []
    for fit in fits:
        assert fit.weights is not None
        found = cluster_channels(fit.weights, n_clusters, seed)
        labels.append(match_clusters(labels[0], found) if labels else found)
    return [np.where(fit.r2 > 0, found, -1) for fit, found in zip(fits, labels, strict=True)]


def cluster_colours(n_clusters: int) -> Float[np.ndarray, "n_clusters 3"]:
    """Return RGB of every cluster: hues in the order of the numbers, as neighbouring clusters read alike."""
    import seaborn as sns  # takes a second to import

    # part of the hue circle stays unused: the first and last cluster are least alike
    n_hues = round(n_clusters * 1.15) + 1
    palettes = [np.array(sns.husl_palette(n_hues, s=0.85, l=lightness)) for lightness in _LIGHTNESS]
    return np.stack([palettes[index % len(palettes)][index] for index in range(n_clusters)])


def draw_clusters(
    brain: Brain,
    rois: Sequence[Roi],
    clusters: Int[np.ndarray, " n_voxels"],
    title: str,
    followed: bool = False,
) -> Figure:
    """Draw the clusters of one fit: a map of the voxels, and the composition of every region.

    Parameters
    ----------
    brain : Brain
    rois : sequence of Roi
        In the order of the rows, from the top.
    clusters : int array [n_voxels]
        Numbers as of `harness.measures.channels.cluster_channels`; −1: grey.
    title : str
    followed : bool
        Whether the numbers are matched with those of step 0 (`label_voxels`).
    """
    colours = cluster_colours(int(clusters.max()) + 1)
    with figure_style():
        layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, wspace=0.04)
        height = max(4.6, 1.0 + 0.27 * len(rois))
        figure = Figure(figsize=(WIDTH, height), layout=layout)
        axes = figure.subplots(1, 2, width_ratios=(1.15, 1))
        draw_voxels(axes[0], brain, _paint(clusters, colours), blended=False)
        _draw_composition(axes[1], rois, clusters, colours)
        figure.suptitle(title, x=0.008, ha="left", fontsize=11, fontweight="bold")
        later = "; later clusters take the colour of the step-0 cluster that shares most voxels"
        caption = (
            "A colour is a cluster of voxels with similar channel weights (k-means, then Ward’s method). "
            f"{'At step 0, similar' if followed else 'Similar'} hues read alike"
            f"{later if followed else ''}.\nGrey: voxels that are not predicted (R² of held-out stimuli at "
            "most 0)."
        )
        figure.supxlabel(caption, x=0.008, ha="left", fontsize=8.5, color=FAINT)
    return figure


def draw_cluster_maps(brain: Brain, maps: dict[str, Int[np.ndarray, " n_voxels"]]) -> Figure:
    """Draw clusters of several fits side by side, by title; a number has one colour in all."""
    n_clusters = max(int(clusters.max()) for clusters in maps.values()) + 1
    colours = cluster_colours(n_clusters)
    with figure_style():
        # without layout engine, which would draw everything twice
        figure = Figure(figsize=(WIDTH, 2.9 if brain.surface is not None else 4.2))
        axes = figure.subplots(1, len(maps), squeeze=False)[0]
        figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.92, wspace=0.04)
        for place, (ax, (title, clusters)) in enumerate(zip(axes, maps.items(), strict=True)):
            draw_voxels(ax, brain, _paint(clusters, colours), place == 0, blended=False)
            ax.set_title(title)
    return figure


def _paint(
    clusters: Int[np.ndarray, " n_voxels"], colours: Float[np.ndarray, "n_clusters 3"]
) -> Float[np.ndarray, "n_voxels 3"]:
    """Return a colour per voxel; NaN without a cluster."""
    return np.concatenate([colours, np.full((1, 3), np.nan)])[clusters]


def _draw_composition(
    ax: Axes,
    rois: Sequence[Roi],
    clusters: Int[np.ndarray, " n_voxels"],
    colours: Float[np.ndarray, "n_clusters 3"],
) -> None:
    """Draw a bar per region: the share of its voxels in each cluster, in order."""
    for row, roi in enumerate(rois):
        start = 0.0
        for index in [*range(len(colours)), -1]:
            share = float((clusters[roi.voxels] == index).mean())
            if share:
                colour = colours[index] if index >= 0 else _GREY
                ax.barh(row, share, left=start, height=0.8, color=colour, edgecolor="white", linewidth=0.6)
                start += share
    ax.set_yticks(range(len(rois)), [roi.name for roi in rois])
    ax.set(xlim=(0, 1), ylim=(len(rois) - 0.4, -0.6), xlabel="share of the region’s voxels")
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    ax.grid(False)
    ax.spines[["left", "bottom"]].set_visible(False)
