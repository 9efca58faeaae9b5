"""Images are read as written, one map at a time; errors name the broken file."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from harness.brains.neuroimages import (
    N_SAMPLES,
    SAMPLE,
    describe_shape,
    find_places,
    fingerprint_file,
    open_image,
    read_labels,
    read_map,
    stream_maps,
)
from harness.storage.errors import InputError

VALUES = np.random.default_rng(0).integers(-500, 500, (4, 3, 2, 5)).astype(np.int16)


def write(path: Path, values: np.ndarray = VALUES) -> Path:
    affine = np.diag([2.0, 3, 4, 1])
    if path.name.endswith((".mgh", ".mgz")):
        nibabel.save(nibabel.MGHImage(values.astype(np.float32), affine), path)
    else:
        nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii", "x.mgh", "x.mgz"])
def test_maps_come_one_by_one_with_the_first_axis_fastest(name: str, tmp_path: Path) -> None:
    image = open_image(write(tmp_path / name))
    assert (image.shape, image.n_maps) == ((4, 3, 2), 5)
    np.testing.assert_array_equal(image.affine, np.diag([2.0, 3, 4, 1]))
    maps = list(stream_maps(image))
    assert [len(values) for values in maps] == [24] * 5
    for place, values in enumerate(maps):
        # x + 4 y + 12 z
        assert values[1 + 4 * 2 + 12 * 1] == VALUES[1, 2, 1, place]
        np.testing.assert_array_equal(values.reshape((4, 3, 2), order="F"), VALUES[..., place])


def test_a_map_is_scaled_as_its_header_says(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VALUES[..., 0], np.eye(4))
    image.header.set_slope_inter(0.5, 3)
    nibabel.save(image, tmp_path / "x.nii.gz")
    assert open_image(tmp_path / "x.nii.gz").is_scaled
    values = read_map(tmp_path / "x.nii.gz")[1].reshape((4, 3, 2), order="F")
    np.testing.assert_array_equal(values, nibabel.load(tmp_path / "x.nii.gz").get_fdata())
    np.testing.assert_array_equal(values, VALUES[..., 0] / 2 + 3)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip_check_sum(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-6] ^= 255  # the last eight bytes are gzip's checksum and length
    path.write_bytes(content)


def make_nonsense(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>" * 50)


def shorten_inside(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-10]))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("x.nii.gz", cut),
        ("x.nii.gz", flip_check_sum),
        ("x.nii.gz", make_nonsense),
        ("x.nii.gz", shorten_inside),
        ("x.nii.gz", Path.unlink),
        ("x.nii", cut),
        ("x.nii", make_nonsense),
        ("x.mgh", make_nonsense),
        ("x.mgh", lambda path: path.write_bytes(path.read_bytes()[:400])),
        ("x.mgz", cut),
    ],
)
def test_a_broken_file_is_one_error_that_names_it(
    name: str, damage: Callable[[Path], object], tmp_path: Path
) -> None:
    path = write(tmp_path / name)
    damage(path)
    with pytest.raises(InputError, match=name) as caught:
        list(stream_maps(open_image(path)))
    assert "\n" not in str(caught.value)


def test_a_header_cannot_ask_for_memory_that_the_file_does_not_fill(tmp_path: Path) -> None:
    path = write(tmp_path / "x.nii")
    content = bytearray(path.read_bytes())
    content[42:50] = np.array([30000] * 4, "<i2").tobytes()  # dim[1] to dim[4]
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"ends too early: found \d+ bytes.*30000 × 30000 × 30000"):
        list(stream_maps(open_image(path)))


def test_other_formats_and_numbers_are_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(VALUES.astype(np.complex64), np.eye(4)), tmp_path / "c.nii")
    with pytest.raises(InputError, match=r"c\.nii"):
        open_image(tmp_path / "c.nii")
    nibabel.save(nibabel.Spm99AnalyzeImage(VALUES, np.eye(4)), tmp_path / "s.img")
    with pytest.raises(InputError, match=r"found a Spm.*AnalyzeImage, expected NIfTI or MGH"):
        open_image(tmp_path / "s.img")


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 1e9])
def test_labels_are_whole_numbers(value: float, tmp_path: Path) -> None:
    labels = np.array([-1, 0, 7, 2], np.float32).reshape(4, 1, 1)
    np.testing.assert_array_equal(read_labels(write(tmp_path / "good.mgz", labels))[1], [-1, 0, 7, 2])
    labels[1] = value
    with pytest.raises(InputError, match=r"bad.mgz: .* integers"):
        read_labels(write(tmp_path / "bad.mgz", labels))


def test_one_map_is_one_map(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found 5 maps, expected one"):
        read_map(write(tmp_path / "x.nii.gz"))


def test_shapes_are_said_as_people_say_them() -> None:
    assert describe_shape((81, 104, 83)) == "81 × 104 × 83"
    assert describe_shape((163842, 1, 1)) == describe_shape((163842,)) == "163842 vertices"


def test_large_files_are_told_apart_by_size_and_samples(tmp_path: Path) -> None:
    size = N_SAMPLES * SAMPLE * 2
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(size)
    before = fingerprint_file(path)
    assert before == fingerprint_file(path)
    # first, last and a middle sample
    for place in (0, size - 1, math.floor((size - SAMPLE) / (N_SAMPLES - 1)) + 1):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"x")
        after = fingerprint_file(path)
        assert after != before
        before = after
    with path.open("ab") as file:
        file.write(b"\0")
    assert fingerprint_file(path) != before
    (tmp_path / "small").write_bytes(b"abc")
    (tmp_path / "same").write_bytes(b"abc")
    assert fingerprint_file(tmp_path / "small") == fingerprint_file(tmp_path / "same")


AFFINE = np.array([[2.0, 0, 0, -3], [0, 3, 0, -5], [0, 0, 4, 7], [0, 0, 0, 1]])


def save(path: Path, values: np.ndarray, affine: np.ndarray | None) -> Path:
    kind = nibabel.MGHImage if path.suffix in (".mgh", ".mgz") else nibabel.Nifti1Image
    nibabel.save(kind(values, affine), path)
    return path


def turned_by_hand() -> tuple[np.ndarray, np.ndarray]:
    """Axes (x, y, z) stored as (z, x from right to left, y): [k, 3 - i, j] is [i, j, k]."""
    values = VALUES[..., 0].transpose(2, 0, 1)[:, ::-1]
    # millimetres of [k, m, j]: x = -3 + 2 (3 - m), y = -5 + 3 j, z = 7 + 4 k
    affine = np.array([[0.0, -2, 0, 3], [0, 0, 3, -5], [4, 0, 0, 7], [0, 0, 0, 1]])
    return values, affine


@pytest.mark.parametrize("suffix", ["nii", "mgz"])
def test_other_directions_and_orders_of_axes_are_turned(
    suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values, affine = turned_by_hand()
    reference = open_image(save(tmp_path / "a.nii", VALUES[..., 0], AFFINE))
    path = save(tmp_path / f"b.{suffix}", values.astype(np.float32), affine)
    _, found = read_map(path, reference)
    np.testing.assert_array_equal(found.reshape((4, 3, 2), order="F"), VALUES[..., 0])
    # voxel (1, 2, 1) of 4 × 3 × 2 is stored as (1, 3 - 1, 2) of 2 × 4 × 3
    assert find_places(open_image(path), reference, np.array([1 + 4 * 2 + 12])).tolist() == [
        1 + 2 * 2 + 8 * 2
    ]
    assert f"{path}: the axes run SLA; they are turned to RAS, as in {reference.path}" in caplog.text


def test_equal_grids_are_not_remarked_upon(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rounded = AFFINE + 1e-3
    rounded[3] = AFFINE[3]
    files = [save(tmp_path / name, VALUES, each) for name, each in (("a.nii", AFFINE), ("b.nii", rounded))]
    # vertices have no axes, whatever a header says of them
    surface = np.zeros((24, 1, 1), np.float32)
    files += [
        save(tmp_path / "a.mgh", surface, np.eye(4)),
        save(tmp_path / "b.mgh", surface, np.diag([-1.0, 1, 1, 1])),
    ]
    places = np.array([5, 0, 23])
    for one, other in (files[:2], files[2:]):
        assert find_places(open_image(one), open_image(other), places).tolist() == [5, 0, 23]
    assert not caplog.records


def oblique(degrees: float) -> np.ndarray:
    affine, angle = AFFINE.copy(), math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    affine[:2, :2] = turn @ affine[:2, :2]
    return affine


@pytest.mark.parametrize(
    ("affine", "problem"),
    [
        (AFFINE + np.outer([2, 0, 0, 0], [0, 0, 0, 1]), "first voxel at (-1, -5"),
        (AFFINE @ np.diag([1.2, 1, 1, 1]), "voxels of 2.4 × 3 × 4 mm, expected of 2 × 3 × 4 mm"),
        (oblique(5), "axes at another angle"),
        # mirrored about another place: the same voxels are not there
        (AFFINE @ np.diag([-1, 1, 1, 1]), "axes LAS, expected RAS"),
    ],
)
def test_other_grids_are_refused_with_both_files(affine: np.ndarray, problem: str, tmp_path: Path) -> None:
    one, other = save(tmp_path / "a.nii", VALUES, AFFINE), save(tmp_path / "b.nii", VALUES, affine)
    with pytest.raises(InputError) as caught:
        find_places(open_image(other), open_image(one), np.array([0]))
    assert str(caught.value).startswith(f"{other}: lies on another grid than {one}: found {problem}")


def test_a_header_without_orientation_is_pointed_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = save(tmp_path / "a.nii", VALUES, AFFINE), save(tmp_path / "b.nii", VALUES, None)
    assert find_places(open_image(other), open_image(one), np.array([3])).tolist() == [3]
    assert (
        f"{other}: the header does not say where the voxels lie; they are taken to be stored" in caplog.text
    )
