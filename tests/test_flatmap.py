"""Flat maps: hand-computed colours, and positions on the sheet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from drawn import draw_on
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import rgb_to_hsv

from harness.brains.brain import Surface
from harness.plot.flatmap import (
    draw_flatmap_colours,
    draw_layer_legend,
    layer_colours,
)


@pytest.fixture
def ax() -> Iterator[Axes]:
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def two_sheets() -> Surface:
    """Make two squares of 40 mm, 200 mm apart; each has two areas (left and right half) of one voxel."""
    grid = np.stack(np.meshgrid(np.arange(0.0, 41, 2), np.arange(0.0, 41, 2)), axis=-1).reshape(-1, 2)
    corner = (np.arange(20)[:, None] * 21 + np.arange(20)).ravel()
    lower, upper = ((corner, corner + 1, corner + 22), (corner, corner + 22, corner + 21))
    faces = np.concatenate([np.stack(lower, axis=1), np.stack(upper, axis=1)])
    points = np.concatenate([grid, grid + np.array([240.0, 30.0])]).astype(np.float32)
    area = np.tile((grid[:, 0] > 19).astype(np.int64), 2)
    wanted = np.array([[10.0, 20], [30, 20], [250, 50], [270, 50]])
    vertex = np.linalg.norm(points[:, None] - wanted, axis=-1).argmin(axis=0)
    return Surface(
        points,
        np.concatenate([faces, faces + len(grid)]),
        np.full(len(points), 0.5, np.float32),
        vertex,
        area,
        ("early", "late"),
    )


def face_colours(ax: Axes) -> tuple[np.ndarray, np.ndarray]:
    """Return centres and RGB colours of all drawn faces."""
    meshes = [item for item in ax.collections if isinstance(item, PathCollection)]
    centres = [path.vertices[:3].mean(axis=0) for mesh in meshes for path in mesh.get_paths()]
    return np.array(centres), np.concatenate([mesh.get_facecolor()[:, :3] for mesh in meshes])


def test_areas_are_filled_with_their_voxels(ax: Axes) -> None:
    colours = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [np.nan] * 3])
    draw_flatmap_colours(ax, two_sheets(), colours)
    centres, drawn = face_colours(ax)
    # the second sheet stands 12 mm beside the first (40 mm wide), centres aligned
    for x, colour in ((10, [1, 0, 0]), (30, [0, 1, 0]), (62, [0, 0, 1])):
        inside = np.abs(centres[:, 0] - x) < 6
        assert inside.sum() > 20
        np.testing.assert_allclose(drawn[inside], np.tile(colour, (inside.sum(), 1)), atol=1e-6)
    missing = drawn[np.abs(centres[:, 0] - 82) < 6]
    assert len(missing) > 20
    np.testing.assert_allclose(missing, 0.55 + 0.35 * 0.5, atol=1e-6)  # the grey of the cortex
    assert abs(ax.get_xlim()[1] - 92) < 1
    np.testing.assert_allclose(ax.get_ylim(), (-20, 20), atol=0.5)


def test_borders_run_between_areas_and_names_lie_inside(ax: Axes) -> None:
    draw_on(ax, two_sheets(), np.arange(4.0))
    lines = [item for item in ax.collections if isinstance(item, LineCollection)]
    ends = np.concatenate([np.concatenate(item.get_segments()) for item in lines])
    assert len(ends) > 60
    assert (np.minimum(np.abs(ends[:, 0] - 19), np.abs(ends[:, 0] - 71)) < 1.5).all()
    texts = {(text.get_text(), text.get_position()[0] > 46): text.get_position() for text in ax.texts}
    for name, right, low, high in (
        ("early", False, 5, 14),
        ("late", False, 25, 35),
        ("early", True, 57, 66),
        ("late", True, 77, 87),
    ):
        assert low < texts[name, right][0] < high
    assert texts["L", False][0] < texts["R", True][0]


def test_values_become_colours_within_limits(ax: Axes) -> None:
    scale = draw_on(ax, two_sheets(), np.array([-5.0, 0.25, 0.5, 99]), limits=(0, 1), label="r", names=False)
    centres, drawn = face_colours(ax)
    for x, value in ((10, 0.0), (30, 0.25), (62, 0.5), (82, 1.0)):
        there = drawn[np.abs(centres[:, 0] - x) < 6]
        np.testing.assert_allclose(
            there, np.tile(plt.get_cmap("viridis")(value)[:3], (len(there), 1)), atol=1e-6
        )
    assert scale.get_clim() == (0, 1)
    assert len(ax.figure.axes) == 2
    assert ax.figure.axes[1].get_xlabel() == "r"
    assert not {text.get_text() for text in ax.texts} & {"early", "late"}


def test_nothing_finite_is_still_a_map(ax: Axes) -> None:
    draw_on(ax, two_sheets(), np.full(4, np.nan), label="r")
    assert np.ptp(face_colours(ax)[1]) < 1e-6


def test_a_surface_without_areas_shows_vertices(ax: Axes) -> None:
    bare = replace(two_sheets(), area=None, area_names=())
    draw_flatmap_colours(ax, bare, np.tile([[1.0, 0, 0]], (4, 1)))
    _, drawn = face_colours(ax)
    coloured = (drawn[:, 0] > drawn[:, 1] + 0.05).sum()
    assert 4 * 4 <= coloured <= 4 * 8  # the faces around each of the four vertices


def test_colours_with_nothing_between_are_not_blended(ax: Axes) -> None:
    points = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0, 2]], np.float32)
    faces = np.array([[0, 1, 2], [1, 2, 3], [2, 3, 4]])
    square = Surface(points, faces, np.full(5, 0.5, np.float32), np.arange(5))
    red, green, blue = np.eye(3)
    draw_flatmap_colours(ax, square, np.array([red, green, green, blue, red]), blended=False)
    # two corners of three decide; if all differ, the first
    np.testing.assert_allclose(face_colours(ax)[1], [green, green, green], atol=1e-6)
    draw_flatmap_colours(ax, square, np.array([red, green, blue, blue, blue]), blended=False)
    np.testing.assert_allclose(face_colours(ax)[1][3:], [red, blue, blue], atol=1e-6)


def test_one_hemisphere_alone(ax: Axes) -> None:
    both = two_sheets()
    n = len(both.points) // 2
    left = (
        Surface(
            both.points[:n],
            both.faces[: len(both.faces) // 2],
            both.shade[:n],
            both.voxel_vertex[:2],
            both.area[:n],
            both.area_names,
        )
        if both.area is not None
        else both
    )
    draw_on(ax, left, np.array([0.0, 1.0]), label="r")
    assert ax.get_xlim()[1] < 42


def test_layer_colours_by_hand() -> None:
    even = np.full(4, 0.25)
    half = np.array([0.5, 0.5, 0, 0])  # e = 1/2: 1 − 1/8 is above 0.8, so full brightness
    most = np.array([0.1, 0.1, 0.1, 0.7])
    entropy = -(3 * 0.1 * np.log(0.1) + 0.7 * np.log(0.7)) / np.log(4)
    colours = layer_colours(np.stack([np.array([1.0, 0, 0, 0]), even, half, most]))
    hue, _, brightness = rgb_to_hsv(colours).T
    np.testing.assert_allclose(brightness, [1, 0.5, 1, 0.5 + 0.5 * min(1, (1 - entropy**3) / 0.8)], atol=1e-6)
    np.testing.assert_allclose(hue, [0.7, 0.7, 0.7, 0.0], atol=1e-6)
    np.testing.assert_allclose(layer_colours(np.ones((2, 1))), np.tile(colours[0], (2, 1)), atol=1e-6)


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=5, max_size=5), min_size=1, max_size=5))
def test_layer_colours_are_colours(rows: list[list[float]]) -> None:
    layer = np.array(rows) + np.eye(5)[0] * 1e-3
    colours = layer_colours(layer / layer.sum(axis=1, keepdims=True))
    assert ((colours >= 0) & (colours <= 1)).all()


def test_legend_shows_every_layer(ax: Axes) -> None:
    draw_layer_legend(ax, ("one", "two", "three"))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two", "three"]
    shown = ax.images[0].get_array()
    np.testing.assert_allclose(shown[:, -1], layer_colours(np.eye(3)), atol=1e-6)
    np.testing.assert_allclose(rgb_to_hsv(shown[:, 0])[:, 2], 0.5, atol=1e-6)
