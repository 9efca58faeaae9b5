"""The file's own axis defines the grayordinates, in any number."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from made_cifti import AFFINE, N_ALL, N_CORTEX, lay_out, write_maps
from nibabel.cifti2 import cifti2_axes as axes

from harness.brains.cortex import load_cortex
from harness.brains.grayordinates import cifti
from harness.brains.grayordinates.cifti import open_cifti
from harness.storage.errors import InputError

FEW = lay_out(subcortex=True, every=16)


@pytest.fixture(scope="module")
def cortical() -> axes.BrainModelAxis:
    return lay_out(subcortex=False)


def write(path: Path, columns: axes.BrainModelAxis, n_maps: int = 3, **options: bool) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((n_maps, len(columns)), dtype=np.float32)
    write_maps(path, values, columns, **options)
    return values


def test_the_layout_with_subcortex(tmp_path: Path) -> None:
    write(tmp_path / "a.dscalar.nii", lay_out(subcortex=True))
    layout = open_cifti(tmp_path / "a.dscalar.nii").layout
    assert len(layout.vertex) == N_ALL
    left, right = (layout.structure == f"CORTEX_{side}" for side in ("LEFT", "RIGHT"))
    assert (left.sum(), right.sum()) == (29696, 29716)
    assert layout.vertex[left].max() < 32492 <= layout.vertex[right].min()
    assert (layout.vertex[~left & ~right] == -1).all()
    # these are the vertices that have an area, in order
    np.testing.assert_array_equal(layout.vertex[left | right], np.flatnonzero(load_cortex().area != ""))
    assert np.isnan(layout.place[left | right]).all()
    first = np.flatnonzero(layout.structure == "THALAMUS_LEFT")[0]
    np.testing.assert_allclose(layout.place[first], AFFINE[:3, :3] @ [50, 30, 20] + AFFINE[:3, 3])


@pytest.mark.parametrize("name", ["a.dscalar.nii", "a.dtseries.nii"])
@pytest.mark.parametrize("intent", [True, False])
def test_maps_and_series_without_subcortex(
    name: str, intent: bool, cortical: axes.BrainModelAxis, tmp_path: Path
) -> None:
    values = write(tmp_path / name, cortical, intent=intent)
    file = open_cifti(tmp_path / name)
    assert (len(file.layout.vertex), file.n_maps) == (N_CORTEX, 3)
    chosen, found = np.array([5, 59411, 30000]), np.empty((2, 3), np.float32)
    file.read(np.array([0, 2]), chosen, found)
    np.testing.assert_array_equal(found, values[np.ix_([0, 2], chosen)])


def test_columns_in_another_order_are_found_by_the_axis(tmp_path: Path) -> None:
    parts = {name: model for name, _, model in FEW.iter_structures()}
    order = ["BRAIN_STEM", "CORTEX_RIGHT", "THALAMUS_LEFT", "CORTEX_LEFT"]
    columns = sum(
        (parts[f"CIFTI_STRUCTURE_{name}"] for name in order[1:]), parts["CIFTI_STRUCTURE_BRAIN_STEM"]
    )
    write(tmp_path / "a.dscalar.nii", columns)
    layout = open_cifti(tmp_path / "a.dscalar.nii").layout
    assert list(dict.fromkeys(layout.structure.tolist())) == order
    right = layout.structure == "CORTEX_RIGHT"
    np.testing.assert_array_equal(layout.vertex[right], parts["CIFTI_STRUCTURE_CORTEX_RIGHT"].vertex + 32492)


def structures() -> dict[str, axes.BrainModelAxis]:
    return {str(name).removeprefix("CIFTI_STRUCTURE_"): model for name, _, model in FEW.iter_structures()}


def mirrored() -> axes.BrainModelAxis:
    """The same voxels at the same millimetres, in a volume stored from left to right, in another order."""
    parts, affine = structures(), AFFINE.copy()
    affine[0, 0], affine[0, 3] = -AFFINE[0, 0], AFFINE[0, 3] + AFFINE[0, 0] * 90
    for name in ("THALAMUS_LEFT", "THALAMUS_RIGHT", "BRAIN_STEM"):
        voxels = parts[name].voxel[::-1].copy()
        voxels[:, 0] = 90 - voxels[:, 0]
        parts[name] = axes.BrainModelAxis(name, voxel=voxels, affine=affine, volume_shape=(91, 109, 91))
    parts["CORTEX_LEFT"] = parts["CORTEX_LEFT"][::-1]
    first, *others = reversed(parts.values())
    return sum(others, first)


def test_the_order_of_one_file_is_the_order_of_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # every grayordinate's value says where it is
    first, other = tmp_path / "a.dscalar.nii", tmp_path / "b.dscalar.nii"
    for path, columns in ((first, FEW), (other, mirrored())):
        write(path, columns)
        place = open_cifti(path).layout
        value = np.where(place.vertex >= 0, place.vertex, np.nan_to_num(place.place) @ [1, 100, 10000])
        write_maps(path, value[None].astype(np.float32), columns)
    reference = open_cifti(first)
    found, chosen = [np.empty((1, len(FEW)), np.float32) for _ in range(2)], np.arange(len(FEW))
    reference.read(np.array([0]), chosen, found[0])
    arranged = open_cifti(other).arranged_as(reference)
    arranged.read(np.array([0]), chosen, found[1])
    np.testing.assert_array_equal(found[1], found[0])
    assert arranged.layout.same_as(reference.layout) and not open_cifti(other).layout.same_as(arranged.layout)
    assert f"{other}: the grayordinates are in another order than in {first}" in caplog.text


def test_other_voxels_are_refused_with_their_structure(tmp_path: Path) -> None:
    parts = structures()
    far = AFFINE.copy()
    far[0, 3] += 0.5
    thalamus = parts["THALAMUS_LEFT"]
    shifted = axes.BrainModelAxis(
        "THALAMUS_LEFT", voxel=thalamus.voxel, affine=far, volume_shape=(91, 109, 91)
    )
    cortex = parts["CORTEX_LEFT"] + parts["CORTEX_RIGHT"]
    vertex = parts["CORTEX_LEFT"].vertex.copy()
    vertex[3] += 1
    moved = axes.BrainModelAxis.from_surface(vertex, 32492, name="CortexLeft") + parts["CORTEX_RIGHT"]
    write(tmp_path / "a.dscalar.nii", cortex + thalamus)
    reference = open_cifti(tmp_path / "a.dscalar.nii")
    for columns, found in (
        (cortex + shifted, f"other voxels in THALAMUS_LEFT ({len(thalamus)}), expected the same"),
        (moved + thalamus, f"other vertices in CORTEX_LEFT ({len(vertex)}), expected the same"),
        (cortex, f"0 grayordinates in THALAMUS_LEFT, expected {len(thalamus)}"),
    ):
        write(tmp_path / "b.dscalar.nii", columns)
        with pytest.raises(InputError) as caught:
            open_cifti(tmp_path / "b.dscalar.nii").arranged_as(reference)
        assert str(caught.value) == (
            f"{tmp_path / 'b.dscalar.nii'}: found {found}, as in {tmp_path / 'a.dscalar.nii'}"
        )


def test_blocks_and_scaled_integers_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).integers(-100, 100, (4, len(FEW))).astype(np.int16)
    image = nibabel.Cifti2Image(values, (axes.SeriesAxis(0, 1, 4), FEW))
    nibabel.save(image, tmp_path / "a.dtseries.nii")
    content = bytearray((tmp_path / "a.dtseries.nii").read_bytes())
    content[176:192] = np.array([0.25, 2], "<f8").tobytes()  # scl_slope and scl_inter of NIfTI-2
    (tmp_path / "a.dtseries.nii").write_bytes(content)
    file = open_cifti(tmp_path / "a.dtseries.nii")
    chosen = np.arange(0, len(FEW), 100)
    found = [np.empty((2, len(chosen)), np.float32) for _ in range(2)]
    file.read(np.array([3, 1]), chosen, found[0])
    monkeypatch.setattr(cifti, "BLOCK", 64)
    file.read(np.array([3, 1]), chosen, found[1])
    np.testing.assert_array_equal(found[0], values[np.ix_([3, 1], chosen)] * 0.25 + 2)
    np.testing.assert_array_equal(found[1], found[0])


def only_left() -> axes.BrainModelAxis:
    return next(model for name, _, model in FEW.iter_structures() if name.endswith("CORTEX_LEFT"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (only_left(), "found CORTEX_LEFT, expected also CORTEX_RIGHT: a hemisphere is missing"),
        (
            lay_out(subcortex=False, n_vertices=59292, every=16),
            "found a mesh of 59292 vertices, expected 32492",
        ),
    ],
)
def test_other_meshes_and_single_hemispheres_are_refused(
    columns: axes.BrainModelAxis, message: str, tmp_path: Path
) -> None:
    write(tmp_path / "a.dscalar.nii", columns)
    with pytest.raises(InputError, match=rf"a\.dscalar\.nii: {message}"):
        open_cifti(tmp_path / "a.dscalar.nii")


def test_other_axes_are_refused(tmp_path: Path) -> None:
    labels = axes.LabelAxis(["a"], [{0: ("x", (0, 0, 0, 0))}])
    nibabel.save(
        nibabel.Cifti2Image(np.zeros((1, len(FEW)), np.float32), (labels, FEW)), tmp_path / "a.dlabel.nii"
    )
    with pytest.raises(InputError, match="found LabelAxis × BrainModelAxis, expected maps or a series"):
        open_cifti(tmp_path / "a.dlabel.nii")
    series = axes.SeriesAxis(0, 1, 2)
    nibabel.save(nibabel.Cifti2Image(np.zeros((2, 2), np.float32), (series, series)), tmp_path / "a.nii")
    with pytest.raises(InputError, match="found SeriesAxis × SeriesAxis"):
        open_cifti(tmp_path / "a.nii")


def test_broken_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.dscalar.nii"
    with pytest.raises(InputError, match=r"a\.dscalar\.nii: no such file"):
        open_cifti(path)
    write(path, FEW)
    content = path.read_bytes()
    for broken in (content[:300], content[:2000], content[:-100], b"x" * 2000):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"a\.dscalar\.nii: not a readable CIFTI file"):
            open_cifti(path)
    nibabel.save(nibabel.Nifti2Image(np.zeros((3, 3, 3), np.float32), np.eye(4)), path)
    with pytest.raises(InputError, match=r"a\.dscalar\.nii: not a readable CIFTI file"):
        open_cifti(path)
