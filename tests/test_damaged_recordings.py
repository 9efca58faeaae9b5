"""Damaged recordings: a whole brain, or one error that says why not."""

from __future__ import annotations

import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from made_recordings import make_arrays, write_algonauts, write_arrays

from harness.brains.brain import Brain
from harness.brains.load import load_brain
from harness.config.brain import (
    Algonauts2023Config,
    ArraysConfig,
    BrainConfig,
)
from harness.storage.errors import InputError

Damage = Callable[[Path, np.random.Generator], None]


def check_whole(brain: Brain) -> None:
    """Check what holds for every brain."""
    n_images, n_voxels = brain.responses.shape
    assert min(n_images, n_voxels) >= 1
    assert np.isfinite(brain.responses).all()
    assert (brain.responses != brain.responses[0]).any(axis=0).all()
    assert len(brain.stimuli) == len(brain.stimulus_ids) == n_images
    assert all(brain.stimuli[row].mode == "RGB" for row in range(n_images))
    assert brain.coords.shape == (n_voxels, 3)
    assert (brain.bounding_box[0] <= brain.coords).all()
    assert (brain.coords <= brain.bounding_box[1]).all()
    assert set(brain.hemisphere.tolist()) <= {"L", "R"}
    assert len({roi.name for roi in brain.rois}) == len(brain.rois)
    for roi in brain.rois:
        assert len(np.unique(roi.voxels)) == len(roi.voxels) >= 1
        assert 0 <= roi.voxels.min() <= roi.voxels.max() < n_voxels
    if brain.noise_ceiling is not None:
        assert brain.noise_ceiling.shape == (n_voxels,)
        assert ((brain.noise_ceiling >= 0) & (brain.noise_ceiling <= 1)).all()
    for rows in (brain.n_repeats, brain.session, brain.shared):
        assert rows is None or len(rows) == n_images
    if brain.surface is not None:
        assert brain.surface.voxel_vertex.shape == (n_voxels,)
        assert brain.surface.voxel_vertex.max() < len(brain.surface.points)
    assert all(len(value) == 64 for value in (brain.fingerprint, *brain.fingerprints.values()))


def remove(path: Path, rng: np.random.Generator) -> None:
    path.unlink()


def truncate(path: Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(0, len(content)))])


def scramble(path: Path, rng: np.random.Generator) -> None:
    """Change a few bytes, mostly in headers."""
    content = bytearray(path.read_bytes())
    for place in rng.integers(0, min(len(content), 200 if rng.random() < 0.7 else len(content)), 4):
        content[place] = int(rng.integers(0, 256))
    path.write_bytes(bytes(content))


