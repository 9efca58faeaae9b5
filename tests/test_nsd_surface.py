"""A subject of the Natural Scenes Dataset on fsaverage and on its native surface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_nsd import MadeSurface, write_mgh, write_surface

from harness.brains.brain import Brain
from harness.brains.fsaverage import load_fsaverage
from harness.brains.load import load_brain
from harness.config.brain import NsdConfig
from harness.storage.errors import InputError

SIDES = ("lh", "rh")


@pytest.fixture(scope="module")
def fsaverage(tmp_path_factory: pytest.TempPathFactory) -> MadeSurface:
    return write_surface(tmp_path_factory.mktemp("fsaverage"), "fsaverage")


@pytest.fixture
def native(tmp_path: Path) -> MadeSurface:
    return write_surface(tmp_path / "native", "nativesurface")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))


def load(made: MadeSurface, **settings: Any) -> Brain:
    return load_brain(NsdConfig(root=str(made.root), preparation=made.preparation, **settings))  # type: ignore[arg-type]


def places(made: MadeSurface, mask: str = "nsdgeneral") -> dict[str, np.ndarray]:
    return {side: np.flatnonzero(made.labels[side][mask]) for side in SIDES}


def trials(made: MadeSurface, mask: str = "nsdgeneral") -> np.ndarray:
    """Single trials as stored, percent, [trials, voxels]."""
    chosen = places(made, mask)
    sessions = [
        np.concatenate([percent[side][chosen[side]] for side in SIDES]).T for percent in made.percent.values()
    ]
    return np.concatenate(sessions)


def test_responses_are_percent_and_left_before_right(fsaverage: MadeSurface) -> None:
    brain = load(fsaverage, average="none", standardise=False)
    np.testing.assert_array_equal(brain.responses, trials(fsaverage))
    chosen = places(fsaverage)
    assert brain.hemisphere.tolist() == ["L"] * len(chosen["lh"]) + ["R"] * len(chosen["rh"])
    sphere = load_fsaverage().sphere
    vertices = np.concatenate([chosen["lh"], chosen["rh"] + 163842])
    np.testing.assert_array_equal(brain.coords, sphere[vertices])
    np.testing.assert_array_equal(brain.bounding_box, [sphere.min(axis=0), sphere.max(axis=0)])
    ncsnr = np.concatenate([fsaverage.ncsnr[side][chosen[side]] for side in SIDES]).astype(float)
    np.testing.assert_allclose(brain.noise_ceiling, ncsnr**2 / (ncsnr**2 + 1), rtol=1e-5)


def test_labels_are_fsaverages_or_carried_over_from_the_subject(fsaverage: MadeSurface) -> None:
    brain = load(fsaverage)
    chosen = places(fsaverage)
    labels = {
        atlas: np.concatenate([fsaverage.labels[side][atlas][chosen[side]] for side in SIDES])
        for atlas in ("streams", "prf-visualrois")
    }
    rois = {roi.name: roi for roi in brain.rois}
    np.testing.assert_array_equal(rois["ventral"].voxels, np.flatnonzero(labels["streams"] == 5))
    np.testing.assert_array_equal(rois["V1d"].voxels, np.flatnonzero(labels["prf-visualrois"] == 2))
    np.testing.assert_array_equal(
        rois["V1"].voxels, np.flatnonzero(np.isin(labels["prf-visualrois"], (1, 2)))
    )
    assert rois["V1"].rank == 1
    assert len(rois["V1d"].voxels)


def test_it_is_drawn_on_fsaverages_flat_map(fsaverage: MadeSurface) -> None:
    surface = load(fsaverage).surface
    assert surface is not None
    chosen = places(fsaverage)
    vertices = np.concatenate([chosen["lh"], chosen["rh"] + 163842])
    np.testing.assert_array_equal(surface.voxel_vertex, load_fsaverage().surface(vertices).voxel_vertex)
    assert "V1" in surface.area_names


def test_streams_are_the_mask_where_there_is_no_nsdgeneral(fsaverage: MadeSurface) -> None:
    hidden = [
        fsaverage.home(surface) / f"{side}.nsdgeneral.mgz"
        for side in SIDES
        for surface in ("fsaverage", "subj01")
    ]
    for path in hidden:
        path.rename(path.with_suffix(".hidden"))
    try:
        brain = load(fsaverage, average="none", standardise=False)
    finally:
        for path in hidden:
            path.with_suffix(".hidden").rename(path)
    np.testing.assert_array_equal(brain.responses, trials(fsaverage, "streams"))


def test_vertices_that_are_nan_are_left_out(native: MadeSurface, caplog: pytest.LogCaptureFixture) -> None:
    whole = load(native)
    lost = places(native)["lh"][3]
    values = native.percent[2]["lh"].copy()
    values[lost, 4:6] = np.nan
    (native.betas / "lh.betas_session02.hdf5").unlink()
    write_mgh(native.betas / "lh.betas_session02.mgh", values)
    brain = load(native)
    assert "1 of 520 voxels are constant or not finite in a session and are dropped" in caplog.text
    np.testing.assert_array_equal(brain.coords, np.delete(whole.coords, 3, axis=0))
    np.testing.assert_allclose(brain.responses, np.delete(whole.responses, 3, axis=1), atol=1e-5)


def test_a_subjects_own_surface(native: MadeSurface) -> None:
    brain = load(native, average="none", standardise=False)
    np.testing.assert_allclose(brain.responses, trials(native), rtol=1e-6)
    left = brain.hemisphere == "L"
    assert brain.coords[left, 0].max() < brain.coords[~left, 0].min()
    np.testing.assert_allclose(np.linalg.norm(brain.coords[left], axis=1), 100, atol=1e-2)
    assert brain.surface is None
    labels = np.concatenate([native.labels[side]["prf-visualrois"][40:300] for side in SIDES])
    rois = {roi.name: roi.voxels for roi in brain.rois}
    np.testing.assert_array_equal(rois["hV4"], np.flatnonzero(labels == 7))


def test_what_is_wrong_on_a_surface_is_named(native: MadeSurface) -> None:
    missing = native.betas / "rh.betas_session02.hdf5"
    content = missing.read_bytes()
    missing.unlink()
    with pytest.raises(
        InputError, match=r"found lh\.betas_session02\.hdf5 but no rh\.betas_session02: a hemisphere"
    ):
        load(native)
    missing.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"rh\.betas_session02\.hdf5: not a readable HDF5 file"):
        load(native)
    missing.write_bytes(content)
    (native.betas / "rh.ncsnr.mgh").rename(native.betas / "rh.other.mgh")
    with pytest.raises(InputError, match="found ncsnr of one hemisphere, expected both"):
        load(native)
    (native.betas / "rh.other.mgh").rename(native.betas / "rh.ncsnr.mgh")
    write_mgh(native.home("subj01") / "rh.nsdgeneral.mgz", np.ones(391, np.float32))
    with pytest.raises(InputError, match=r"rh\.nsdgeneral\.mgz: found 391 vertices, expected 390 vertices"):
        load(native)
    (native.home("subj01") / "rh.nsdgeneral.mgz").unlink()
    with pytest.raises(
        InputError, match=r"rh\.nsdgeneral\.mgz: no such file, but lh\.nsdgeneral\.mgz exists"
    ):
        load(native)
    (native.root / "nsddata/freesurfer/subj01/surf/lh.sphere.reg").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"lh\.sphere\.reg: not a readable FreeSurfer surface"):
        load(native)


def test_a_map_to_fsaverage_that_counts_from_0_is_refused(fsaverage: MadeSurface) -> None:
    path = fsaverage.transforms / "rh.white-to-fsaverage.mgz"
    content = path.read_bytes()
    write_mgh(path, fsaverage.nearest["rh"].astype(np.float32) - 1)
    try:
        with pytest.raises(
            InputError, match=r"rh\.white-to-fsaverage\.mgz: found vertices 0 to 389.*1-based"
        ):
            load(fsaverage)
    finally:
        path.write_bytes(content)
