"""A made Algonauts 2023 folder loads as written, or fails with one error."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_recordings import (
    N_FSAVERAGE,
    N_TEST,
    N_TRAIN,
    NAMES,
    SIZES,
    save,
    write_algonauts,
    write_picture,
)
from PIL import Image

from harness.brains.algonauts.rois import (
    LABELS,
    read_mapping,
)
from harness.brains.brain import Brain
from harness.brains.fsaverage import load_fsaverage
from harness.brains.load import load_brain
from harness.config.brain import Algonauts2023Config
from harness.storage.errors import InputError

FMRI = "training_split/training_fmri"
IMAGES = "training_split/training_images"


def load(folder: Path, **settings: Any) -> Brain:
    return load_brain(Algonauts2023Config(root=str(folder), **settings))


def read(folder: Path, name: str) -> np.ndarray:
    return np.load(folder / name)


@pytest.mark.parametrize("subject", ["subj01", "subj06"])
def test_what_is_written_is_read(tmp_path: Path, subject: str) -> None:
    folder = write_algonauts(tmp_path, subject)
    brain = load(folder)
    n_left, n_right = SIZES[subject].values()
    assert brain.name == f"algonauts2023-{subject}"
    assert (brain.n_images, brain.n_voxels) == (N_TRAIN, n_left + n_right)
    assert brain.responses.dtype == brain.coords.dtype == np.float32
    left, right = (read(folder, f"{FMRI}/{side}_training_fmri.npy") for side in ("lh", "rh"))
    np.testing.assert_array_equal(brain.responses, np.hstack([left, right]))
    assert brain.hemisphere.tolist() == ["L"] * n_left + ["R"] * n_right
    # coordinates on the two spheres, side by side
    sphere = load_fsaverage().sphere
    mask = np.hstack(
        [read(folder, f"roi_masks/{side}.all-vertices_fsaverage_space.npy") for side in ("lh", "rh")]
    )
    np.testing.assert_array_equal(brain.coords, sphere[mask != 0])
    assert (
        brain.coords[brain.hemisphere == "L", 0].max() < 101 < brain.coords[brain.hemisphere == "R", 0].min()
    )
    np.testing.assert_array_equal(brain.bounding_box, [sphere.min(axis=0), sphere.max(axis=0)])
    # what the folder does not hold is None
    assert (brain.noise_ceiling, brain.n_repeats, brain.session, brain.shared) == (None,) * 4
    assert brain.stimulus_ids.tolist() == [13 + 7 * row for row in range(N_TRAIN)]


def test_stimuli_are_decoded_when_asked_for_in_any_order(tmp_path: Path) -> None:
    folder = write_algonauts(tmp_path)
    stimuli = load(folder).stimuli
    paths = sorted((folder / IMAGES).iterdir())
    for row in (7, 0, 11, 7, -1):
        with Image.open(paths[row]) as expected:
            assert stimuli[row].tobytes() == expected.tobytes()
        assert stimuli[row].mode == "RGB"
    assert len(stimuli) == N_TRAIN
    assert stimuli[2:9][1].tobytes() == stimuli[3].tobytes()
    paths[4].unlink()
    with pytest.raises(InputError, match=r"train-0005_nsd-00041\.png: no such file"):
        stimuli[4]
    assert stimuli[5].size == (8, 8)


def test_regions_of_both_hemispheres_with_parts_beside_wholes(tmp_path: Path) -> None:
    folder = write_algonauts(tmp_path)
    brain = load(folder)
    rois = {roi.name: roi for roi in brain.rois}
    labels = {
        kind: np.hstack(
            [read(folder, f"roi_masks/{side}.{kind}_challenge_space.npy") for side in ("lh", "rh")]
        )
        for kind in NAMES
    }
    for kind, names in NAMES.items():
        for label, name in enumerate(names.split()):
            if label:
                np.testing.assert_array_equal(rois[name].voxels, np.flatnonzero(labels[kind] == label))
    np.testing.assert_array_equal(
        rois["V1"].voxels, np.flatnonzero(np.isin(labels["prf-visualrois"], [1, 2]))
    )
    ranks = {name: roi.rank for name, roi in rois.items()}
    assert [ranks[name] for name in ("V1", "V1v", "V2d", "V3", "hV4")] == [1, 1, 2, 3, 4]
    assert (ranks["OFA"], ranks["PPA"], ranks["early"]) == (5, 5, None)
    assert [roi.name for roi in brain.rois][:4] == ["V1", "V1v", "V1d", "V2"]
    assert "Unknown" not in rois
    cut = load(folder, rois=("V1", "hV4"))
    assert cut.n_voxels == len(rois["V1"].voxels) + len(rois["hV4"].voxels)


def test_labels_in_either_space_are_the_same(tmp_path: Path) -> None:
    found = []
    for spaces in (("challenge",), ("fsaverage",), ("challenge", "fsaverage")):
        brain = load(write_algonauts(tmp_path / "-".join(spaces), spaces=spaces))
        found.append([(roi.name, roi.voxels.tolist(), roi.rank) for roi in brain.rois])
    assert found[0] == found[1] == found[2]


def test_names_come_from_the_mapping_or_from_the_table(tmp_path: Path) -> None:
    assert {kind: " ".join(("Unknown", *names)) for kind, names in LABELS.items()} == NAMES
    folder = write_algonauts(tmp_path, mappings=False)
    by_table = [roi.name for roi in load(folder).rois]
    save(folder / "roi_masks/mapping_floc-places.npy", {0: "Unknown", 1: "OPA", 2: "PPA", 3: "MPA"})
    by_file = [roi.name for roi in load(folder).rois]
    assert [name if name != "RSC" else "MPA" for name in by_table] == by_file


def write_pickle(path: Path, content: Any, protocol: int = 4) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(content, file, protocol=protocol)


class Attack:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_mappings_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    table = {0: "Unknown", 1: "V1v"}
    write_pickle(tmp_path / "mapping_x.npy", np.array(table, dtype=object), protocol)
    assert read_mapping(tmp_path / "mapping_x.npy") == table
    # as written by numpy before its core module was renamed
    content = (tmp_path / "mapping_x.npy").read_bytes().replace(b"numpy._core", b"numpy.core")
    if protocol < 4:  # later ones count their bytes
        (tmp_path / "mapping_x.npy").write_bytes(content)
        assert read_mapping(tmp_path / "mapping_x.npy") == table


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    path, mark = tmp_path / "mapping_x.npy", tmp_path / "mark"
    mark.mkdir()
    for attack in (
        Attack(os.rmdir, str(mark)),
        Attack(eval, f"__import__('os').rmdir({str(mark)!r})"),
        Attack(np.load, str(mark)),
        Attack(np.savetxt, str(mark / "written"), [1]),
    ):
        for content in (attack, np.array({0: attack}, dtype=object), np.array({attack: 1}, dtype=object)):
            write_pickle(path, content)
            with pytest.raises(InputError, match=r"mapping_x\.npy: .*builtin types only"):
                read_mapping(path)
    assert list(mark.iterdir()) == []
    assert mark.exists()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ([1, 2], "found a list"),
        ({"1": "V1v"}, "found '1': 'V1v'"),
        ({1: 2}, "found 1: 2"),
        ({True: "V1v"}, "found True"),
        ({1: "V1/v"}, "named 'V1/v'"),
        ({1: "all"}, "named 'all'"),
        ({1: "V1v", 2: "V1v"}, "two regions named 'V1v'"),
    ],
)
def test_a_mapping_of_anything_else_is_refused(tmp_path: Path, content: Any, part: str) -> None:
    box = np.empty((), dtype=object)
    box[()] = content
    np.save(tmp_path / "mapping_x.npy", box, allow_pickle=True)
    with pytest.raises(InputError, match=r"mapping_x\.npy: ") as raised:
        read_mapping(tmp_path / "mapping_x.npy")
    assert part in str(raised.value)


def test_noise_ceilings_of_the_test_split_are_used(tmp_path: Path) -> None:
    folder = write_algonauts(tmp_path, test=("images", "ceiling"))
    ceilings = np.hstack(
        [read(folder, f"test_split/noise_ceiling/{side}_noise_ceiling.npy") for side in ("lh", "rh")]
    )
    brain = load(folder)
    np.testing.assert_allclose(brain.noise_ceiling, ceilings, rtol=1e-6)
    assert brain.noise_ceiling is not None
    assert brain.noise_ceiling.dtype == np.float32
    assert load(folder, min_ceiling=0.5).n_voxels == (ceilings.astype(np.float32) >= 0.5).sum()


def test_test_images_are_stimuli_where_asked_for(tmp_path: Path) -> None:
    folder = write_algonauts(tmp_path, test=("images", "responses"))
    assert load(folder).n_images == N_TRAIN
    brain = load(folder, test_images=True)
    assert brain.n_images == len(brain.stimuli) == N_TRAIN + N_TEST
    np.testing.assert_array_equal(
        brain.responses[N_TRAIN:, : SIZES["subj01"]["lh"]],
        read(folder, "test_split/test_fmri/lh_test_fmri.npy"),
    )
    assert brain.stimulus_ids[N_TRAIN:].tolist() == [1000, 1001, 1002, 1003]
    assert (
        brain.stimuli[N_TRAIN + 1].tobytes()
        == Image.open(folder / "test_split/test_images/test-0002_nsd-01001.png").tobytes()
    )
    assert brain.fingerprint != load(folder).fingerprint


def test_missing_test_responses_matter_only_where_asked_for(tmp_path: Path) -> None:
    folder = write_algonauts(tmp_path, test=())
    assert load(folder).n_images == N_TRAIN
    with pytest.raises(InputError, match=r"test_images: no such folder"):
        load(folder, test_images=True)


def test_a_subject_is_found_below_the_root(tmp_path: Path) -> None:
    for subject in SIZES:
        write_algonauts(tmp_path, subject)
    assert load(tmp_path, subject=6).name == "algonauts2023-subj06"
    assert load(tmp_path / "subj06", subject=6).fingerprint == load(tmp_path, subject=6).fingerprint
    for root, settings, parts in (
        (tmp_path, {}, ["brain.subject", "subj01, subj06", "brain.subject=1"]),
        (tmp_path, {"subject": 2}, ["brain.subject", "subj01, subj06", "expected subj02"]),
        (tmp_path / "subj06", {"subject": 1}, ["expected subj01"]),
        (tmp_path / "subj01/training_split", {}, ["brain.root", f"did you mean {tmp_path / 'subj01'}?"]),
        (tmp_path / "nowhere", {}, ["brain.root", "no such folder"]),
    ):
        with pytest.raises(InputError) as raised:
            load(root, **settings)
        assert all(part in str(raised.value) for part in parts)


def test_every_vertex_is_drawn_where_it_is_or_beside(tmp_path: Path) -> None:
    brain = load(write_algonauts(tmp_path))
    surface = brain.surface
    assert surface is not None
    n_coarse = len(surface.points) // 2
    assert surface.voxel_vertex[:10].tolist() == list(range(100, 110))
    assert surface.voxel_vertex[SIZES["subj01"]["lh"] :][:10].tolist() == list(
        range(n_coarse + 100, n_coarse + 110)
    )
    assert "V1" in surface.area_names
    assert "V1v" not in surface.area_names
    assert surface.area is not None
    voxels = next(roi.voxels for roi in brain.rois if roi.name == "V1")
    assert (surface.area[surface.voxel_vertex[voxels]] == surface.area_names.index("V1")).mean() > 0.8


def test_fingerprints_are_of_the_content_of_every_file(tmp_path: Path) -> None:
    folder = write_algonauts(tmp_path / "one", test=("images", "ceiling"))
    again = write_algonauts(tmp_path / "two", test=("images", "ceiling"))
    brain = load(folder)
    assert load(again).fingerprint == brain.fingerprint
    assert load(again).fingerprints == brain.fingerprints
    below = {path.relative_to(folder).as_posix() for path in folder.rglob("*.npy")}
    assert set(brain.fingerprints) == below | {f"{IMAGES}/"}
    write_picture(folder / IMAGES / "train-0003_nsd-00027.png", 99)
    changed = load(folder)
    assert changed.fingerprint != brain.fingerprint
    assert {name for name in below if changed.fingerprints[name] != brain.fingerprints[name]} == set()


def replace_array(folder: Path, name: str, change: Callable[[np.ndarray], Any]) -> None:
    save(folder / name, change(read(folder, name)))


def rename_image(folder: Path, old: str, new: str) -> None:
    (folder / IMAGES / old).rename(folder / IMAGES / new)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


LABELS_LH = "roi_masks/lh.floc-places_challenge_space.npy"
BAD: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "one hemisphere's responses missing": (
        lambda folder: (folder / f"{FMRI}/rh_training_fmri.npy").unlink(),
        ["rh_training_fmri.npy: no such file"],
    ),
    "one hemisphere's mask missing": (
        lambda folder: (folder / "roi_masks/rh.all-vertices_fsaverage_space.npy").unlink(),
        ["rh.all-vertices_fsaverage_space.npy: no such file"],
    ),
    "one hemisphere's labels missing": (
        lambda folder: (folder / LABELS_LH).unlink(),
        ["lh.floc-places_challenge_space.npy: no such file", "both hemispheres or of neither"],
    ),
    "one hemisphere's ceiling missing": (
        lambda folder: save(folder / "test_split/noise_ceiling/lh_noise_ceiling.npy", np.ones(40)),
        ["rh_noise_ceiling.npy: no such file"],
    ),
    "responses truncated": (
        lambda folder: truncate(folder / f"{FMRI}/lh_training_fmri.npy"),
        ["lh_training_fmri.npy: not a readable npy file"],
    ),
    "an image truncated": (
        lambda folder: truncate(folder / IMAGES / "train-0002_nsd-00020.png"),
        ["train-0002_nsd-00020.png: not a readable image"],
    ),
    "an image missing": (
        lambda folder: (folder / IMAGES / "train-0003_nsd-00027.png").unlink(),
        [IMAGES, "found train-0004_nsd-00034.png, expected train-0003"],
    ),
    "the last image missing": (
        lambda folder: (folder / IMAGES / "train-0012_nsd-00090.png").unlink(),
        ["lh_training_fmri.npy", "12 rows", "11 images", "expected as many"],
    ),
    "a row missing": (
        lambda folder: replace_array(folder, f"{FMRI}/rh_training_fmri.npy", lambda rows: rows[:-1]),
        ["rh_training_fmri.npy", "11 rows", "12 images"],
    ),
    "images counted from 0": (
        lambda folder: rename_image(folder, "train-0001_nsd-00013.png", "train-0000_nsd-00013.png"),
        ["found train-0000_nsd-00013.png, expected train-0001", "from 1, each once"],
    ),
    "ids counted from 1": (
        lambda folder: rename_image(folder, "train-0012_nsd-00090.png", "train-0012_nsd-73000.png"),
        ["train-0012_nsd-73000.png", "found id 73000", "0 to 72999", "count from 0"],
    ),
    "a strange name": (
        lambda folder: write_picture(folder / IMAGES / "train-13.png", 0),
        ["train-13.png", "train-0001_nsd-00013.png"],
    ),
    "two pictures of one id": (
        lambda folder: rename_image(folder, "train-0002_nsd-00020.png", "train-0002_nsd-00013.png"),
        ["images 1 and 2 differ, but both have id nsd-00013"],
    ),
    "vertices of another subject": (
        lambda folder: replace_array(folder, f"{FMRI}/lh_training_fmri.npy", lambda rows: rows[:, :-2]),
        ["lh_training_fmri.npy", "38 vertices", "40 in roi_masks/lh.all-vertices"],
    ),
    "a mask of fsaverage5": (
        lambda folder: save(folder / "roi_masks/lh.all-vertices_fsaverage_space.npy", np.ones(10242, int)),
        ["lh.all-vertices_fsaverage_space.npy", "(10242,)", "(163842,)"],
    ),
    "an empty mask": (
        lambda folder: replace_array(folder, "roi_masks/lh.all-vertices_fsaverage_space.npy", np.zeros_like),
        ["lh.all-vertices_fsaverage_space.npy", "not all 0"],
    ),
    "labels of another subject": (
        lambda folder: replace_array(folder, LABELS_LH, lambda labels: labels[:-1]),
        ["lh.floc-places_challenge_space.npy", "(39,)", "(40,) of int"],
    ),
    "labels of the other space": (
        lambda folder: save(
            folder / "roi_masks/lh.floc-places_fsaverage_space.npy", np.ones(N_FSAVERAGE, dtype=np.int64)
        ),
        ["lh.floc-places_challenge_space.npy", "labels differ from those in fsaverage space"],
    ),
    "labels that are no numbers": (
        lambda folder: replace_array(folder, LABELS_LH, lambda labels: labels.astype(float)),
        ["lh.floc-places_challenge_space.npy", "float64"],
    ),
    "a label without a name": (
        lambda folder: replace_array(folder, LABELS_LH, lambda labels: labels + 3),
        ["lh.floc-places_*_space.npy: found label 4, which has no name", "1 (OPA), 2 (PPA), 3 (RSC)"],
    ),
    "objects for responses": (
        lambda folder: save(folder / f"{FMRI}/lh_training_fmri.npy", np.array([[None]])),
        ["lh_training_fmri.npy", "Python objects"],
    ),
    "one response per stimulus": (
        lambda folder: replace_array(folder, f"{FMRI}/lh_training_fmri.npy", lambda rows: rows[:, 0]),
        ["lh_training_fmri.npy", "shape (12,) of float32"],
    ),
    "no responses at all": (
        lambda folder: [
            replace_array(folder, f"{FMRI}/{side}_training_fmri.npy", lambda rows: rows * np.nan)
            for side in ("lh", "rh")
        ],
        ["found no voxel with finite responses", "row 0"],
    ),
    "negative ceilings": (
        lambda folder: [
            save(folder / f"test_split/noise_ceiling/{side}_noise_ceiling.npy", np.full(size, -0.1))
            for side, size in SIZES["subj01"].items()
        ],
        ["noise_ceiling", "-0.1", "expected 0 to 1"],
    ),
    "no images": (
        lambda folder: [path.unlink() for path in (folder / IMAGES).iterdir()],
        [IMAGES, "found no image"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_one_line_that_names_the_file(case: str, tmp_path: Path) -> None:
    folder = write_algonauts(tmp_path)
    damage, parts = BAD[case]
    damage(folder)
    with pytest.raises(InputError) as raised:
        load(folder)
    message = str(raised.value)
    assert "\n" not in message
    for part in [str(folder), *parts]:
        assert part in message


def test_vertices_without_a_usable_response_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_algonauts(tmp_path)
    whole = load(folder)

    def spoil(rows: np.ndarray) -> np.ndarray:
        rows[3, [1, 5]] = np.nan
        rows[0, 7] = -np.inf
        rows[:, 9] = 0.25
        return rows

    replace_array(folder, f"{FMRI}/lh_training_fmri.npy", spoil)
    with caplog.at_level(logging.WARNING):
        brain = load(folder)
    kept = np.setdiff1d(np.arange(whole.n_voxels), [1, 5, 7, 9])
    np.testing.assert_array_equal(brain.responses, whole.responses[:, kept])
    np.testing.assert_array_equal(brain.coords, whole.coords[kept])
    np.testing.assert_array_equal(brain.bounding_box, whole.bounding_box)
    assert "3 of 76 voxels have non-finite values" in caplog.text
    assert "1 of 76 voxels have the same value for all stimuli" in caplog.text
    assert str(folder) in caplog.text


def test_equal_pictures_under_two_ids_are_one_stimulus(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_algonauts(tmp_path)
    write_picture(folder / IMAGES / "train-0009_nsd-00069.png", 2)  # as row 2 shows
    with caplog.at_level(logging.WARNING):
        brain = load(folder)
    assert brain.stimulus_ids[8] == brain.stimulus_ids[2] == 27
    assert len(set(brain.stimulus_ids.tolist())) == N_TRAIN - 1
    assert "1 stimuli are the same image" in caplog.text


def test_ceilings_in_per_cent_and_unknown_ones_are_understood(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_algonauts(tmp_path)
    for side, size in SIZES["subj01"].items():
        ceiling = np.linspace(0, 80, size)
        ceiling[3] = np.nan
        save(folder / f"test_split/noise_ceiling/{side}_noise_ceiling.npy", ceiling)
    with caplog.at_level(logging.WARNING):
        found = load(folder).noise_ceiling
    assert found is not None
    np.testing.assert_allclose(found[[0, 3, 39]], [0, 0, 0.8], rtol=1e-6)
    assert "per cent" in caplog.text
    assert "2 noise ceilings are NaN" in caplog.text


def test_a_folder_without_labels_has_no_regions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_algonauts(tmp_path, spaces=())
    with caplog.at_level(logging.WARNING):
        brain = load(folder)
    assert brain.rois == ()
    assert brain.surface is not None
    assert brain.surface.area is None
    assert "no ROI labels" in caplog.text
