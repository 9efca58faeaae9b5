"""Voxels without a surface: available views, and positions."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from made_study import make_brain, make_mapping, without_surface
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import harness
from harness.plot.brain_maps import region_colours
from harness.plot.flatmap import layer_colours
from harness.plot.scatter import (
    NO_VALUE,
    choose_views,
    draw_scatter,
)
from harness.storage.errors import InputError

# a voxel at each corner of a box, 20 × 40 × 60 mm, half of them in each hemisphere
BOX = np.array([[x, y, z] for x in (-10, 10) for y in (0, 40) for z in (0, 60)], dtype=np.float32)
SIDES = np.where(BOX[:, 0] < 0, "L", "R")


def draw(coords: np.ndarray, sides: np.ndarray, colours: np.ndarray) -> list[Axes]:
    figure, ax = plt.subplots()
    draw_scatter(ax, coords, sides, colours)
    figure.canvas.draw()
    plt.close(figure)
    return ax.child_axes


def test_two_hemispheres_are_seen_from_their_sides_and_from_above() -> None:
    rows = choose_views(BOX, SIDES)
    assert [[view.title for view in row] for row in rows] == [
        ["left hemisphere", "right hemisphere"],
        ["from above"],
    ]
    left, right = rows[0]
    np.testing.assert_array_equal(left.voxels, SIDES == "L")
    assert left.mirrored and not right.mirrored


@pytest.mark.parametrize(("flat", "axes"), [(0, (1, 2)), (1, (0, 2)), (2, (0, 1))])
def test_a_flat_sheet_has_one_view(flat: int, axes: tuple[int, int]) -> None:
    coords = BOX.copy()
    coords[:, flat] = 3
    ((view,),) = choose_views(coords, SIDES)
    assert (view.across, view.up) == axes and view.voxels.all()


def test_one_hemisphere_has_two_views() -> None:
    (side,), (above,) = choose_views(BOX, np.full(8, "R"))
    assert (side.title, above.title) == ("right hemisphere", "from above")


def test_axes_are_millimetres_and_all_views_have_one_scale() -> None:
    views = draw(BOX, SIDES, np.zeros((8, 3)))
    assert [view.get_xlabel() for view in views] == ["y (mm)", "y (mm)", "x (mm)"]
    assert [view.get_ylabel() for view in views] == ["z (mm)", "", "y (mm)"]
    pixels = [abs(np.diff(view.transData.transform([[0, 0], [10, 10]]), axis=0))[0] for view in views]
    np.testing.assert_allclose(pixels, np.full((3, 2), pixels[0][0]), rtol=1e-5)
    low, high = sorted(views[2].get_xlim())
    assert low < -10 and high > 10
    # a left hemisphere seen from its side has its front on the left
    assert views[0].get_xlim()[0] > views[0].get_xlim()[1]
    assert views[1].get_xlim()[0] < views[1].get_xlim()[1]


def test_each_voxel_has_its_colour_at_its_place_and_the_nearest_is_on_top() -> None:
    colours = np.linspace(0.1, 0.9, 24).reshape(8, 3)
    colours[5] = np.nan
    for view, across, up in zip(draw(BOX, SIDES, colours), (1, 1, 0), (2, 2, 1), strict=True):
        (dots,) = view.collections
        places, drawn = np.asarray(dots.get_offsets()), dots.get_facecolor()[:, :3]
        for place, colour in zip(places, drawn, strict=True):
            there = (BOX[:, [across, up]] == place).all(axis=1)
            expected = np.where(np.isnan(colours), NO_VALUE, colours)[there]
            assert (np.abs(expected - colour).max(axis=1) < 1e-6).any()
    above = draw(BOX, SIDES, colours)[2].collections[0]
    order = [0, 2, 4, 6, 1, 3, 7]  # by height
    expected = np.concatenate([[NO_VALUE], colours[order]])
    np.testing.assert_allclose(above.get_facecolor()[:, :3], expected)


def test_one_voxel_can_be_drawn() -> None:
    (view,) = draw(np.zeros((1, 3), np.float32), np.array(["R"]), np.zeros((1, 3)))
    assert len(view.collections[0].get_offsets()) == 1


BRAIN = make_brain(n_rois=2, n_voxels_per_roi=16)
BEFORE, AFTER = make_mapping(BRAIN, 0.3, 0.0, seed=0), make_mapping(BRAIN, 0.6, 0.0, seed=1)


def titled(figure: Figure) -> str:
    return figure.get_suptitle()


@pytest.mark.parametrize("surface", [True, False])
def test_figures_of_the_interface(surface: bool) -> None:
    brain = BRAIN if surface else without_surface(BRAIN)
    layers = harness.plot.layers(BEFORE, brain, title="layers")
    assert titled(layers) == "layers"
    assert [label.get_text() for label in layers.axes[1].get_yticklabels()] == list(BEFORE.layers)
    shift = harness.plot.shift(BEFORE, AFTER, brain, limit=0.5)
    assert shift.axes[1].get_ylim() == (-0.5, 0.5)
    values = harness.plot.values(BEFORE.r2, brain, label="R²", limits=(0, 1))
    assert values.axes[1].get_ylabel() == "R²" and values.axes[1].get_ylim() == (0, 1)
    assert len(harness.plot.clusters(AFTER, brain, n_clusters=2).axes) == 2
    assert "Regions" in [ax.get_title("left") for ax in harness.plot.brain(brain).axes]
    for figure in (layers, shift, values):
        assert bool(figure.axes[0].child_axes) != surface
    if not surface:
        drawn = np.concatenate([v.collections[0].get_facecolor()[:, :3] for v in layers.axes[0].child_axes])
        known = layer_colours(BEFORE.layer)
        assert (np.abs(drawn[:, None] - known).max(axis=2).min(axis=1) < 1e-6).all()


def test_what_does_not_fit_a_brain_is_one_line() -> None:
    with pytest.raises(InputError, match=r"^values: found shape \(3,\), expected one value per voxel, 32"):
        harness.plot.values([1.0, 2.0, 3.0], BRAIN)
    other = make_brain(n_rois=1, n_voxels_per_roi=4)
    with pytest.raises(InputError, match=r"^mapping: found 32 voxels, expected 4"):
        harness.plot.layers(BEFORE, other)


def test_regions_have_colours_that_differ() -> None:
    for count in (1, 9, 30):
        colours = np.array(region_colours(count))
        assert colours.shape == (count, 3)
        apart = np.linalg.norm(colours[:, None] - colours, axis=2) + np.eye(count)
        assert apart.min() > 0.07
