"""Damaged NSD and grayordinate files: a whole brain, or one error that says why not."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from made_cifti import lay_out, write_maps, write_pictures, write_table
from made_nsd import write_nsd, write_surface
from scipy.io import loadmat, savemat
from test_damaged_recordings import check_whole, lengthen, remove, rename, replace_by_another, truncate

from harness.brains.cortex import load_cortex
from harness.brains.grayordinates import subject as grayordinates
from harness.brains.load import load_brain
from harness.brains.neuroimages import (
    open_image,
    stream_maps,
)
from harness.config.brain import (
    BrainConfig,
    GrayordinatesConfig,
    NsdConfig,
)
from harness.storage.errors import InputError

Damage = Callable[[Path, np.random.Generator], None]


def scramble(path: Path, rng: np.random.Generator) -> None:
    """Change a few bytes, mostly in headers; in gzipped files, of the uncompressed content."""
    inside = path.suffix in (".gz", ".mgz") and rng.random() < 0.8
    content = bytearray(gzip.decompress(path.read_bytes()) if inside else path.read_bytes())
    for place in rng.integers(0, min(len(content), 350 if rng.random() < 0.7 else len(content)), 4):
        content[place] = int(rng.integers(0, 256))
    path.write_bytes(gzip.compress(bytes(content), 1) if inside else bytes(content))


def change_content(path: Path, rng: np.random.Generator) -> None:
    """Replace by a valid file with different content."""
    if path.name.endswith((".dscalar.nii", ".png", ".reg")):
        scramble(path, rng)
    elif path.name.endswith((".nii.gz", ".mgh", ".mgz")):
        image = open_image(path)
        values = np.stack(list(stream_maps(image)), axis=1).reshape(*image.shape, -1, order="F")
        values = change(values[..., 0] if image.n_maps == 1 else values, rng)
        if values.dtype.kind in "iuf" and values.size:
            surface = path.suffix != ".gz"
            kind, values = (
                (nibabel.MGHImage, values.astype(np.float32)) if surface else (nibabel.Nifti1Image, values)
            )
            nibabel.save(kind(values, image.affine @ np.diag([*rng.choice([1, 2, -1], 3), 1])), path)
    elif path.suffix == ".hdf5":
        with h5py.File(path) as file:
            arrays = {name: data[:] for name, data in file.items()}
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                changed = change(values, rng)
                if changed.dtype.kind != "U":
                    file["x" if rng.random() < 0.1 else name] = changed
    elif path.suffix == ".mat":
        matrices = {name: values for name, values in loadmat(path).items() if not name.startswith("_")}
        name = sorted(matrices)[int(rng.integers(len(matrices)))]
        matrices[name] = change(matrices[name], rng)
        savemat(path, matrices)
    else:
        lines = path.read_text().splitlines()
        place = int(rng.integers(len(lines)))
        with_other = lines[: place + 1] + lines[place:]
        lines[place] = str(
            rng.choice(["", "x", "\t", "1", "7 V9", "1 V1v", "-1 z", 'a"b', "p1.png\t-3", "\0"])
        )
        path.write_text("\n".join(lines if rng.random() < 0.7 else with_other))


def change(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    array = np.array(array)
    what = int(rng.integers(14))
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
            return array.astype(rng.choice(["U3", "f4", "i1", "u1", "c8"]))
    if what == 5:
        return array[rng.permutation(len(array))]
    if what == 6:
        return np.zeros_like(array)
    if what == 7:
        return np.concatenate([array, array], axis=-1)
    if what == 8:
        return array - 1
    if array.dtype.kind == "f":
        array[spots] = rng.choice([np.nan, np.inf, -np.inf, -1, 2, 0.5, 3e38])
    elif array.dtype.kind in "iu":
        array[spots] = rng.choice([0, 1, 3, 99])
    return array


DAMAGES = (remove, truncate, *3 * [scramble], lengthen, replace_by_another, rename, *4 * [change_content])


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nsd(tmp_path_factory.mktemp("volume") / "nsd", hdf5=(2,)).root


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_surface(tmp_path_factory.mktemp("surface") / "nsd", "nativesurface").root


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root, rng = tmp_path_factory.mktemp("maps") / "maps", np.random.default_rng(0)
    columns = lay_out(subcortex=True, every=400)
    for name in ("a", "b"):
        write_maps(
            root / f"{name}.dscalar.nii", rng.normal(size=(6, len(columns))).astype(np.float32), columns
        )
    names = [f"p{index}.png" for index in range(4)]
    write_pictures(root, names, rng)
    write_table(
        root / "stimuli.tsv", [{"image": names[place % 4], "session": 1 + place // 6} for place in range(12)]
    )
    cortex = load_cortex()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grayordinates, "load_cortex", lambda: cortex)
        yield root


def load_damaged(root: Path, config: Callable[[str], BrainConfig], seed: int, damage: Damage) -> None:
    """Load a copy with one damaged file: it loads whole, or fails with one line."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PALIMPSEST_CACHE", str(Path(folder) / "cache"))
        copy = Path(folder) / root.name
        shutil.copytree(root, copy)
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        path = files[int(rng.integers(len(files)))]
        note(f"{damage.__name__}: {path.relative_to(copy)}")
        damage(path, rng)
        try:
            brain = load_brain(config(str(copy)))
            check_whole(brain)
        except InputError as error:
            note(str(error))
            assert "\n" not in str(error)
            assert str(copy) in str(error) or "brain." in str(error)


seeds, damages = st.integers(0, 2**32 - 1), st.sampled_from(DAMAGES)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seeds, damages)
def test_a_damaged_volume(volume: Path, seed: int, damage: Damage) -> None:
    load_damaged(volume, lambda root: NsdConfig(root=root), seed, damage)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seeds, damages)
def test_a_damaged_surface(surface: Path, seed: int, damage: Damage) -> None:
    load_damaged(surface, lambda root: NsdConfig(root=root, preparation="nativesurface"), seed, damage)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seeds, damages)
def test_damaged_grayordinates(maps: Path, seed: int, damage: Damage) -> None:
    load_damaged(maps, lambda root: GrayordinatesConfig(root=root, subcortex=True), seed, damage)
