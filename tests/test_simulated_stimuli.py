"""Images of any folder as stimuli of the simulated subject."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from made_recordings import write_picture
from PIL import Image

from harness.brains.brain import (
    Brain,
    Pictures,
)
from harness.brains.load import load_brain
from harness.brains.simulated.stages import N_REFERENCE
from harness.brains.simulated.stimuli import (
    ShownImages,
    SquareImages,
)
from harness.brains.simulated.subject import simulate
from harness.brains.simulated.truth import SimulatedTruth
from harness.config.brain import SimulatedConfig
from harness.storage.errors import InputError

N_IMAGES = 40
SCENES = SimulatedConfig(n_voxels=150, n_stimuli=N_IMAGES)
Subject = tuple[Brain, SimulatedTruth]


@pytest.fixture(scope="module")
def scenes() -> Iterator[Subject]:
    yield simulate(SCENES)


@pytest.fixture(scope="module")
def folder(scenes: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes as files, every other one in a subfolder; names are numbers, written in reverse."""
    root = tmp_path_factory.mktemp("pictures")
    for part in "ab":
        (root / part).mkdir()
    for row in reversed(range(N_IMAGES)):
        scenes[0].stimuli[row].save(root / "ab"[row % 2] / f"{row}.png")
    (root / "a" / "notes.txt").write_text("not an image")
    return root


@pytest.fixture(scope="module")
def shown(folder: Path) -> Iterator[Subject]:
    yield simulate(SCENES.model_copy(update={"stimuli": str(folder)}))


ORDER = [*range(0, N_IMAGES, 2), *range(1, N_IMAGES, 2)]  # scenes in the order of file names


def test_early_areas_see_files_as_they_see_scenes(scenes: Subject, shown: Subject) -> None:
    (brain, truth), (_, of_scenes) = shown, scenes
    assert brain.stimulus_ids.tolist() == [f"{'ab'[row % 2]}/{row}.png" for row in ORDER]
    early = truth.stage == "early"
    np.testing.assert_allclose(truth.signal[:, early], of_scenes.signal[ORDER][:, early], atol=1e-4)
    # V4 and V8 do not depend on objects; other areas use a substitute
    both = zip(truth.signal.T, of_scenes.signal[ORDER].T, strict=True)
    alike = np.array([np.corrcoef(one, other)[0, 1] for one, other in both])
    assert np.median(alike[np.isin(truth.region, ["V4", "V8"])]) > 0.9
    assert np.median(np.abs(alike[np.isin(truth.region, ["LO", "PIT"])])) < 0.8
    assert np.median(np.abs(alike[truth.stage == "high"])) < 0.5
    for name in ("place", "size", "noise_ceiling", "rank", "vertex"):
        np.testing.assert_array_equal(getattr(truth, name), getattr(of_scenes, name))
    assert np.isfinite(brain.responses).all()
    np.testing.assert_allclose(truth.signal.std(axis=0), 1, atol=1e-4)


