"""A cached brain equals the original; a damaged or outdated one is never used."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.brains.brain import (
    Brain,
    Pictures,
    StoredPictures,
    Surface,
    fingerprint,
)
from harness.brains.cache import cached_brain
from harness.brains.load import load_brain
from harness.brains.simulated.subject import simulate
from harness.config.brain import SimulatedConfig
from harness.storage.cache import cache_folder
from harness.storage.files import content_hash

SETTINGS = SimulatedConfig(n_voxels=150, n_stimuli=30)


@pytest.fixture(scope="module")
def brain() -> Brain:
    return simulate(SETTINGS)[0]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))


def refuse() -> Brain:
    raise AssertionError("made again")


def assert_same(one: object, other: object) -> None:
    if isinstance(one, Pictures):
        assert isinstance(other, Pictures)
        one, other = one.pixels, other.pixels
    if isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == np.asarray(other).dtype
    elif isinstance(one, tuple):
        assert isinstance(other, tuple)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif hasattr(one, "__dataclass_fields__"):
        for field in fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name))
    else:
        assert one == other


def test_a_kept_brain_is_the_same_in_every_field(brain: Brain) -> None:
    assert cached_brain({"a": 1}, lambda: brain) is brain
    assert_same(brain, cached_brain({"a": 1}, refuse))
    assert cached_brain({"a": 1}, refuse).stimuli[3].tobytes() == brain.stimuli[3].tobytes()


def test_a_brain_without_surface_and_ceiling_is_kept_too(brain: Brain) -> None:
    bare = replace(brain, surface=None, noise_ceiling=None)
    cached_brain({"a": 1}, lambda: bare)
    assert_same(bare, cached_brain({"a": 1}, refuse))


def test_what_is_known_of_the_rows_is_kept_too(brain: Brain) -> None:
    known = replace(
        brain,
        stimulus_ids=np.array([f"image-{row // 2}" for row in range(brain.n_images)]),
        n_repeats=np.full(brain.n_images, 3),
        session=np.arange(brain.n_images) % 4,
        shared=np.arange(brain.n_images) < 10,
        fingerprints={"lh.npy": "0" * 64, "images/": "1" * 64},
    )
    cached_brain({"a": 1}, lambda: known)
    assert_same(known, cached_brain({"a": 1}, refuse))


class Elsewhere(StoredPictures):
    """Pictures whose file is a constant."""

    def __init__(self, ids: np.ndarray, content: str = "x") -> None:
        self.ids, self.content = ids, content

    @property
    def fingerprint(self) -> str:
        return content_hash(self.content, self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Any:
        return Image.new("RGB", (1, 1), (int(self.ids[index]), 0, 0))


def test_pictures_that_stay_where_they_are_are_opened_again(
    brain: Brain, caplog: pytest.LogCaptureFixture
) -> None:
    ids = np.arange(brain.n_images) + 7
    stimuli = Elsewhere(ids)
    made = replace(
        brain,
        stimuli=stimuli,
        stimulus_ids=ids,
        fingerprint=fingerprint(stimuli.fingerprint, brain.responses, brain.coords),
    )
    assert cached_brain({"a": 1}, lambda: made, Elsewhere) is made
    (folder,) = (cache_folder() / "brains").iterdir()
    assert not (folder / "pixels.npy").exists()
    kept = cached_brain({"a": 1}, refuse, Elsewhere)
    assert kept.stimuli[3].getpixel((0, 0)) == (10, 0, 0)
    assert_same(replace(made, stimuli=brain.stimuli), replace(kept, stimuli=brain.stimuli))
    # different pictures under the same key are detected
    with caplog.at_level(logging.WARNING):
        assert cached_brain({"a": 1}, lambda: made, lambda ids: Elsewhere(ids, "y")) is made
    assert "incomplete brain (fingerprint" in caplog.text


def test_of_several_that_want_a_brain_one_makes_it(brain: Brain) -> None:
    made: list[Brain] = []

    def make() -> Brain:
        made.append(brain)
        time.sleep(0.05)
        return brain

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cached_brain({"a": 1}, make), range(4)))
    assert len(made) == 1
    for one in found:
        assert_same(one, brain)


def test_another_key_is_another_brain(brain: Brain) -> None:
    cached_brain({"a": 1}, lambda: brain)
    other = replace(brain, name="other")
    assert cached_brain({"a": 2}, lambda: other).name == "other"
    assert cached_brain({"a": 1}, refuse).name == brain.name


@pytest.mark.parametrize("damage", ["truncated", "other values", "missing", "no description"])
def test_a_broken_brain_is_made_anew_and_said_so(
    damage: str, brain: Brain, caplog: pytest.LogCaptureFixture
) -> None:
    cached_brain({"a": 1}, lambda: brain)
    (folder,) = (cache_folder() / "brains").iterdir()
    file = folder / ("brain.json" if damage == "no description" else "responses.npy")
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:200])
    elif damage == "other values":
        np.save(file, brain.responses + 1)
    else:
        file.unlink()
    with caplog.at_level(logging.WARNING):
        assert cached_brain({"a": 1}, lambda: brain) is brain
    assert str(folder) in caplog.text
    assert_same(brain, cached_brain({"a": 1}, refuse))


def test_a_folder_that_cannot_be_written_costs_a_warning(
    brain: Brain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert cached_brain({"a": 1}, lambda: brain) is brain
    assert "continuing without it" in caplog.text


def test_the_simulated_subject_is_simulated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_brain(SETTINGS)
    monkeypatch.setattr("harness.brains.simulated.subject.simulate", refuse)
    assert_same(first, load_brain(SETTINGS))
    assert isinstance(first.surface, Surface)
    with pytest.raises(TypeError):
        load_brain(SETTINGS.model_copy(update={"seed": 1}))  # this brain is not cached
