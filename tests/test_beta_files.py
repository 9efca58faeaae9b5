"""Responses of a session: units, axis orders and masking."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from made_nsd import write_hdf5, write_nifti

from harness.brains import beta_files
from harness.brains.beta_files import read_betas
from harness.storage.errors import InputError

SHAPE = (6, 7, 5)
N_TRIALS = 9
VALUES = np.random.default_rng(1).integers(-900, 900, (*SHAPE, N_TRIALS)).astype(np.int16)
CHOSEN = [(0, 0, 0), (5, 6, 4), (2, 3, 1), (3, 3, 1), (1, 0, 4)]
PLACES = np.array([x + 6 * y + 42 * z for x, y, z in CHOSEN])


def read(path: Path, shape: tuple[int, ...] = SHAPE, places: np.ndarray = PLACES) -> np.ndarray:
    found = np.full((N_TRIALS, len(places)), np.nan, dtype=np.float32)
    read_betas(path, shape, places, found)
    return found


def expected() -> np.ndarray:
    return np.array([[VALUES[(*place, trial)] / 300 for place in CHOSEN] for trial in range(N_TRIALS)])


@pytest.mark.parametrize("name", ["b.nii.gz", "b.nii"])
def test_nifti_is_percent_times_300(name: str, tmp_path: Path) -> None:
    write_nifti(tmp_path / name, VALUES)
    np.testing.assert_allclose(read(tmp_path / name), expected(), rtol=1e-6)


@pytest.mark.parametrize("chunks", ["matlab", None, (1, 5, 7, 6), (2, 5, 7, 6), (N_TRIALS, 2, 3, 6)])
@pytest.mark.parametrize("block", [1, 2000, 2**25])
def test_hdf5_is_seen_in_reverse_whatever_its_chunks(
    chunks: str | tuple[int, ...] | None, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beta_files, "BLOCK", block)
    write_hdf5(tmp_path / "b.hdf5", VALUES, chunks)
    with h5py.File(tmp_path / "b.hdf5") as file:
        assert file["betas"].shape == (N_TRIALS, 5, 7, 6)
    np.testing.assert_allclose(read(tmp_path / "b.hdf5"), expected(), rtol=1e-6)


def test_mgh_is_percent_already(tmp_path: Path) -> None:
    values = np.random.default_rng(2).normal(size=(30, 1, 1, N_TRIALS)).astype(np.float32)
    values[4, 0, 0, 2] = np.nan
    nibabel.save(nibabel.MGHImage(values, np.eye(4)), tmp_path / "lh.b.mgh")
    assert (tmp_path / "lh.b.mgh").read_bytes()[:4] == b"\0\0\0\1"  # big-endian
    places = np.array([4, 29, 0])
    np.testing.assert_array_equal(read(tmp_path / "lh.b.mgh", (30, 1, 1), places), values[places, 0, 0].T)


def test_native_surfaces_are_vertices_by_trials(tmp_path: Path) -> None:
    values = np.random.default_rng(3).integers(-900, 900, (30, N_TRIALS)).astype(np.int16)
    write_hdf5(tmp_path / "lh.b.hdf5", values)
    places = np.array([4, 29, 0])
    np.testing.assert_allclose(
        read(tmp_path / "lh.b.hdf5", (30, 1, 1), places), values[places].T / 300, rtol=1e-6
    )


def test_a_scaled_header_is_believed(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VALUES / 300, np.eye(4))
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "b.nii.gz")  # nibabel chooses the slope
    np.testing.assert_allclose(read(tmp_path / "b.nii.gz"), expected(), atol=1e-4)


@pytest.mark.parametrize("suffix", ["nii.gz", "hdf5"])
def test_other_numbers_of_trials_and_other_grids_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"b.{suffix}"
    write = write_hdf5 if suffix == "hdf5" else write_nifti
    write(path, VALUES[..., :-1])
    with pytest.raises(InputError, match=rf"b\.{suffix}: found 8 trials, expected 9"):
        read(path)
    write(path, VALUES[:-1])
    with pytest.raises(InputError, match="found 5 × 7 × 5, expected 6 × 7 × 5"):
        read(path)


def test_an_hdf5_file_of_python_axes_is_refused(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "b.hdf5", VALUES.transpose(), None)  # so that h5py sees X, Y, Z, trials
    with pytest.raises(InputError, match=r"b\.hdf5: found 6 trials, expected 9"):
        read(tmp_path / "b.hdf5")


def test_an_hdf5_file_without_betas_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["beta"] = VALUES
    with pytest.raises(InputError, match=r"found beta, expected a data set /betas"):
        read(tmp_path / "b.hdf5")
    (tmp_path / "b.hdf5").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"b\.hdf5: not a readable HDF5 file"):
        read(tmp_path / "b.hdf5")


@pytest.mark.parametrize("suffix", ["nii.gz", "nii", "hdf5"])
def test_a_session_never_lies_in_memory(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory while reading stays close to the masked result, not to the content of the file."""
    monkeypatch.setattr(beta_files, "BLOCK", 2**16)
    shape, n_trials = (30, 32, 24), 120
    values = np.random.default_rng(4).integers(-900, 900, (*shape, n_trials)).astype(np.int16)
    path = tmp_path / f"b.{suffix}"
    (write_hdf5 if suffix == "hdf5" else write_nifti)(path, values)
    places = np.arange(0, np.prod(shape), 97)
    found = np.empty((n_trials, len(places)), dtype=np.float32)
    read_betas(path, shape, places, found)  # triggers lazy imports
    tracemalloc.start()
    read_betas(path, shape, places, found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert values.nbytes > 5e6
    assert peak < 0.15 * values.nbytes
