"""Design matrices count from 1, everything after them from 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from harness.brains.nsd.design import read_design
from harness.storage.errors import InputError


def matrices() -> dict[str, np.ndarray]:
    return {
        # two subjects with four images each, the first two shared
        "subjectim": np.array([[3, 6, 1, 5], [3, 6, 2, 4]], float),
        "sharedix": np.array([[3, 6]], float),
        # sessions of three and four trials
        "masterordering": np.array([[1, 4, 1, 3, 2, 2, 4]], float),
        "stimpattern": np.array([[[1, 0], [1, 1]], [[1, 1], [1, 1]]], float),
    }


def write(folder: Path, **changed: np.ndarray) -> Path:
    path = folder / "nsd_expdesign.mat"
    savemat(path, matrices() | changed)
    return path


def test_trials_lead_to_pictures_counted_from_0(tmp_path: Path) -> None:
    design = read_design(write(tmp_path), 1)
    # masterordering 1 4 1 | 3 2 2 4 → subjectim 3 5 3 | 1 6 6 5 → less 1
    assert [session.tolist() for session in design.sessions] == [[2, 4, 2], [0, 5, 5, 4]]
    assert design.shared.tolist() == [2, 5]
    assert design.last_picture == 5
    assert [session.tolist() for session in read_design(write(tmp_path), 2).sessions] == [
        [2, 3, 2],
        [1, 5, 5, 3],
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"masterordering": matrices()["masterordering"] - 1},
            "found 0 to 3 in masterordering.*counts from 1",
        ),
        (
            {"masterordering": matrices()["masterordering"] + 1},
            "found 2 to 5 in masterordering, expected 1 to 4",
        ),
        ({"subjectim": matrices()["subjectim"] - 1}, "found 0 to 5 in subjectim"),
        (
            {"sharedix": matrices()["sharedix"] - 1},
            "sharedix that are not in subjectim of subject 1",
        ),
        (
            {"subjectim": matrices()["subjectim"] + 1},
            "sharedix that are not in subjectim of subject 1",
        ),
        ({"stimpattern": np.ones((2, 2, 2))}, "found 8 trials in stimpattern and 7 in masterordering"),
        ({"stimpattern": np.full((2, 2, 2), 7 / 8)}, "stimpattern.*integers"),
        ({"stimpattern": np.ones(7)}, "subjectim .*and stimpattern"),
        ({"subjectim": np.full((2, 4), np.nan)}, "subjectim.*integers"),
        ({"subjectim": np.array(["a"])}, "subjectim"),
    ],
)
def test_matrices_that_do_not_fit_are_refused(
    changed: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"nsd_expdesign\.mat: .*{message}"):
        read_design(write(tmp_path, **changed), 1)


def test_an_absent_subject_or_matrix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found 2 subjects, expected subject 3"):
        read_design(write(tmp_path), 3)
    path = write(tmp_path)
    kept = {name: value for name, value in loadmat(path).items() if name in ("subjectim", "sharedix")}
    savemat(path, kept)
    with pytest.raises(InputError, match="found no matrix masterordering"):
        read_design(path, 1)


@pytest.mark.parametrize("content", [b"", b"MATLAB 7.3 MAT-file" + b"\0" * 200, b"PK\3\4nothing"])
def test_a_broken_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "nsd_expdesign.mat"
    with pytest.raises(InputError, match="no such file"):
        read_design(path, 1)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"nsd_expdesign\.mat: "):
        read_design(path, 1)
    path.write_bytes(write(tmp_path).read_bytes()[:-30])
    with pytest.raises(InputError, match=r"nsd_expdesign\.mat: "):
        read_design(path, 1)
