"""Plain arrays: each one is interpreted correctly, and each mismatch raises one error."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_recordings import make_arrays, write_arrays, write_picture
from PIL import Image
from scipy.io import savemat

from harness.brains.brain import Brain
from harness.brains.load import load_brain
from harness.config.brain import ArraysConfig
from harness.storage.errors import InputError

N_IMAGES, N_VOXELS, N_PICTURES = 12, 10, 8


def load(root: Path, **settings: Any) -> Brain:
    return load_brain(ArraysConfig(root=str(root), **settings))


@pytest.mark.parametrize("as_npz", [False, True])
def test_what_is_written_is_read(tmp_path: Path, as_npz: bool) -> None:
    arrays = make_arrays()
    root = write_arrays(tmp_path / "mine", arrays, N_PICTURES, as_npz)
    brain = load(root, standardise=False)
    assert brain.name == ("recording.npz" if as_npz else "mine")
    assert (brain.n_images, brain.n_voxels, len(brain.stimuli)) == (N_IMAGES, N_VOXELS, N_IMAGES)
    assert brain.responses.dtype == np.float32
    np.testing.assert_array_equal(brain.responses, arrays["responses"].astype(np.float32))
    np.testing.assert_allclose(brain.coords, arrays["coordinates"], rtol=1e-6)
    np.testing.assert_array_equal(brain.bounding_box, [brain.coords.min(axis=0), brain.coords.max(axis=0)])
    np.testing.assert_allclose(brain.noise_ceiling, arrays["noise_ceiling"], rtol=1e-6)
    for name in ("hemisphere", "stimulus_ids", "n_repeats", "session", "shared"):
        np.testing.assert_array_equal(getattr(brain, name), arrays[name])
    assert {roi.name: roi.rank for roi in brain.rois} == {"V1": 1, "IT": 5, "both": None}
    for roi, members in zip(brain.rois, arrays["rois"], strict=True):
        np.testing.assert_array_equal(roi.voxels, np.flatnonzero(members))
    # rows 8 to 11 repeat pictures 0 to 3
    for row, picture in ((0, 0), (9, 1), (7, 7)):
        with Image.open(tmp_path / f"mine/stimuli/picture_{picture:02d}.png") as expected:
            assert brain.stimuli[row].tobytes() == expected.tobytes()
    assert brain.surface is None
    files = {"recording.npz"} if as_npz else {f"{name}.npy" for name in arrays}
    assert set(brain.fingerprints) == files | {"stimuli/"}


def test_two_arrays_and_pictures_are_enough(tmp_path: Path) -> None:
    arrays = {name: make_arrays()[name] for name in ("responses", "coordinates")}
    brain = load(write_arrays(tmp_path, arrays, N_IMAGES))
    assert brain.rois == ()
    assert (brain.noise_ceiling, brain.n_repeats, brain.session, brain.shared) == (None,) * 4
    assert brain.stimulus_ids.tolist() == [f"picture_{row:02d}.png" for row in range(N_IMAGES)]
    np.testing.assert_array_equal(brain.hemisphere, np.where(arrays["coordinates"][:, 0] < 0, "L", "R"))


def test_responses_are_standardised_unless_told_not_to(tmp_path: Path) -> None:
    arrays = make_arrays()
    root = write_arrays(tmp_path, arrays, N_PICTURES)
    responses = arrays["responses"]
    expected = (responses - responses.mean(axis=0)) / responses.std(axis=0)
    np.testing.assert_allclose(load(root).responses, expected, atol=1e-5)
    assert load(root).fingerprint != load(root, standardise=False).fingerprint


@pytest.mark.parametrize("kind", ["int64", "uint8", "float16", ">f8"])
def test_responses_of_any_number_are_read(tmp_path: Path, kind: str) -> None:
    counts = np.arange(N_IMAGES * N_VOXELS).reshape(N_IMAGES, N_VOXELS) % 17
    arrays = make_arrays() | {"responses": counts.astype(kind)}
    brain = load(write_arrays(tmp_path, arrays, N_PICTURES), standardise=False)
    np.testing.assert_array_equal(brain.responses, counts)
    assert brain.responses.dtype == np.float32


def test_pictures_are_named_by_file_too(tmp_path: Path) -> None:
    shown = np.array([f"picture_{index:02d}.png" for index in [3, 3, 1, 0, 7, 7, 7, 2, 4, 5, 6, 0]])
    arrays = make_arrays() | {"shown": shown}
    del arrays["stimulus_ids"]
    brain = load(write_arrays(tmp_path, arrays, N_PICTURES))
    assert brain.stimulus_ids.tolist() == shown.tolist()
    assert brain.stimuli[0].tobytes() == brain.stimuli[1].tobytes() != brain.stimuli[2].tobytes()


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (["V1", "", "V1", "IT"], None, {"V1": [0, 2], "IT": [3]}),
        (["V1", "", "V1", "IT"], ["V1", "V2", "IT"], {"V1": [0, 2], "IT": [3]}),
        ([0, -1, 0, 2], ["V1", "V2", "IT"], {"V1": [0, 2], "IT": [3]}),
        (
            [[True, False, True, False], [False, False, True, True]],
            ["V1", "IT"],
            {"V1": [0, 2], "IT": [2, 3]},
        ),
    ],
)
def test_regions_may_be_given_in_three_forms(
    tmp_path: Path, labels: Any, names: list[str] | None, expected: dict[str, list[int]]
) -> None:
    arrays = {name: make_arrays(n_voxels=4)[name] for name in ("responses", "coordinates")}
    arrays |= {"rois": np.array(labels)} | ({} if names is None else {"roi_names": np.array(names)})
    brain = load(write_arrays(tmp_path, arrays, N_IMAGES))
    assert {roi.name: roi.voxels.tolist() for roi in brain.rois} == expected


def test_equal_pictures_are_one_stimulus_whatever_they_are_called(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arrays = {name: make_arrays()[name] for name in ("responses", "coordinates")}
    root = write_arrays(tmp_path, arrays, N_IMAGES)
    write_picture(root / "stimuli/picture_05.png", 2)
    with caplog.at_level(logging.WARNING):
        brain = load(root)
    assert brain.stimulus_ids[5] == brain.stimulus_ids[2] == "picture_02.png"
    assert "the same image" in caplog.text


def test_unusable_voxels_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays = make_arrays()
    arrays["responses"][2, 3] = np.nan
    arrays["responses"][:, 5] = 4
    arrays["responses"][1, 6] = 1e300  # beyond the range of float32
    root = write_arrays(tmp_path, arrays, N_PICTURES)
    with caplog.at_level(logging.WARNING):
        brain = load(root)
    kept = [0, 1, 2, 4, 7, 8, 9]
    np.testing.assert_allclose(brain.coords, arrays["coordinates"][kept], rtol=1e-6)
    np.testing.assert_array_equal(
        brain.bounding_box,
        [arrays["coordinates"].astype(np.float32).min(0), arrays["coordinates"].astype("f4").max(0)],
    )
    assert np.isfinite(brain.responses).all()
    assert "2 of 10 voxels have non-finite values" in caplog.text
    assert "1 of 10 voxels have the same value for all stimuli" in caplog.text


def test_voxels_in_one_place_are_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays = make_arrays()
    arrays["coordinates"][4] = arrays["coordinates"][2]
    with caplog.at_level(logging.WARNING):
        load(write_arrays(tmp_path, arrays, N_PICTURES))
    assert "1 voxels have the place of another" in caplog.text


Change = Callable[[dict[str, np.ndarray]], object]
BAD: dict[str, tuple[Change, list[str]]] = {
    "no coordinates": (lambda arrays: arrays.pop("coordinates"), ["expected also coordinates"]),
    "a name mistyped": (
        lambda arrays: arrays.update(coords=arrays["coordinates"]),
        ["unknown array 'coords'", "did you mean 'coordinates'"],
    ),
    "coordinates in the plane": (
        lambda arrays: arrays.update(coordinates=arrays["coordinates"][:, :2]),
        ["coordinates: found shape (10, 2) of float64, expected shape (10, 3)"],
    ),
    "a voxel without place": (
        lambda arrays: arrays["coordinates"].__setitem__((4, 1), np.nan),
        ["coordinates: 1 voxels, such as 4 (counted from 0), have no place"],
    ),
    "responses transposed": (
        lambda arrays: arrays.update(responses=arrays["responses"].T),
        ["coordinates: found shape (10, 3) of float64, expected shape (12, 3)"],
    ),
    "complex responses": (
        lambda arrays: arrays.update(responses=arrays["responses"] * 1j),
        ["responses: found shape (12, 10) of complex128"],
    ),
    "no responses": (
        lambda arrays: arrays.update(responses=np.zeros((0, 10))),
        ["responses: found shape (0, 10)"],
    ),
    "objects": (
        lambda arrays: arrays.update(session=np.array([None] * 12)),
        ["array session holds Python objects", "session.astype(float)"],
    ),
    "places counted from 1": (
        lambda arrays: arrays.update(shown=arrays["shown"] + 1),
        ["shown: found 1 to 8, expected 0 to 7", "counted from 1"],
    ),
    "negative places": (
        lambda arrays: arrays.update(shown=arrays["shown"] - 1),
        ["shown: found -1 to 6, expected 0 to 7"],
    ),
    "a picture that is not there": (
        lambda arrays: arrays.update(shown=np.array(["picture_00.png"] * 11 + ["picture_0.png"])),
        ["shown: unknown image of", "'picture_0.png'", "did you mean 'picture_0"],
    ),
    "more rows than pictures": (
        lambda arrays: arrays.pop("shown"),
        ["12 rows", "8 images in", "stimuli", "`shown`"],
    ),
    "too few ids": (
        lambda arrays: arrays.update(stimulus_ids=np.arange(11)),
        ["stimulus_ids: found shape (11,) of int64, expected shape (12,) of int or str"],
    ),
    "bytes that are no text": (
        lambda arrays: arrays.update(hemisphere=np.array([b"\xff"] * 10)),
        ["hemisphere: found bytes at 0 that are not UTF-8"],
    ),
    "ids with decimals": (
        lambda arrays: arrays.update(stimulus_ids=np.arange(12) / 2),
        ["stimulus_ids", "float64", "int or str"],
    ),
    "a ceiling per row": (
        lambda arrays: arrays.update(noise_ceiling=np.ones(12)),
        ["noise_ceiling: found shape (12,)", "(10,)"],
    ),
    "a negative ceiling": (
        lambda arrays: arrays.update(noise_ceiling=np.full(10, -0.5)),
        ["noise_ceiling: found noise ceilings from -0.5"],
    ),
    "another word for left": (
        lambda arrays: arrays.update(hemisphere=np.array(["lh"] * 10)),
        ["hemisphere: found 'lh', expected 'L' or 'R'"],
    ),
    "a label without a name": (
        lambda arrays: arrays.update(rois=np.arange(10) - 1, roi_names=np.array(["V1", "V2", "V3"])),
        ["rois: found labels -1 to 8, which are not all named", "0 to 2"],
    ),
    "whole labels as floats": (
        lambda arrays: arrays.update(rois=np.zeros(10), roi_names=np.array(["V1", "V2", "V3"])),
        [
            "rois: found shape (10,) of float64, expected names as text, or whole numbers",
            "store rois.astype(int)",
        ],
    ),
    "sessions as a column of floats": (
        lambda arrays: arrays.update(session=np.ones((12, 1))),
        ["session: found shape (12, 1) of float64", "; store session.ravel().astype(int)"],
    ),
    "flags as numbers": (
        lambda arrays: arrays.update(shared=np.arange(12) % 2),
        ["shared: found shape (12,) of int64", "; store shared.astype(bool)"],
    ),
    "coordinates transposed": (
        lambda arrays: arrays.update(coordinates=arrays["coordinates"].T),
        ["coordinates: found shape (3, 10)", "; store coordinates.T"],
    ),
    "labels without names": (
        lambda arrays: [arrays.update(rois=np.arange(10)), arrays.pop("roi_names"), arrays.pop("roi_ranks")],
        ["rois: found shape (10,) of int64", "roi_names"],
    ),
    "a name that is not in the list": (
        lambda arrays: arrays.update(rois=np.array(["V1"] * 9 + ["v1"])),
        ["unknown name of roi_names 'v1'", "did you mean 'V1'"],
    ),
    "names without labels": (lambda arrays: arrays.pop("rois"), ["found roi_names, expected also rois"]),
    "ranks without names": (
        lambda arrays: [arrays.update(rois=np.array(["V1"] * 10)), arrays.pop("roi_names")],
        ["found roi_ranks, expected also roi_names"],
    ),
    "a rank too few": (
        lambda arrays: arrays.update(roi_ranks=np.ones(2)),
        ["roi_ranks: found shape (2,)", "(3,)"],
    ),
    "a name twice": (
        lambda arrays: arrays.update(roi_names=np.array(["V1", "V2", "V1"])),
        ["two regions named 'V1'"],
    ),
    "a name that results cannot have": (
        lambda arrays: arrays.update(roi_names=np.array(["V1", "all", "V2"])),
        ["region named 'all'"],
    ),
    "no repeat": (
        lambda arrays: arrays.update(n_repeats=np.zeros(12, int)),
        ["n_repeats: found 0", "1 or more"],
    ),
}


@pytest.mark.parametrize("as_npz", [False, True])
@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_one_line_that_names_the_file(case: str, as_npz: bool, tmp_path: Path) -> None:
    arrays = make_arrays()
    damage, parts = BAD[case]
    damage(arrays)
    root = write_arrays(tmp_path / "mine", arrays, N_PICTURES, as_npz)
    with pytest.raises(InputError) as raised:
        load(root)
    message = str(raised.value)
    assert "\n" not in message
    for part in [str(root), *parts]:
        assert part in message


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    root = write_arrays(tmp_path / "mine", make_arrays(), N_PICTURES, as_npz=True)
    whole = root.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"PK no archive", np.arange(3).tobytes()):
        root.write_bytes(content)
        with pytest.raises(InputError, match=r"recording\.npz: not a readable npz file"):
            load(root)
    np.save(tmp_path / "mine/single.npy", np.arange(3))
    (tmp_path / "mine/single.npy").rename(root)
    with pytest.raises(InputError, match=r"recording\.npz: found a single array"):
        load(root)
    with pytest.raises(InputError, match=r"brain\.root: .*nowhere: no such file or folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="found no array, expected also responses"):
        load(tmp_path)


def test_numbers_that_sort_otherwise_need_a_list(tmp_path: Path) -> None:
    arrays = {name: make_arrays()[name] for name in ("responses", "coordinates")}
    root = write_arrays(tmp_path, arrays, 0)
    for row in range(N_IMAGES):
        write_picture(root / f"stimuli/{row}.png", row)
    with pytest.raises(InputError, match=r"order is ambiguous: 10\.png or 2\.png"):
        load(root)
    np.save(root / "shown.npy", np.array([f"{row}.png" for row in range(N_IMAGES)]))
    assert load(root).stimulus_ids[2] == "2.png"


def test_bytes_are_text(tmp_path: Path) -> None:
    """As h5py and MATLAB's readers return it."""
    arrays = make_arrays()
    plain = load(write_arrays(tmp_path / "plain", arrays, N_PICTURES, True))
    arrays["roi_names"] = arrays["roi_names"].astype(np.bytes_)
    arrays["hemisphere"] = np.where(arrays["coordinates"][:, 0] < 0, b"L", b"R")
    brain = load(write_arrays(tmp_path / "bytes", arrays, N_PICTURES, True))
    assert [roi.name for roi in brain.rois] == [roi.name for roi in plain.rois]
    assert brain.hemisphere.tolist() == np.where(brain.coords[:, 0] < 0, "L", "R").tolist()


