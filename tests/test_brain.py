"""A brain restricted by voxel, ROI or ceiling is the same brain with fewer voxels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from harness.brains.brain import (
    Brain,
    Roi,
    Surface,
)
from harness.brains.load import load_brain
from harness.config.brain import SimulatedConfig
from harness.storage.errors import InputError

CEILING = [0.1, 0.5, 0.9, 0.2, 0.6, 0.0]


@pytest.fixture
def brain() -> Brain:
    """Make six voxels: V1 (0, 1, 2), its lower part (0, 1), V2 (3, 4), a patch (2, 3) across, one in none."""
    coords = np.arange(18, dtype=np.float32).reshape(6, 3)
    return Brain(
        name="made",
        stimuli=[Image.new("RGB", (4, 4))] * 2,
        responses=np.arange(12, dtype=np.float32).reshape(2, 6),
        coords=coords,
        bounding_box=np.stack([coords.min(axis=0), coords.max(axis=0)]),
        hemisphere=np.array(["L", "L", "L", "R", "R", "R"]),
        rois=(
            Roi("V1", np.array([0, 1, 2]), 1.0),
            Roi("V1v", np.array([0, 1]), 1.0),
            Roi("V2", np.array([3, 4]), 2.0),
            Roi("patch", np.array([2, 3]), None),
        ),
        noise_ceiling=np.array(CEILING, dtype=np.float32),
        surface=Surface(
            np.zeros((8, 2), np.float32),
            np.array([[0, 1, 2]]),
            np.zeros(8, np.float32),
            np.array([7, 6, 5, 4, 3, 3]),
        ),
        fingerprint="made",
    )


def table(brain: Brain) -> dict[str, list[int]]:
    return {roi.name: roi.voxels.tolist() for roi in brain.rois}


def test_what_is_not_said_of_a_brain_is_unknown_and_every_row_another_picture(brain: Brain) -> None:
    np.testing.assert_array_equal(brain.stimulus_ids, [0, 1])
    assert (brain.n_repeats, brain.session, brain.shared, brain.fingerprints) == (None, None, None, {})
    assert (brain.n_images, brain.n_voxels) == (2, 6)
    named = replace(brain, stimulus_ids=np.array(["a", "a"]), session=np.array([1, 2]))
    assert replace(named, name="other").stimulus_ids.tolist() == ["a", "a"]


def test_cut_by_voxel_moves_everything_along(brain: Brain) -> None:
    cut = brain.select_voxels(np.array([4, 1, 3]))
    np.testing.assert_array_equal(cut.responses, [[4, 1, 3], [10, 7, 9]])
    np.testing.assert_array_equal(cut.coords[:, 0], [12, 3, 9])
    np.testing.assert_array_equal(cut.hemisphere, ["R", "L", "R"])
    np.testing.assert_allclose(cut.noise_ceiling, [0.6, 0.5, 0.2])
    assert cut.surface is not None
    np.testing.assert_array_equal(cut.surface.voxel_vertex, [3, 6, 4])
    assert table(cut) == {"V1": [1], "V1v": [1], "V2": [0, 2], "patch": [2]}
    assert [roi.rank for roi in cut.rois] == [1.0, 1.0, 2.0, None]
    # a selector must not depend on which other voxels exist
    np.testing.assert_array_equal(cut.bounding_box, brain.bounding_box)
    assert (cut.stimuli, cut.name) == (brain.stimuli, brain.name)
    assert len({brain.fingerprint, cut.fingerprint, cut.select_voxels(np.array([0])).fingerprint}) == 3
    assert brain.select_voxels(np.array([4, 1, 3])).fingerprint == cut.fingerprint
    # the original is unchanged
    assert table(brain)["V2"] == [3, 4]


def test_all_voxels_are_the_brain_itself_and_empty_rois_go(brain: Brain) -> None:
    assert brain.select_voxels(np.arange(6)) is brain
    assert table(brain.select_voxels(np.array([5, 0]))) == {"V1": [1], "V1v": [1]}


@pytest.mark.parametrize(
    ("voxels", "parts"),
    [([], ["none"]), ([0, 6], ["0 to 6", "0 to 5"]), ([-1, 2], ["-1 to 2"]), ([1, 1], ["twice"])],
)
def test_voxels_that_are_not_there_are_refused(brain: Brain, voxels: list[int], parts: list[str]) -> None:
    with pytest.raises(InputError) as raised:
        brain.select_voxels(np.array(voxels, dtype=np.int64))
    assert all(part in str(raised.value) for part in ["brain made", *parts])


def test_cut_by_roi_leaves_whole_rois_only(brain: Brain) -> None:
    cut = brain.select_rois(["V1"])
    assert table(cut) == {"V1": [0, 1, 2], "V1v": [0, 1]}  # the patch would lose voxels, so it is dropped
    assert table(brain.select_rois(["V2", "V1v"])) == {"V1v": [0, 1], "V2": [2, 3]}
    both = brain.select_rois(["V2", "patch"])
    assert table(both) == {"V2": [1, 2], "patch": [0, 1]}
    np.testing.assert_array_equal(both.responses[0], [2, 3, 4])
    with pytest.raises(InputError, match=r"unknown ROI of brain made 'V2v': expected one of V1, .*'V2'"):
        brain.select_rois(["V2v"])


def test_cut_by_ceiling(brain: Brain) -> None:
    np.testing.assert_array_equal(brain.select_ceiling(0.5).responses[0], [1, 2, 4])
    with pytest.raises(InputError, match=r"no voxel has .* of 0\.95 or more; the highest is 0\.9"):
        brain.select_ceiling(0.95)
    with pytest.raises(InputError, match="unknown"):
        replace(brain, noise_ceiling=None).select_ceiling(0.1)


def test_settings_cut_any_brain(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path))
    whole = load_brain(SimulatedConfig(n_voxels=150, n_stimuli=20))
    cut = load_brain(SimulatedConfig(n_voxels=150, n_stimuli=20, rois=("V1", "FFC"), min_ceiling=0.6))
    kept = [path for path in (tmp_path / "brains").iterdir() if not path.name.endswith(".truth.npz")]
    assert len(kept) == 1  # the whole brain is cached, and restricted on loading
    inside = np.concatenate([roi.voxels for roi in whole.rois if roi.name in ("V1", "FFC")])
    assert whole.noise_ceiling is not None
    expected = np.sort(inside)[whole.noise_ceiling[np.sort(inside)] >= np.float32(0.6)]
    np.testing.assert_array_equal(cut.responses, whole.responses[:, expected])
    assert [roi.name for roi in cut.rois] == ["V1", "FFC"]
    np.testing.assert_array_equal(cut.bounding_box, whole.bounding_box)
