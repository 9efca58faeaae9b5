"""Maps of clusters: colours by number, shares by region, numbers matched between fits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_study import make_brain, make_mapping, without_surface
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from harness.measures.channels import cluster_channels
from harness.plot.cluster_maps import (
    cluster_colours,
    draw_cluster_maps,
    draw_clusters,
    label_voxels,
)
from harness.plot.scatter import NO_VALUE

BRAIN = make_brain(n_rois=2, n_voxels_per_roi=16)
# V1: 4 voxels of cluster 0 and 12 of 1; V2: 8 of cluster 2, 8 unassigned
CLUSTERS = np.repeat([0, 1, 2, -1], [4, 12, 8, 8])


def bars(figure: Figure) -> list[tuple[float, float, float, tuple[float, ...]]]:
    """Return row, left edge, width and colour of every bar."""
    return [
        (round(bar.get_y() + 0.4), bar.get_x(), bar.get_width(), tuple(bar.get_facecolor()[:3]))
        for bar in figure.axes[-1].patches
        if isinstance(bar, Rectangle)
    ]


def test_colours_can_be_told_apart_and_go_with_numbers() -> None:
    colours = cluster_colours(20)
    apart = np.linalg.norm(colours[:, None] - colours, axis=2) + np.eye(20)
    assert apart.min() > 0.1
    assert np.diagonal(apart, 1).min() > 0.25
    assert apart[0, 19] > 0.35  # not a circle
    assert ((colours >= 0) & (colours <= 1)).all()
    assert cluster_colours(1).shape == (1, 3)


def test_bars_are_shares_of_a_region() -> None:
    found = bars(draw_clusters(BRAIN, BRAIN.rois, CLUSTERS, "made"))
    colours = cluster_colours(3)
    assert [(row, left, width) for row, left, width, _ in found] == [
        (0, 0, 0.25),
        (0, 0.25, 0.75),
        (1, 0, 0.5),
        (1, 0.5, 0.5),
    ]
    np.testing.assert_allclose([bar[3] for bar in found[:3]], colours)
    assert np.ptp(found[3][3]) == 0  # grey


def test_voxels_are_drawn_in_their_cluster_s_colour() -> None:
    figure = draw_clusters(BRAIN, BRAIN.rois, CLUSTERS, "made")
    meshes = [item for item in figure.axes[0].collections if isinstance(item, PathCollection)]
    drawn = np.concatenate([mesh.get_facecolor()[:, :3] for mesh in meshes])
    # a face has one cluster's colour, never a blend; inside, there are two faces per voxel
    colours = cluster_colours(3)
    alike = np.abs(drawn[:, None] - colours).max(axis=2) < 1e-6
    np.testing.assert_array_equal(
        np.flatnonzero(~alike.any(axis=1)), np.flatnonzero(np.ptp(drawn, axis=1) < 1e-6)
    )
    assert (alike.sum(axis=0) >= [3, 12, 6]).all()
    assert figure.axes[1].get_yticklabels()[0].get_text() == "V1"


def test_without_a_surface_voxels_are_drawn_at_their_places() -> None:
    figure = draw_clusters(without_surface(BRAIN), BRAIN.rois, CLUSTERS, "made")
    views = figure.axes[0].child_axes
    drawn = np.concatenate([view.collections[0].get_facecolor()[:, :3] for view in views])
    known = np.concatenate([cluster_colours(3), [NO_VALUE]])
    assert (np.abs(drawn[:, None] - known).max(axis=2).min(axis=1) < 1e-6).all()
    assert len(bars(figure)) == 4


def test_a_number_has_one_colour_in_all_maps() -> None:
    assert BRAIN.surface is not None
    one, two = np.zeros(32, np.int64), np.full(32, 1)
    figure = draw_cluster_maps(BRAIN, {"before": one, "after": two, "both": np.where(one, 1, 0)})
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["before", "after", "both"]
    faces = [
        np.concatenate([i.get_facecolor()[:, :3] for i in ax.collections if isinstance(i, PathCollection)])
        for ax in figure.axes
    ]
    np.testing.assert_allclose(faces[0].max(axis=0), cluster_colours(2)[0], atol=1e-6)
    np.testing.assert_allclose(faces[1].max(axis=0), cluster_colours(2)[1], atol=1e-6)
    np.testing.assert_array_equal(faces[0], faces[2])


def test_fits_are_matched_to_the_first_and_unpredicted_voxels_left_out() -> None:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, BRAIN.n_voxels)
    first = replace(
        make_mapping(BRAIN, 0.5, 0.0, seed=0),
        weights=(np.eye(3)[kind] + 0.01 * rng.normal(size=(32, 3))).astype(np.float32),
        r2=np.full(32, 0.3, np.float32),
    )
    # a different basis with the kinds in another order; three voxels are not predicted
    r2 = np.full(32, 0.3, np.float32)
    r2[[1, 5, 9]] = -0.1, 0.0, -2.0
    assert first.weights is not None
    second = replace(first, weights=first.weights[:, [2, 0, 1]] * [[-1, 1, 5]], r2=r2)
    second = replace(second, weights=second.weights.astype(np.float32))
    labels = label_voxels([first, second], 3, seed=0)
    np.testing.assert_array_equal(labels[0], cluster_channels(first.weights, 3, seed=0))
    predicted = r2 > 0
    np.testing.assert_array_equal(labels[1][predicted], labels[0][predicted])
    assert (labels[1][~predicted] == -1).all()


@pytest.mark.parametrize("n_rois", [1, 6])
def test_one_region_and_many(n_rois: int) -> None:
    brain = make_brain(n_rois)
    figure = draw_clusters(brain, brain.rois, np.zeros(brain.n_voxels, np.int64), "made")
    assert len(bars(figure)) == n_rois
