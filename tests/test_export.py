"""Voxelwise maps in every format, read back by nibabel and opened by nilearn."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from made_nsd import AFFINE, SHAPE, write_nsd, write_surface
from made_run import write_tracked
from made_study import LAYERS, make_brain, make_mapping
from nilearn.image import load_img
from nilearn.surface import load_surf_data
from test_places import write_grayordinates

from harness.brains.brain import Roi
from harness.brains.load import load_brain, locate_voxels
from harness.commands.export import main
from harness.config.compose import read_config
from harness.exports.voxel_maps import list_maps, spread
from harness.exports.write import write_export
from harness.mappings.mapping import load_mapping
from harness.measures.catalogue import describe
from harness.measures.rewiring import expected_depth, wasserstein
from harness.measures.verdict_rows import read_verdict
from harness.runs.layout import mapping_folder
from harness.storage.errors import InputError

NAMES = [
    *("layer", "depth", "confidence", "r2", "r2_normalised", "correlation", "scale", "place_x", "place_y"),
    *("wasserstein", "depth_shift", "r2_change", "wasserstein_null", "counted", "region_verdict", "region_p"),
]
VERDICT = {
    "verdict/all/kind": 3.0,
    "verdict/V1/kind": 3.0,
    "verdict/V1/p": 0.002,
    "verdict/FFC/kind": 1.0,
    "verdict/FFC/p": 0.4,
}
SIMULATED = ["brain=simulated", "brain.n_voxels=150", "brain.n_stimuli=20"]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tracked(tmp_path_factory.mktemp("runs") / "run", SIMULATED, VERDICT)


@pytest.fixture(scope="module")
def nsd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_nsd(tmp_path_factory.mktemp("nsd"))
    rows = {"verdict/all/kind": 0.0, "verdict/V1/kind": 2.0, "verdict/V1/p": 0.01}
    return write_tracked(
        tmp_path_factory.mktemp("runs") / "run", ["brain=nsd", f"brain.root={made.root}"], rows
    )


def expect(run: Path, step: int = 4) -> tuple[Any, Any, pd.DataFrame]:
    """Brain, places and maps of a run, by the table that has them voxel by voxel."""
    config = read_config(run / "config.yaml").brain
    brain = load_brain(config)
    path = write_export(run, "parquet", step)[0]
    return brain, locate_voxels(config, brain), pd.read_parquet(path)


def test_maps_are_those_of_the_mapping_and_of_results(simulated: Path) -> None:
    brain, _, table = expect(simulated)
    assert table.columns.tolist() == [
        *("voxel", "hemisphere", "x", "y", "z", "vertex", "roi", "layer_name", *NAMES)
    ]
    after = load_mapping(mapping_folder(simulated, 4))
    fits = [load_mapping(mapping_folder(simulated, 0, refit)) for refit in range(3)]
    np.testing.assert_array_equal(table["layer"], after.layer.argmax(axis=1) + 1)
    assert table["layer_name"].tolist() == [LAYERS[number - 1] for number in table["layer"]]
    np.testing.assert_array_equal(table["depth"], expected_depth(after.layer).astype(np.float32))
    for name in ("r2", "correlation", "scale"):
        np.testing.assert_array_equal(table[name], getattr(after, name))
    np.testing.assert_array_equal(table[["place_x", "place_y"]], after.space)
    distances = np.mean([wasserstein(fit.layer, after.layer) for fit in fits], axis=0)
    np.testing.assert_allclose(table["wasserstein"], distances, rtol=1e-6)
    between = [wasserstein(fits[i].layer, fits[j].layer) for i, j in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(table["wasserstein_null"], np.mean(between, axis=0), rtol=1e-6)
    change = after.r2 - np.mean([fit.r2 for fit in fits], axis=0)
    np.testing.assert_allclose(table["r2_change"], change, atol=1e-6)
    np.testing.assert_allclose(table["r2_normalised"], after.r2 / brain.noise_ceiling, rtol=1e-5)
    for name, codes in (("V1", (3, 0.002)), ("FFC", (1, 0.4))):
        inside = table[table["roi"] == name]
        assert {tuple(row) for row in inside[["region_verdict", "region_p"]].to_numpy()} == {
            tuple(np.float32(codes).tolist())
        }
    assert table.loc[~table["roi"].isin(["V1", "FFC"]), ["region_verdict", "region_p"]].isna().all(axis=None)


def test_step_0_has_no_change_and_no_verdict(simulated: Path) -> None:
    _, _, table = expect(simulated, 0)
    assert table.columns.tolist()[-9:] == NAMES[:9]


def test_what_a_mapping_lacks_is_absent() -> None:
    brain = make_brain()
    mapping = make_mapping(brain, 0.5, 0.0, 1)
    assert [each.name for each in list_maps(mapping, (), brain)] == NAMES[:9]
    absent = dict.fromkeys(("space", "scale", "weights", "bias"))
    bare = replace(mapping, family="layer_ridge", **absent)
    none = replace(brain, noise_ceiling=np.r_[np.zeros(2), np.full(46, 0.5)].astype(np.float32))
    maps = {each.name: each.values for each in list_maps(bare, (bare,), none)}
    assert list(maps) == [*NAMES[:6], *NAMES[9:12], "counted"]
    assert np.isnan(maps["r2_normalised"]).tolist() == [True] * 2 + [False] * 46  # too low a ceiling


def test_of_several_regions_the_smallest_counts() -> None:
    brain = make_brain()
    inner = replace(brain, rois=(*brain.rois, Roi("part", np.arange(3), None)))
    found = spread({"all": 9.0, "V1": 1.0, "part": 2.0}, inner)
    assert found[:3].tolist() == [2.0] * 3
    assert found[3:16].tolist() == [1.0] * 13
    assert np.isnan(found[16:]).all()
    np.testing.assert_array_equal(spread({"all": 0.5}, brain), np.full(48, 0.5))
    collapsed = read_verdict({"verdict/all/kind": 0.0, "collapse/all/not_finite": 1.0})
    mapping = make_mapping(brain, 0.5, 0.0, 1)
    names = [each.name for each in list_maps(mapping, (mapping, mapping), brain, collapsed)]
    assert "region_p" not in names


def test_csv_gives_the_same_numbers_again(simulated: Path, tmp_path: Path) -> None:
    written = write_export(simulated, "csv", output=tmp_path)
    assert [path.name for path in written] == ["maps.csv", "maps.json"]
    _, _, expected = expect(simulated)
    found = pd.read_csv(written[0], dtype=dict.fromkeys([*NAMES[1:], "x", "y", "z"], np.float32))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_nifti(nsd: Path) -> None:
    brain, places, table = expect(nsd)
    written = write_export(nsd, "nifti")
    assert [path.name for path in written] == [*(f"{name}.nii.gz" for name in NAMES), "maps.json"]
    assert written[0].parent == nsd / "exports/step-000004/nifti"
    inside = np.zeros(SHAPE, bool)
    inside[tuple(places.index.T)] = True
    for path, name in zip(written[:-1], NAMES, strict=True):
        image = nibabel.load(path)
        values = np.asanyarray(image.dataobj)
        np.testing.assert_array_equal(image.affine, np.float32(AFFINE))
        np.testing.assert_array_equal(values[tuple(places.index.T)], table[name])
        outside = values[~inside]
        assert (outside == 0).all() if name == "layer" else np.isnan(outside).all()
    assert nibabel.load(written[0]).get_data_dtype() == np.int16
    # every voxel's coordinates lead to its value
    place = np.linalg.inv(AFFINE) @ [*brain.coords[7], 1]
    assert load_img(written[1]).get_fdata()[tuple(np.rint(place[:3]).astype(int))] == table["depth"][7]


def read_gifti(path: Path) -> dict[str, np.ndarray]:
    return {array.meta["Name"]: array.data for array in nibabel.load(path).darrays}


def check_gifti(run: Path, n_vertices: tuple[int, int]) -> list[Path]:
    brain, places, table = expect(run)
    written = write_export(run, "gifti")
    assert [path.name for path in written] == [
        *("lh.maps.func.gii", "lh.layer.label.gii", "rh.maps.func.gii", "rh.layer.label.gii", "maps.json")
    ]
    names = [name for name in NAMES if name in table]
    for place, (side, structure) in enumerate((("L", "CortexLeft"), ("R", "CortexRight"))):
        maps, label = nibabel.load(written[2 * place]), nibabel.load(written[2 * place + 1])
        assert (
            maps.meta["AnatomicalStructurePrimary"] == label.meta["AnatomicalStructurePrimary"] == structure
        )
        own = brain.hemisphere == side
        arrays = read_gifti(written[2 * place])
        assert list(arrays) == names
        for name, values in arrays.items():
            assert values.shape == (n_vertices[place],)
            np.testing.assert_array_equal(values[places.vertex[own]], table.loc[own, name])
            assert np.isfinite(values).sum() == np.isfinite(table.loc[own, name]).sum()
        assert label.labeltable.get_labels_as_dict() == {0: "???", **dict(enumerate(LAYERS, 1))}
        (layer,) = read_gifti(written[2 * place + 1]).values()
        np.testing.assert_array_equal(layer[places.vertex[own]], table.loc[own, "layer"])
        assert np.count_nonzero(layer) == own.sum()
        # nilearn has one column per map
        loaded = load_surf_data(written[2 * place])
        assert loaded.shape == (n_vertices[place], len(names))
        np.testing.assert_array_equal(loaded[:, 1], arrays["depth"])
        np.testing.assert_array_equal(load_surf_data(written[2 * place + 1]), layer)
    return written


def test_gifti_on_the_cortex_of_hcp(simulated: Path) -> None:
    check_gifti(simulated, (32492, 32492))


@pytest.mark.parametrize(
    ("preparation", "sizes"), [("fsaverage", (163842,) * 2), ("nativesurface", (420, 390))]
)
def test_gifti_on_surfaces_of_freesurfer(preparation: str, sizes: tuple[int, int], tmp_path: Path) -> None:
    made = write_surface(tmp_path / "nsd", preparation)
    settings = ["brain=nsd", f"brain.root={made.root}", f"brain.preparation={preparation}"]
    run = write_tracked(tmp_path / "run", settings)
    check_gifti(run, sizes)
    if preparation == "fsaverage":
        path, about = write_export(run, "pycortex")
        brain, places, table = expect(run)
        with np.load(path) as arrays:
            depth = arrays["depth"]
        assert depth.shape == (2 * 163842,)
        at = places.vertex + 163842 * (brain.hemisphere == "R")
        np.testing.assert_array_equal(depth[at], table["depth"])
        expected = {"kind": "Vertex", "subject": "fsaverage", "transform": None}
        assert json.loads(about.read_text())["pycortex"] == expected
    with pytest.raises(InputError, match=r"cifti: found .* expected grayordinates on fs_LR 32k"):
        write_export(run, "cifti")


def check_cifti(run: Path) -> tuple[Any, Any, pd.DataFrame, Any]:
    brain, places, table = expect(run)
    scalars, labels, _ = write_export(run, "cifti")
    image = nibabel.load(scalars)
    rows, columns = (image.header.get_axis(place) for place in (0, 1))
    names = [name for name in NAMES if name in table]
    assert rows.name.tolist() == names
    assert rows.meta[names.index("depth")]["unit"] == "share of the depth"
    # each grayordinate is one voxel, found by its structure and vertex or index
    known = {
        (structure or f"CORTEX_{'LEFT' if side == 'L' else 'RIGHT'}", int(vertex), *map(int, index)): voxel
        for voxel, (structure, side, vertex, index) in enumerate(
            zip(places.structure, brain.hemisphere, places.vertex, places.index, strict=True)
        )
    }
    found = [
        known[name.removeprefix("CIFTI_STRUCTURE_"), int(vertex), *map(int, index)]
        for name, vertex, index in zip(columns.name, columns.vertex, columns.voxel, strict=True)
    ]
    assert sorted(found) == list(range(brain.n_voxels))
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), table[names].to_numpy("f4")[found].T)
    label = nibabel.load(labels)
    np.testing.assert_array_equal(label.get_fdata()[0], table["layer"].to_numpy()[found])
    table_of = label.header.get_axis(0).label[0]
    assert [table_of[number][0] for number in range(9)] == ["???", *LAYERS]
    codes = [nibabel.load(path).nifti_header.get_intent()[0] for path in (scalars, labels)]
    assert codes == ["ConnDenseScalar", "ConnDenseLabel"]
    return brain, places, table, columns


def test_cifti_of_grayordinates(tmp_path: Path) -> None:
    root = tmp_path / "maps"
    write_grayordinates(root)
    settings = ["brain=grayordinates", f"brain.root={root}", "brain.cortex=all", "brain.subcortex=true"]
    run = write_tracked(tmp_path / "run", settings)
    columns = check_cifti(run)[-1]
    # all of them: the very axis of the source
    assert columns == nibabel.load(root / "a.dscalar.nii").header.get_axis(1)
    for form in ("gifti", "nifti", "pycortex"):
        with pytest.raises(InputError, match=f"^--format {form}: found .* fs_LR 32k and .* voxels of a vol"):
            write_export(run, form)


def test_cifti_of_the_simulated_subject(simulated: Path) -> None:
    check_cifti(simulated)


def test_pycortex_in_a_volume(nsd: Path) -> None:
    _, places, table = expect(nsd)
    path, about = write_export(nsd, "pycortex", pycortex_subject="S1", pycortex_transform="S1_auto")
    with np.load(path) as arrays:
        assert list(arrays) == NAMES
        assert arrays["depth"].shape == SHAPE[::-1]
        x, y, z = places.index.T
        for name in NAMES:
            np.testing.assert_array_equal(arrays[name][z, y, x], table[name])
        assert np.isfinite(arrays["depth"]).sum() == len(table)
    expected = {"kind": "Volume", "subject": "S1", "transform": "S1_auto"}
    assert json.loads(about.read_text())["pycortex"] == expected


def test_brains_of_coordinates_are_tables_only(tmp_path: Path) -> None:
    run = write_tracked(tmp_path / "run", ["brain=python", "brain.function=made_lab:brain"])
    for form in ("gifti", "cifti", "nifti", "pycortex"):
        with pytest.raises(
            InputError,
            match=rf"^--format {form}: found coordinates only in brain .*, expected .*; "
            "this brain can be written as csv or parquet$",
        ) as error:
            write_export(run, form)
        assert "\n" not in str(error.value)
    path, about = write_export(run, "csv")
    found = pd.read_csv(path)
    assert found.columns.tolist()[:6] == ["voxel", "hemisphere", "x", "y", "z", "roi"]
    assert (len(found), json.loads(about.read_text())["places"]["mesh"]) == (30, None)


def test_what_is_missing_is_named(simulated: Path, nsd: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for run, form, settings, problem in (
        (simulated, "mgz", {}, r"^unknown format 'mgz': expected one of"),
        (simulated, "csv", {"step": 3}, "^--step: found 3, expected 0, 4$"),
        (simulated, "csv", {"subject": "subj01"}, "^--subject: found subj01; single-subject run"),
        (simulated, "csv", {"output": file}, "^--output: .* found a file, expected a folder"),
        (simulated, "csv", {"pycortex_subject": "S1"}, "found --format csv, expected pycortex"),
        (simulated, "nifti", {}, "nifti: found 150 vertices of fs_LR 32k .* written as gifti, csv"),
        (simulated, "pycortex", {}, "found 150 vertices of fs_LR 32k and no --pycortex-subject"),
        (
            simulated,
            "pycortex",
            {"pycortex_subject": "S1", "pycortex_transform": "x"},
            "^--pycortex-transform: found x for a surface; expected none",
        ),
        (nsd, "pycortex", {"pycortex_subject": "S1"}, "found a volume and no --pycortex-transform"),
        (nsd, "gifti", {}, "gifti: found .* voxels of a volume .* written as nifti, csv or parquet$"),
        (tmp_path, "csv", {}, r"config\.yaml: no such file"),
    ):
        with pytest.raises(InputError, match=problem) as error:
            write_export(run, form, **settings)
        assert "\n" not in str(error.value)
    other = write_tracked(tmp_path / "run", SIMULATED)
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("n_voxels: 150", "n_voxels: 140"))
    with pytest.raises(InputError, match="step-000004: found 150 voxels, expected 140, as brain simulated-0"):
        write_export(other, "csv")


def test_the_command_prints_files_and_leaves_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    several = [*SIMULATED, "brain.subjects=[3,0]"]
    rows = {"verdict/V1/subj00/kind": 2.0, "verdict/V1/subj00/p": 0.01, "verdict/all/kind": 2.0}
    run = write_tracked(tmp_path / "run", several, rows)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").touch()
    command = ["export", str(run), "--format", "csv", "--subject", "subj00", "--output", str(folder)]
    for _ in range(2):  # the second time, the files are there already
        monkeypatch.setattr(sys, "argv", command)
        main()
        assert capsys.readouterr().out.splitlines() == [str(folder / "maps.csv"), str(folder / "maps.json")]
    assert {path.name for path in folder.iterdir()} == {"maps.csv", "maps.json", "notes.txt"}
    table = pd.read_csv(folder / "maps.csv")
    assert set(table.loc[table["roi"] == "V1", "region_verdict"]) == {2.0}
    about = json.loads((folder / "maps.json").read_text())
    assert (about["subject"], about["step"], about["layers"]["1"]) == ("subj00", 4, LAYERS[0])
    assert set(about["maps"]["depth"]) == {"unit", "meaning"}
    metrics = {
        name: f"rewiring/all/{name}"
        for name in ("wasserstein", "wasserstein_null", "depth_shift", "r2_change")
    }
    metrics |= {"depth": "selectors/all/expected_depth", "r2": "brain/all/r2", "scale": "selectors/all/scale"}
    assert {name: about["maps"][name]["unit"] for name in metrics} == {
        name: describe(metric).unit for name, metric in metrics.items()
    }
    first = write_export(run, "csv", 0)[0]
    assert first == run / "subjects/subj03/exports/step-000000/csv/maps.csv"
