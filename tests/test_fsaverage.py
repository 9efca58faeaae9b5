"""Splitting the sphere of fsaverage5 gives FreeSurfer's vertices, and voxels are drawn in place."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from nibabel.gifti.gifti import GiftiImage
from scipy.spatial import ConvexHull

from harness.brains.cortex import GAP
from harness.brains.fsaverage import (
    N_VERTICES,
    Fsaverage,
    load_fsaverage,
    split_faces,
)
from harness.storage.errors import InputError

# vertices of the seventh icosahedron, from FreeSurfer via MNE-Python 1.13
KNOWN = {
    10242: [-1.40, 1.02, 99.98],
    10243: [-0.86, 2.66, 99.96],
    40961: [2.80, 0.00, -99.96],
    40962: [-0.70, 0.51, 100.00],
    100000: [-66.54, 6.13, 74.40],
    131071: [-32.18, 12.07, 93.91],
    163841: [1.40, 0.00, -99.99],
}


@pytest.fixture(scope="module")
def cortex() -> Fsaverage:
    return load_fsaverage()


def read(name: str) -> list[np.ndarray]:
    package = importlib.util.find_spec("nilearn")
    assert package is not None
    assert package.submodule_search_locations
    folder = Path(package.submodule_search_locations[0]) / "datasets/data/fsaverage5"
    return [array.data for array in GiftiImage.from_filename(folder / name).darrays]


def join_faces(faces: np.ndarray) -> np.ndarray:
    """Undo `split_faces`: return the faces whose quarters are `faces`."""
    n_coarse = len(faces) // 4
    rest = faces[n_coarse:].reshape(-1, 3, 3)
    return np.stack([faces[:n_coarse, 0], rest[:, 2, 1], rest[:, 0, 2]], axis=1)


def test_a_face_is_split_in_order() -> None:
    faces, edges = split_faces(np.array([[0, 1, 2], [2, 1, 3]]), 4)
    # of the first face: between 0 and 2, 1 and 2, 0 and 1; of the second: 2 and 3, 1 and 3 (1 and 2 is known)
    assert edges.tolist() == [[0, 2], [1, 2], [0, 1], [2, 3], [1, 3]]
    assert faces.tolist() == [
        [0, 6, 4],
        [2, 5, 7],
        *([4, 5, 2], [6, 5, 4], [6, 1, 5]),
        *([7, 8, 3], [5, 8, 7], [5, 1, 8]),
    ]


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_icosahedron_split_five_times_is_fsaverage5(side: str) -> None:
    expected, triangles = read(f"sphere_{side}.gii.gz")
    faces = triangles.astype(np.int64)
    while len(faces) > 20:
        faces = join_faces(faces)
    assert sorted(np.unique(faces)) == list(range(12))
    points = expected[:12].astype(np.float64)
    for _ in range(5):
        faces, edges = split_faces(faces, len(points))
        middles = points[edges].mean(axis=1)
        points = np.concatenate([points, 100 * middles / np.linalg.norm(middles, axis=1, keepdims=True)])
    np.testing.assert_array_equal(faces, triangles)
    np.testing.assert_allclose(points, expected, atol=0.012)  # stored coordinates are rounded to 0.01 mm


def test_all_vertices_of_fsaverage_are_in_place(cortex: Fsaverage) -> None:
    left, right = cortex.sphere[:N_VERTICES], cortex.sphere[N_VERTICES:]
    assert len(right) == N_VERTICES == 10 * 4**7 + 2
    np.testing.assert_array_equal(left[:10242], read("sphere_left.gii.gz")[0])
    for vertex, place in KNOWN.items():
        np.testing.assert_allclose(left[vertex], place, atol=0.012)
    np.testing.assert_allclose(np.linalg.norm(left, axis=1), 100, atol=0.01)
    # both hemispheres have the same sphere, the right one shifted
    np.testing.assert_allclose(right - left, np.broadcast_to([200 + GAP, 0, 0], left.shape), atol=1e-4)
    np.testing.assert_array_equal(cortex.bounding_box, [[-100, -100, -100], [300 + GAP, 100, 100]])


def test_vertices_are_drawn_at_the_nearest_of_the_flat_map(cortex: Fsaverage) -> None:
    vertices = np.array([5, 10241, 77_777, N_VERTICES + 5, N_VERTICES + 150_000])
    drawn = cortex.surface(vertices).voxel_vertex
    there = np.unique(cortex.faces)
    places = np.concatenate([cortex.sphere[:10242], cortex.sphere[N_VERTICES : N_VERTICES + 10242]])
    for vertex, at in zip(vertices, drawn, strict=True):
        distance = np.linalg.norm(places[there] - cortex.sphere[vertex], axis=1)
        assert at == there[distance.argmin()]
    assert drawn[0] == 5
    assert drawn[3] == 10242 + 5
    # vertices of the flat map are drawn at their own position, 2 mm apart
    flat = there[there < 10242]
    np.testing.assert_array_equal(cortex.surface(flat).voxel_vertex, flat)


def test_hemispheres_are_drawn_beside_each_other_and_gyri_light(cortex: Fsaverage) -> None:
    used = np.unique(cortex.faces)
    left, right = used[used < 10242], used[used >= 10242]
    assert cortex.flat[left, 0].max() < cortex.flat[right, 0].min()
    for side, shade in (("left", cortex.shade[:10242]), ("right", cortex.shade[10242:])):
        crowns = ConvexHull(read(f"pial_{side}.gii.gz")[0]).vertices
        assert np.median(shade[crowns]) > 0.7
        assert 0.35 < np.median(shade) < 0.65
        assert (shade.min(), shade.max()) == (0, 1)


def test_a_drawn_vertex_is_in_the_area_of_most_of_its_voxels(cortex: Fsaverage) -> None:
    near = np.argsort(np.linalg.norm(cortex.sphere[:N_VERTICES] - cortex.sphere[30], axis=1))[:3]
    vertices = np.concatenate([near, [40, 50]])
    surface = cortex.surface(vertices, np.array([0, 1, 1, 0, -1]), ("V1", "V2"))
    assert surface.voxel_vertex.tolist() == [30, 30, 30, 40, 50]
    assert surface.area is not None
    assert (surface.area[30], surface.area[40], surface.area[50]) == (1, 0, -1)
    assert (surface.area >= 0).sum() == 2
    assert cortex.surface(vertices).area is None


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load_fsaverage.cache_clear()
    empty = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: empty)
    with pytest.raises(InputError, match=r"sphere_left\.gii\.gz: no such file; expected nilearn"):
        load_fsaverage()
    monkeypatch.undo()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="package nilearn is missing"):
        load_fsaverage()
