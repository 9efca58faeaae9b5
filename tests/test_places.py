"""Vertices and voxel indices of brains from every source, against what the files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from made_cifti import AFFINE, lay_out, write_maps, write_pictures, write_table
from made_lab import brain as lab_brain
from made_nsd import AFFINE as NSD_AFFINE
from made_nsd import SHAPE, write_nsd, write_surface
from made_recordings import write_algonauts

from harness.brains.load import load_brain, locate_voxels
from harness.brains.places import find_rows
from harness.config.brain import (
    Algonauts2023Config,
    GrayordinatesConfig,
    NsdConfig,
    SimulatedConfig,
)
from harness.storage.errors import InputError


def locate(config: Any) -> tuple[Any, Any]:
    brain = load_brain(config)
    return brain, locate_voxels(config, brain)


def test_a_volume(tmp_path: Path) -> None:
    made = write_nsd(tmp_path)
    brain, places = locate(NsdConfig(root=str(made.root)))
    assert places.volume.shape == SHAPE
    np.testing.assert_array_equal(places.volume.affine, np.float32(NSD_AFFINE))
    np.testing.assert_array_equal(places.index, np.argwhere(made.mask))
    expected = places.index @ NSD_AFFINE[:3, :3].T + NSD_AFFINE[:3, 3]
    np.testing.assert_allclose(brain.coords, expected, atol=1e-6)
    assert (places.mesh, set(places.vertex.tolist())) == (None, {-1})
    assert places.describe() == f"{made.mask.sum()} voxels of a volume"
    some, few = locate(NsdConfig(root=str(made.root), rois=("V2",)))
    assert 0 < some.n_voxels < brain.n_voxels
    assert set(made.labels["prf-visualrois"][tuple(few.index.T)].tolist()) == {3, 4}  # V2v, V2d


@pytest.mark.parametrize("preparation", ["fsaverage", "nativesurface"])
def test_a_surface(preparation: str, tmp_path: Path) -> None:
    made = write_surface(tmp_path, preparation)
    brain, places = locate(NsdConfig(root=str(made.root), preparation=preparation))
    own = preparation == "nativesurface"
    assert places.mesh.name == ("subj01" if own else "fsaverage")
    for side, hemisphere, size in zip(("lh", "rh"), "LR", places.mesh.n_vertices, strict=True):
        labels = made.labels[side]["nsdgeneral"]
        assert size == len(labels)
        vertices = places.vertex[brain.hemisphere == hemisphere]
        np.testing.assert_array_equal(vertices, np.flatnonzero(labels))
    assert places.volume is None


def test_algonauts(tmp_path: Path) -> None:
    folder = write_algonauts(tmp_path)
    brain, places = locate(Algonauts2023Config(root=str(folder)))
    assert places.mesh.name == "fsaverage"
    for side, hemisphere in (("lh", "L"), ("rh", "R")):
        mask = np.load(folder / f"roi_masks/{side}.all-vertices_fsaverage_space.npy")
        np.testing.assert_array_equal(places.vertex[brain.hemisphere == hemisphere], np.flatnonzero(mask))


def test_the_simulated_subject() -> None:
    brain, places = locate(SimulatedConfig(n_voxels=120, n_stimuli=20, rois=("V1", "FFC")))
    assert (places.mesh.name, places.mesh.n_vertices) == ("fs_LR 32k", (32492, 32492))
    both = places.vertex + 32492 * (brain.hemisphere == "R")
    np.testing.assert_array_equal(both, brain.surface.voxel_vertex)


def write_grayordinates(root: Path) -> np.ndarray:
    """Two maps per picture, on every 64th grayordinate, cortex and below."""
    columns = lay_out(subcortex=True, every=64)
    rng = np.random.default_rng(3)
    values = rng.standard_normal((20, len(columns))).astype(np.float32)
    write_maps(root / "a.dscalar.nii", values, columns)
    names = [f"p{place}.png" for place in range(10)]
    write_pictures(root, names, rng)
    write_table(root / "stimuli.tsv", [{"image": name, "session": 1} for name in names * 2])
    return values


def test_grayordinates(tmp_path: Path) -> None:
    write_grayordinates(tmp_path)
    config = GrayordinatesConfig(root=str(tmp_path), cortex="all", subcortex=True)
    _, places = locate(config)
    axis = nibabel.load(tmp_path / "a.dscalar.nii").header.get_axis(1)
    np.testing.assert_array_equal(places.vertex, axis.vertex)  # -1 below the cortex, there too
    np.testing.assert_array_equal(places.index, axis.voxel)
    named = [name.removeprefix("CIFTI_STRUCTURE_") for name in axis.name]
    below = places.vertex < 0
    assert places.structure[below].tolist() == [name for name in named if "CORTEX" not in name]
    assert set(places.structure[~below].tolist()) == {""}
    np.testing.assert_array_equal(places.volume.affine, AFFINE)
    assert places.describe().endswith(f"vertices of fs_LR 32k and {below.sum()} voxels of a volume")
    _, few = locate(GrayordinatesConfig(root=str(tmp_path), rois=("V1",)))
    assert few.volume is None and (few.vertex >= 0).all()
    assert np.isin(few.vertex, axis.vertex).all()


def test_a_brain_of_other_coordinates_is_refused() -> None:
    brain = lab_brain()
    with pytest.raises(InputError, match=r"here: found 30 of 30 voxels of brain .* at other coordinates"):
        find_rows(brain, np.zeros((3, 3), np.float32), "here")