def test_other_formats_are_told_by_their_content(tmp_path: Path) -> None:
    savemat(tmp_path / "recording.mat", {"responses": np.zeros((3, 2))})
    with pytest.raises(InputError) as caught:
        load(tmp_path / "recording.mat")
    assert str(caught.value) == (
        f"{tmp_path / 'recording.mat'}: not a readable npz file (found a MATLAB file (read it with "
        "scipy.io.loadmat and save its arrays with numpy.savez))"
    )
    (tmp_path / "lfs.npz").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="found a Git LFS pointer, not the content: run git lfs pull"):
        load(tmp_path / "lfs.npz")
    (tmp_path / "annex.npz").symlink_to(".git/annex/objects/xx/yy/SHA256E-s1--0.npz")
    with pytest.raises(InputError, match=r"annex\.npz: .*without the content: run datalad get"):
        load(tmp_path / "annex.npz")


def test_text_in_memory_may_be_objects() -> None:
    """As pandas returns a column of names."""
    rng = np.random.default_rng(0)
    responses, places = rng.normal(size=(4, 3)), rng.normal(size=(3, 3))
    pictures = rng.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    names = np.array(["V1", "", "V1"], dtype=object)
    brain = Brain.from_arrays(responses, places, pictures, rois=names)
    assert {roi.name: roi.voxels.tolist() for roi in brain.rois} == {"V1": [0, 2]}
    names[1] = np.nan
    with pytest.raises(InputError, match=r"rois: found a float at 1 \(counted from 0\) of .* expected text"):
        Brain.from_arrays(responses, places, pictures, rois=names)