def lengthen(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(path.read_bytes() + rng.bytes(100))


def replace_by_another(path: Path, rng: np.random.Generator) -> None:
    others = sorted(other for other in path.parent.iterdir() if other.is_file())
    path.write_bytes(others[int(rng.integers(len(others)))].read_bytes())


def rename(path: Path, rng: np.random.Generator) -> None:
    """Change a number or the suffix in the file name."""
    digits = [place for place, letter in enumerate(path.name) if letter.isdigit()]
    name = path.name + "x"
    if digits and rng.random() < 0.8:
        place = digits[int(rng.integers(len(digits)))]
        name = path.name[:place] + str(rng.integers(10)) + path.name[place + 1 :]
    path.rename(path.with_name(name))


def change_array(path: Path, rng: np.random.Generator) -> None:
    """Replace by an array of another shape, type or values."""
    if path.suffix == ".npz":
        with path.open("rb") as opened, np.load(opened) as file:
            arrays = dict(file)
        name = sorted(arrays)[int(rng.integers(len(arrays)))]
        arrays[name] = change(arrays[name], rng)
        np.savez(path, **arrays)
    elif path.suffix == ".npy" and not path.name.startswith("mapping"):
        np.save(path, change(np.load(path), rng))
    else:
        scramble(path, rng)


def change(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    array = np.array(array)
    what = rng.integers(12)
    spots = tuple(rng.integers(0, size, 3) for size in array.shape)
    if what == 0:
        return array[:-1]
    if what == 1:
        return array.T
    if what == 2:
        return array.reshape(-1)
    if what == 3:
        return array[..., :-1]
    if what == 4:
        with np.errstate(invalid="ignore", over="ignore"):
            return array.astype(rng.choice(["U3", "f2", "i1", "?", "c8", "S2"]))
    if what == 5:
        return array[rng.permutation(len(array))]
    if what == 6:
        return np.zeros_like(array)
    if what == 7:
        return np.concatenate([array, array])
    if array.dtype.kind == "f":
        large = 1e300 if array.itemsize == 8 else 1e30
        array[spots] = rng.choice([np.nan, np.inf, -np.inf, -1, 2, 101, large])
    elif array.dtype.kind in "iu":
        array[spots] = rng.choice([-1, 1, 3, 99])
    elif array.dtype.kind == "U":
        array[spots] = rng.choice(["", "L", "V1", "a/b", "x"])
    return array


DAMAGES = (remove, truncate, scramble, lengthen, replace_by_another, rename, *3 * [change_array])


@pytest.fixture(scope="module")
def algonauts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("algonauts")
    return write_algonauts(root, test=("images", "responses", "ceiling"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arrays(tmp_path_factory.mktemp("folder") / "mine", make_arrays(), 8)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arrays(tmp_path_factory.mktemp("archive") / "mine", make_arrays(), 8, as_npz=True).parent


def load_damaged(whole: Path, seed: int, configure: Callable[[Path], BrainConfig]) -> bool:
    """Damage a copy in one or two places and load it; return whether it loaded."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / whole.name
        shutil.copytree(whole, copy)
        for _ in range(int(rng.integers(1, 3))):
            # every kind of file is equally likely
            kinds = sorted({path.parent.name + path.suffix for path in copy.rglob("*") if path.is_file()})
            kind = kinds[int(rng.integers(len(kinds)))]
            files = sorted(path for path in copy.rglob("*") if path.is_file())
            files = [path for path in files if path.parent.name + path.suffix == kind]
            path, damage = files[int(rng.integers(len(files)))], DAMAGES[int(rng.integers(len(DAMAGES)))]
            note(f"{damage.__name__}: {path.relative_to(copy)}")
            try:
                damage(path, rng)
            except (ValueError, OSError, BadZipFile, zlib.error):
                return False  # already damaged, so this damage does not apply
        try:
            brain = load_brain(configure(copy))
            check_whole(brain)
        except InputError as error:
            assert "\n" not in str(error)
            assert str(copy) in str(error)
            return False
        return True


def configure_arrays(folder: Path) -> BrainConfig:
    archive = folder / "recording.npz"
    return ArraysConfig(root=str(archive if archive.exists() else folder))


seeds = st.integers(0, 2**32 - 1)
some = settings(max_examples=40, deadline=None, derandomize=True)


@some
@given(seed=seeds, test_images=st.booleans())
def test_algonauts(algonauts: Path, seed: int, test_images: bool) -> None:
    load_damaged(algonauts, seed, lambda copy: Algonauts2023Config(root=str(copy), test_images=test_images))


@some
@given(seed=seeds)
def test_folders_of_arrays(folder: Path, seed: int) -> None:
    load_damaged(folder, seed, configure_arrays)


@some
@given(seed=seeds)
def test_archives_of_arrays(archive: Path, seed: int) -> None:
    load_damaged(archive, seed, configure_arrays)


def test_what_is_not_damaged_is_loaded(algonauts: Path, folder: Path, archive: Path) -> None:
    for config in (
        Algonauts2023Config(root=str(algonauts), test_images=True),
        configure_arrays(folder),
        configure_arrays(archive),
    ):
        check_whole(load_brain(config))