def test_fewer_stimuli_are_spread_over_the_folder_and_tuned_alike(folder: Path, shown: Subject) -> None:
    brain, truth = simulate(SCENES.model_copy(update={"stimuli": str(folder), "n_stimuli": N_IMAGES // 2}))
    assert brain.stimulus_ids.tolist() == shown[0].stimulus_ids[::2].tolist()
    alike = [
        np.corrcoef(one, other)[0, 1]
        for one, other in zip(truth.signal.T, shown[1].signal[::2].T, strict=True)
    ]
    np.testing.assert_allclose(alike, 1, atol=1e-4)


def test_loaded_again_pictures_are_opened_where_they_are(folder: Path, shown: Subject) -> None:
    config = SCENES.model_copy(update={"stimuli": str(folder)})
    for brain in (load_brain(config), load_brain(config)):
        assert brain.fingerprint == shown[0].fingerprint
        assert isinstance(brain.stimuli, SquareImages)
        assert brain.stimuli[3].tobytes() == shown[0].stimuli[3].tobytes()
        assert brain.name == f"simulated-0-{folder.name}"
        assert list(brain.fingerprints) == ["images/"]


def test_the_central_square_is_shown_in_full_resolution(tmp_path: Path) -> None:
    pixels = np.zeros((90, 150, 3), np.uint8)
    pixels[:, 30:120] = 200
    for row in range(20):
        Image.fromarray(pixels if row else pixels.transpose(1, 0, 2)).save(tmp_path / f"{row}.png")
    images = ShownImages(tmp_path, 20)
    assert images.stimuli[0].size == images.stimuli[1].size == (90, 90)
    assert (np.asarray(images.stimuli[0]) == 200).all() and (np.asarray(images.stimuli[1]) == 200).all()
    assert images.look(slice(0, 3)).features.energy.shape == (3, 18, 32, 32)
    assert images.look(slice(0, 3)).objects is None
    assert images.look(slice(0, 3)).features.energy.max() < 1e-3  # the dark sides are cropped


def test_reference_is_of_the_whole_folder_and_equal_files_are_one_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    n_files = 2 * N_REFERENCE
    for row in range(n_files):
        write_picture(tmp_path / f"{row}.png", 0 if row == 128 else row)
    with caplog.at_level(logging.WARNING):
        images = ShownImages(tmp_path, 20)
    assert images.reference == [f"{row}.png" for row in range(0, n_files, 2)]
    assert images.names[:3] == ["0.png", "12.png", "25.png"]
    assert images.names[10] == "128.png" and images.stimulus_ids[10] == "0.png"
    assert "same image" in caplog.text
    changed = images.content
    write_picture(tmp_path / "12.png", 9999)
    assert ShownImages(tmp_path, 20).content != changed


def test_voxels_that_see_nothing_say_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Digits on black: grey, and empty at the edges."""
    rng = np.random.default_rng(0)
    for row in range(30):
        pixels = np.zeros((28, 28), np.uint8)
        pixels[11:17, 11:17] = rng.integers(0, 256, (6, 6))
        Image.fromarray(pixels).save(tmp_path / f"{row:02}.png")
    with caplog.at_level(logging.WARNING):
        brain, truth = simulate(SCENES.model_copy(update={"stimuli": str(tmp_path), "n_stimuli": 30}))
    silent = truth.noise_ceiling == 0
    assert f"all stimuli look alike to {silent.sum()} of 150 voxels" in caplog.text
    assert 0 < silent.sum() < 75
    assert np.nanmin(truth.eccentricity[silent]) > 0.3
    assert (truth.signal[:, silent] == 0).all() and np.isfinite(truth.signal).all()
    np.testing.assert_allclose(truth.signal[:, ~silent].std(axis=0), 1, atol=1e-4)
    np.testing.assert_allclose(
        brain.responses.std(axis=0), 1, atol=1e-4
    )  # noise only where there is no signal


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    def ask(n_stimuli: int = 20) -> None:
        simulate(SCENES.model_copy(update={"stimuli": str(tmp_path / "set"), "n_stimuli": n_stimuli}))

    with pytest.raises(InputError, match=r"set: no such folder; expected a folder of images"):
        ask()
    (tmp_path / "set").mkdir()
    with pytest.raises(InputError, match=r"set: found no image, expected files ending in \.png"):
        ask()
    for row in range(15):
        write_picture(tmp_path / "set" / f"{row}.png", row)
    with pytest.raises(InputError, match=r"found 20, but 15 images in .*set; expected 20 images or more"):
        ask()
    for row in range(15, 25):
        write_picture(tmp_path / "set" / "more" / f"{row}.png", row)
    with pytest.raises(InputError, match=r"brain\.n_stimuli: found 26, but 25 images .* expected 20 to 25"):
        ask(26)
    broken = tmp_path / "set" / "more" / "20.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(InputError, match=r"more/20\.png: not a readable image"):
        ask(25)
    for path in (tmp_path / "set").rglob("*.png"):
        Image.new("RGB", (9, 9), (7, 7, 7)).save(path)
    with pytest.raises(InputError, match=r"set: all images look alike"):
        ask(25)


def test_scenes_are_kept_with_the_brain(scenes: Subject) -> None:
    assert isinstance(scenes[0].stimuli, Pictures)
    np.testing.assert_array_equal(scenes[0].stimulus_ids, np.arange(N_IMAGES))
    assert scenes[0].name == "simulated-0" and not scenes[0].fingerprints
