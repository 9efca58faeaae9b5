"""The truth of a simulated subject fits its brain and survives its file."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from harness.brains.brain import Brain
from harness.brains.load import (
    load_brain,
    load_truth,
)
from harness.brains.simulated.truth import (
    SimulatedTruth,
    read_truth,
    save_truth,
)
from harness.commands.brains import look
from harness.config.brain import SimulatedConfig
from harness.config.compose import load_config
from harness.storage.cache import cache_folder
from harness.storage.errors import InputError

CONFIG = SimulatedConfig(n_voxels=150, n_stimuli=30, seed=2)


@pytest.fixture(autouse=True, scope="module")
def _own_folder(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PALIMPSEST_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def brain() -> Brain:
    return load_brain(CONFIG)


@pytest.fixture
def truth() -> SimulatedTruth:
    return load_truth(CONFIG)


def assert_equal(one: SimulatedTruth, other: SimulatedTruth) -> None:
    for field in fields(SimulatedTruth):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), field.name)
        assert getattr(one, field.name).dtype == getattr(other, field.name).dtype


def test_truth_is_that_of_the_brain(brain: Brain, truth: SimulatedTruth) -> None:
    np.testing.assert_allclose(truth.repeats.mean(axis=0), brain.responses, atol=1e-4)
    np.testing.assert_array_equal(truth.noise_ceiling, brain.noise_ceiling)
    assert brain.surface is not None
    np.testing.assert_array_equal(truth.vertex, brain.surface.voxel_vertex)
    for roi in brain.rois:
        assert set(truth.region[roi.voxels]) == {roi.name} and set(truth.rank[roi.voxels]) == {roi.rank}


def test_truth_is_cut_as_the_brain_is(truth: SimulatedTruth) -> None:
    cut = CONFIG.model_copy(update={"rois": ("V2", "FFC"), "min_ceiling": 0.55})
    brain, part = load_brain(cut), load_truth(cut)
    expected = np.flatnonzero(np.isin(truth.region, ["V2", "FFC"]) & (truth.noise_ceiling >= 0.55))
    np.testing.assert_array_equal(part.vertex, truth.vertex[expected])
    np.testing.assert_array_equal(part.signal, truth.signal[:, expected])
    np.testing.assert_array_equal(part.repeats, truth.repeats[:, :, expected])
    np.testing.assert_array_equal(part.place, truth.place[expected])
    np.testing.assert_allclose(part.repeats.mean(axis=0), brain.responses, atol=1e-4)


def test_truth_is_kept_beside_the_brain_and_made_anew_if_it_is_broken(
    brain: Brain, truth: SimulatedTruth, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = (cache_folder() / "brains").glob("*.truth.npz")
    assert path.with_name(path.name.removesuffix(".truth.npz")).is_dir()
    with monkeypatch.context() as patch:
        patch.setattr("harness.brains.simulated.subject.simulate", None)
        assert_equal(load_truth(CONFIG), truth)
    path.write_bytes(path.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        assert_equal(load_truth(CONFIG), truth)
    assert f"{path}: not a readable npz file" in caplog.text
    assert_equal(read_truth(path), truth)


def test_truth_comes_back_from_its_file(truth: SimulatedTruth, tmp_path: Path) -> None:
    save_truth(truth, tmp_path / "a.npz")
    assert_equal(read_truth(tmp_path / "a.npz"), truth)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        arrays = dict(file)
    np.savez(tmp_path / "b.npz", **{name: arrays[name] for name in arrays if name != "rank"})
    with pytest.raises(InputError, match=r"b\.npz: found vertex.*expected vertex, region"):
        read_truth(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", **arrays | {"signal": arrays["signal"][:, 1:]})
    with pytest.raises(InputError, match=r"c\.npz: signal: found shape \(30, 149\).*expected 150 voxels"):
        read_truth(tmp_path / "c.npz")
    with pytest.raises(InputError, match=r"d\.npz: no such file"):
        read_truth(tmp_path / "d.npz")


def test_a_look_writes_it_beside_the_picture(truth: SimulatedTruth, tmp_path: Path) -> None:
    settings = [f"brain.{name}={getattr(CONFIG, name)}" for name in ("n_voxels", "n_stimuli", "seed")]
    found = dict(look(load_config([*settings, f"runs_dir={tmp_path}", "backbone=mini_random"])))
    assert Path(found["truth"]).parent == Path(found["picture"]).parent
    assert_equal(read_truth(Path(found["truth"])), truth)
