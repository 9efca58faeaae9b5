"""A subject of the Natural Scenes Dataset in its native volume, against the formulas of the manual."""

from __future__ import annotations

import logging
import os
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
from made_nsd import AFFINE, N_TRIALS, SHAPE, MadeNsd, write_hdf5, write_nifti, write_nsd

from harness.brains import beta_files
from harness.brains.brain import Brain
from harness.brains.load import load_brain
from harness.brains.nsd import subject
from harness.config.brain import NsdConfig
from harness.config.compose import load_config
from harness.storage.cache import cache_folder
from harness.storage.errors import InputError


@pytest.fixture
def made(tmp_path: Path) -> MadeNsd:
    return write_nsd(tmp_path / "nsd", hdf5=(2,))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))


def load(made: MadeNsd, **settings: Any) -> Brain:
    return load_brain(NsdConfig(root=str(made.root), **settings))


def expected_responses(
    made: MadeNsd, sessions: tuple[int, ...], standardise: bool = True
) -> dict[int, np.ndarray]:
    """Average response to every image, [n_voxels], computed from the stored volumes."""
    trials: dict[int, list[np.ndarray]] = {}
    for session in sessions:
        values = made.stored[session][made.mask].astype(float) / 300  # [n_voxels, n_trials]
        if standardise:
            values = (values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, ddof=1, keepdims=True)
        for picture, response in zip(made.shown(session), values.T, strict=True):
            trials.setdefault(int(picture), []).append(response)
    return {picture: np.mean(responses, axis=0) for picture, responses in trials.items()}


@pytest.mark.parametrize("standardise", [True, False])
def test_responses_are_the_manuals(standardise: bool, made: MadeNsd) -> None:
    brain = load(made, standardise=standardise)
    expected = expected_responses(made, (1, 2, 3), standardise)
    assert brain.stimulus_ids.tolist() == sorted(expected)
    np.testing.assert_allclose(brain.responses, [expected[key] for key in sorted(expected)], atol=2e-6)
    shown = np.concatenate([made.shown(session) for session in (1, 2, 3)])
    assert brain.n_repeats is not None
    assert brain.n_repeats.tolist() == [(shown == picture).sum() for picture in sorted(expected)]
    assert len(set(brain.n_repeats)) > 1
    assert brain.session is None


def test_the_ceiling_is_the_manuals(made: MadeNsd) -> None:
    brain = load(made)
    assert brain.n_repeats is not None
    share = np.mean([1 / n for n in brain.n_repeats])
    ncsnr = made.ncsnr[made.mask].astype(float)
    np.testing.assert_allclose(brain.noise_ceiling, ncsnr**2 / (ncsnr**2 + share), rtol=1e-5)
    # over the images in use: fewer sessions have fewer repeats and a lower ceiling
    fewer = load(made, sessions=(1,))
    assert fewer.noise_ceiling is not None and brain.noise_ceiling is not None
    assert (fewer.noise_ceiling < brain.noise_ceiling).all()


def test_places_hemispheres_and_rois(made: MadeNsd) -> None:
    brain = load(made)
    index = np.argwhere(made.mask)
    np.testing.assert_allclose(brain.coords, index * 1.8 + AFFINE[:3, 3], atol=1e-5)
    np.testing.assert_allclose(
        brain.bounding_box, [AFFINE[:3, 3], (np.array(SHAPE) - 1) * 1.8 + AFFINE[:3, 3]], atol=1e-5
    )
    assert brain.hemisphere.tolist() == ["L" if x < 3 else "R" for x, _, _ in index]
    rois = {roi.name: roi.voxels for roi in brain.rois}
    assert list(rois) == [
        *("V1", "V1v", "V1d", "V2", "V2v", "V2d", "V3", "V3v", "V3d", "hV4"),
        *("OFA", "FFA-1", "early", "ventral"),
    ]
    np.testing.assert_array_equal(rois["V2"], np.union1d(rois["V2v"], rois["V2d"]))
    ranks = {roi.name: roi.rank for roi in brain.rois}
    assert [ranks[name] for name in ("V1", "V2d", "hV4", "OFA", "early")] == [1, 2, 4, 5, None]
    for name, atlas, label in (
        ("V2d", "prf-visualrois", 4),
        ("FFA-1", "floc-faces", 2),
        ("ventral", "streams", 5),
    ):
        np.testing.assert_array_equal(rois[name], np.flatnonzero(made.labels[atlas][made.mask] == label))
    # atlases overlap
    assert np.intersect1d(rois["hV4"], rois["OFA"]).size
    assert np.intersect1d(rois["V1v"], rois["early"]).size


def test_pictures_are_those_that_were_shown(made: MadeNsd) -> None:
    brain = load(made)
    assert len(brain.stimuli) == len(brain.stimulus_ids)
    for place in (3, 0, 3, -1):
        np.testing.assert_array_equal(
            np.asarray(brain.stimuli[place]), made.pictures[brain.stimulus_ids[place]]
        )
    assert brain.stimuli[0].mode == "RGB"
    assert [picture.tobytes() for picture in brain.stimuli[2:4]] == [
        brain.stimuli[place].tobytes() for place in (2, 3)
    ]
    assert brain.shared is not None
    # the first four images of a subject are shared
    assert set(brain.stimulus_ids[brain.shared]) == set(made.subjectim[0, :4] - 1) & set(brain.stimulus_ids)
    assert brain.shared.any()


def test_both_formats_of_a_session_hold_the_same(tmp_path: Path) -> None:
    one = load(write_nsd(tmp_path / "nifti"))
    other = load(write_nsd(tmp_path / "hdf5", hdf5=(1, 2, 3)))
    np.testing.assert_array_equal(one.responses, other.responses)
    assert one.fingerprint == other.fingerprint


def test_rows_within_a_session(made: MadeNsd) -> None:
    brain = load(made, average="session", sessions=(1, 3))
    assert brain.session is not None and brain.n_repeats is not None
    assert set(brain.session) == {1, 3}
    for session in (1, 3):
        expected = expected_responses(made, (session,))
        here = brain.session == session
        assert brain.stimulus_ids[here].tolist() == sorted(expected)
        np.testing.assert_allclose(
            brain.responses[here], [expected[key] for key in sorted(expected)], atol=2e-6
        )
    trials = load(made, average="none")
    assert trials.session is not None
    assert trials.session.tolist() == np.repeat([1, 2, 3], N_TRIALS).tolist()
    assert (
        trials.stimulus_ids.tolist() == np.concatenate([made.shown(number) for number in (1, 2, 3)]).tolist()
    )


def test_sessions_that_are_not_there_are_said(made: MadeNsd, caplog: pytest.LogCaptureFixture) -> None:
    (made.betas / "betas_session02.hdf5").unlink()
    with caplog.at_level(logging.WARNING):
        brain = load(made)
    assert "using sessions 1, 3; 2, 4 are missing" in caplog.text
    expected = expected_responses(made, (1, 3))
    np.testing.assert_allclose(brain.responses, [expected[key] for key in sorted(expected)], atol=2e-6)
    with pytest.raises(InputError, match=r"brain\.sessions: found 2, expected 1, 3"):
        load(made, sessions=(1, 2))


def test_voxels_outside_the_field_of_view_are_left_out(
    made: MadeNsd, caplog: pytest.LogCaptureFixture
) -> None:
    whole = load(made)
    values = made.stored[3].copy()
    lost = np.argwhere(made.mask)[[5, 40]]
    values[tuple(lost.T)] = 0  # as the data set marks them
    write_nifti(made.betas / "betas_session03.nii.gz", values)
    with caplog.at_level(logging.WARNING):
        brain = load(made)
    assert "2 of 72 voxels are constant or not finite in a session and are dropped" in caplog.text
    kept = np.setdiff1d(np.arange(72), [5, 40])
    np.testing.assert_array_equal(brain.responses, whole.responses[:, kept])
    np.testing.assert_array_equal(brain.coords, whole.coords[kept])
    assert whole.noise_ceiling is not None and brain.noise_ceiling is not None
    np.testing.assert_array_equal(brain.noise_ceiling, whole.noise_ceiling[kept])
    assert {
        roi.name: np.searchsorted(kept, roi.voxels[np.isin(roi.voxels, kept)]).tolist() for roi in whole.rois
    } == {roi.name: roi.voxels.tolist() for roi in brain.rois}


def test_another_mask_and_other_atlases(made: MadeNsd) -> None:
    brain = load(made, mask="floc-faces", atlases=("streams", "floc-faces"))
    assert brain.n_voxels == (made.labels["floc-faces"] > 0).sum()
    assert [roi.name for roi in brain.rois] == ["ventral", "OFA", "FFA-1"]
    np.testing.assert_array_equal(brain.bounding_box, load(made).bounding_box)
    with pytest.raises(InputError, match=r"unknown atlas 'flocfaces'.*did you mean 'floc-faces'"):
        load(made, mask="flocfaces")
    with pytest.raises(InputError, match=r"brain.atlases.*'stream'.*did you mean 'streams'"):
        load(made, atlases=("stream",))


def test_names_that_two_atlases_use_are_told_apart(made: MadeNsd) -> None:
    made.table("floc-faces").write_text("0 Unknown\n1 hV4  25 5 25 0\n2 FFA 1 0 0 255 0\n")
    assert [roi.name for roi in load(made).rois][9:12] == ["hV4", "floc-faces-hV4", "FFA_1"]


def test_tables_may_be_missing_but_not_the_name_of_a_label(
    made: MadeNsd, caplog: pytest.LogCaptureFixture
) -> None:
    expected = [roi.name for roi in load(made).rois]
    made.table("streams").unlink()
    with caplog.at_level(logging.WARNING):
        assert [roi.name for roi in load(made).rois] == expected
    assert "streams.mgz.ctab: no such file; using the published label names" in caplog.text
    made.table("prf-visualrois").write_text("0 Unknown\n1 V1v\n2 V1d\n3 V2v\n")
    with pytest.raises(InputError, match=r"prf-visualrois\.mgz\.ctab: found no name for label 4 .*8 voxels"):
        load(made)
    made.table("prf-visualrois").write_text("0 Unknown\n1 V1v\nV1d\n")
    with pytest.raises(InputError, match=r"ctab: line 3: found 'V1d', expected a number and a name"):
        load(made)
    made.table("prf-visualrois").write_text("0 Unknown\n1 V1v\n1 V1d\n")
    with pytest.raises(InputError, match="line 3: found label 1 or name V1d twice"):
        load(made)


def test_one_file_for_both_hemispheres_will_do(made: MadeNsd, caplog: pytest.LogCaptureFixture) -> None:
    expected = load(made)
    for path in made.rois.glob("?h.*"):
        path.unlink()
    with caplog.at_level(logging.WARNING):
        brain = load(made)
    assert "nsdgeneral has no file per hemisphere; voxels of negative x count as left" in caplog.text
    np.testing.assert_array_equal(brain.responses, expected.responses)
    assert brain.hemisphere.tolist() == ["L" if x < 0 else "R" for x in brain.coords[:, 0]]


def test_without_ncsnr_repeats_say_the_ceiling(
    made: MadeNsd, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (made.betas / "ncsnr.nii.gz").unlink()
    with caplog.at_level(logging.WARNING):
        assert load(made).noise_ceiling is None
    assert "found no ncsnr; estimating the noise ceiling from repeats" in caplog.text
    assert "too few repeats for a noise ceiling: found 18 more trials than images" in caplog.text
    # enough repeats give an estimate; here responses are pure noise
    made = write_nsd(tmp_path / "more", n_copies=3)
    (made.betas / "ncsnr.nii.gz").unlink()
    ceiling = load(made).noise_ceiling
    assert ceiling is not None
    assert np.median(ceiling) < 0.2


def test_a_ceiling_that_is_not_finite_counts_as_none(made: MadeNsd, caplog: pytest.LogCaptureFixture) -> None:
    ncsnr = made.ncsnr.copy()
    ncsnr[tuple(np.argwhere(made.mask)[7])] = np.nan
    write_nifti(made.betas / "ncsnr.nii.gz", ncsnr)
    with caplog.at_level(logging.WARNING):
        ceiling = load(made).noise_ceiling
    assert ceiling is not None
    assert np.flatnonzero(ceiling == 0).tolist() == [7]
    assert "ncsnr of 1 voxels is not finite" in caplog.text


def turn(path: Path, to: str) -> None:
    """Store a volume with its axes in other directions, at the same millimetres."""
    image = nibabel.load(path)
    start, end = nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(to)
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform(start, end)), path)


def test_files_in_other_orientations_are_one_subject(made: MadeNsd, caplog: pytest.LogCaptureFixture) -> None:
    plain = load(made, standardise=False)
    turned = {
        made.betas / "betas_session03.nii.gz": "LAS",
        made.betas / "ncsnr.nii.gz": "PSR",
        made.rois / "rh.nsdgeneral.nii.gz": "ASL",
        made.rois / "lh.streams.nii.gz": "LPI",
        made.rois / "rh.prf-visualrois.nii.gz": "SAR",
    }
    for path, axes in turned.items():
        turn(path, axes)
    brain = load(made, standardise=False)
    np.testing.assert_array_equal(brain.responses, plain.responses)
    np.testing.assert_array_equal(brain.noise_ceiling, plain.noise_ceiling)
    np.testing.assert_array_equal(brain.coords, plain.coords)
    assert brain.hemisphere.tolist() == plain.hemisphere.tolist()
    assert {roi.name: roi.voxels.tolist() for roi in brain.rois} == {
        roi.name: roi.voxels.tolist() for roi in plain.rois
    }
    for path, axes in turned.items():
        assert f"{path}: the axes run {axes}; they are turned to RAS, as in {made.rois}" in caplog.text


def test_a_session_on_another_grid_is_refused(made: MadeNsd) -> None:
    path, affine = made.betas / "betas_session02.nii.gz", AFFINE.copy()
    affine[1, 3] += 3.6
    (made.betas / "betas_session02.hdf5").unlink(missing_ok=True)
    nibabel.save(nibabel.Nifti1Image(made.stored[2], affine), path)
    with pytest.raises(InputError) as caught:
        load(made)
    assert str(caught.value) == (
        f"{path}: lies on another grid than {made.rois / 'lh.nsdgeneral.nii.gz'}: found first voxel "
        "at (-4.5, -1.8, -3.6) mm, expected at (-4.5, -5.4, -3.6) mm"
    )


def rename(path: Path, name: str) -> None:
    path.rename(path.with_name(name))


@pytest.mark.parametrize(
    ("damage", "settings", "message"),
    [
        (lambda made: shutil.rmtree(made.root), {}, "brain.root: .*nsd: no such folder"),
        (lambda made: shutil.rmtree(made.root / "nsddata"), {}, "brain.root: .*found no nsddata, expected"),
        (
            lambda made: None,
            {"subject": 3},
            r"brain.subject: .*'subj03': expected subj01; did you mean 'subj01'",
        ),
        (lambda made: None, {"preparation": "func1mm"}, "brain.preparation: .*did you mean 'func1pt8mm'"),
        (
            lambda made: None,
            {"betas": "betas_fithrf"},
            "brain.betas: .*did you mean 'betas_fithrf_GLMdenoise_RR'",
        ),
        (lambda made: made.design.unlink(), {}, r"nsd_expdesign\.mat: no such file"),
        (lambda made: made.stimuli.unlink(), {}, r"nsd_stimuli\.hdf5: no such file"),
        (lambda made: None, {"stimuli": "/nowhere/s.hdf5"}, r"/nowhere/s\.hdf5: no such file"),
        (
            lambda made: (made.rois / "rh.nsdgeneral.nii.gz").unlink(),
            {},
            r"rh\.nsdgeneral\.nii\.gz: no such file, but lh\.nsdgeneral\.nii\.gz exists: a hemisphere",
        ),
        (
            lambda made: (made.rois / "lh.streams.nii.gz").unlink(),
            {},
            r"lh\.streams\.nii\.gz: no such file, but rh",
        ),
        (
            lambda made: (
                [path.unlink() for path in made.rois.glob("*nsdgeneral*")]
                + [path.unlink() for path in made.rois.glob("*streams*")]
            ),
            {},
            "unknown atlas 'nsdgeneral': expected one of floc-faces, lh.floc-faces",
        ),
        (
            lambda made: [path.unlink() for path in made.betas.glob("betas_*")],
            {},
            "found no responses, expected betas_session01.nii.gz",
        ),
        (
            lambda made: rename(made.betas / "betas_session03.nii.gz", "betas_session05.nii.gz"),
            {},
            r"betas_session05\.nii\.gz: expected sessions 1 to 4",
        ),
        (
            lambda made: write_nifti(made.betas / "betas_session03.nii.gz", made.stored[3][..., :9]),
            {},
            r"betas_session03\.nii\.gz: found 9 trials, expected 10",
        ),
        (
            lambda made: write_nifti(made.betas / "betas_session03.nii.gz", made.stored[3][:, :, 1:]),
            {},
            r"betas_session03\.nii\.gz: found 6 × 7 × 4, expected 6 × 7 × 5",
        ),
        (
            lambda made: write_hdf5(
                made.betas / "betas_session02.hdf5", made.stored[2].transpose(2, 1, 0, 3)
            ),
            {},
            r"betas_session02\.hdf5: found 5 × 7 × 6, expected 6 × 7 × 5",
        ),
        (
            lambda made: os.truncate(made.betas / "betas_session01.nii.gz", 900),
            {},
            r"betas_session01\.nii\.gz: ends too early",
        ),
        (
            lambda made: write_nifti(made.betas / "betas_session01.nii.gz", 0 * made.stored[1]),
            {},
            r"betas_session01\.nii\.gz: 72 of 72 voxels are constant",
        ),
        (
            lambda made: write_nifti(made.betas / "ncsnr.nii.gz", made.ncsnr[1:]),
            {},
            r"ncsnr\.nii\.gz: found 5 × 7 × 5, expected",
        ),
        (
            lambda made: write_nifti(
                made.rois / "rh.streams.nii.gz", made.labels["streams"][1:].astype(np.int16)
            ),
            {},
            r"rh\.streams\.nii\.gz: found 5 × 7 × 5",
        ),
        (
            lambda made: write_nifti(
                made.rois / "rh.streams.nii.gz", made.labels["streams"] + np.float32(0.5)
            ),
            {},
            r"rh\.streams\.nii\.gz: .*integers",
        ),
    ],
)
def test_what_is_wrong_is_named(damage: Any, settings: dict[str, Any], message: str, made: MadeNsd) -> None:
    damage(made)
    with pytest.raises(InputError, match=message) as caught:
        load(made, **settings)
    assert "\n" not in str(caught.value)


def test_an_empty_mask_and_a_broken_affine_are_refused(made: MadeNsd) -> None:
    nothing = np.zeros(SHAPE, np.int16)
    for side in ("lh.", "rh."):
        write_nifti(made.rois / f"{side}nsdgeneral.nii.gz", nothing)
    with pytest.raises(InputError, match=r"nsdgeneral\.nii\.gz: found no positive label"):
        load(made)
    labels = made.labels["nsdgeneral"].astype(np.int16)
    for side in ("lh.", "rh."):
        image = nibabel.Nifti1Image(labels, None)
        image.header["pixdim"][1:4] = 0
        image.header["sform_code"], image.header["srow_x"] = 1, [0, 0, 0, 1]
        nibabel.save(image, made.rois / f"{side}nsdgeneral.nii.gz")
    with pytest.raises(InputError, match=r"lh\.nsdgeneral\.nii\.gz: "):
        load(made)


@pytest.mark.parametrize("inside", ["nsddata", "nsddata_betas/ppdata/subj01", "."])
def test_a_folder_above_or_below_is_answered_with_the_right_one(inside: str, made: MadeNsd) -> None:
    given = made.root.parent if inside == "." else made.root / inside
    with pytest.raises(InputError, match=rf"found no .*did you mean {made.root}\?"):
        load_brain(NsdConfig(root=str(given)))


def test_pictures_that_are_not_there_or_no_pictures_are_refused(made: MadeNsd) -> None:
    with h5py.File(made.stimuli, "w") as file:
        file["imgBrick"] = made.pictures[:15]
    with pytest.raises(InputError, match=r"nsd_stimuli\.hdf5: found 15 images, expected \d+"):
        load(made)
    with h5py.File(made.stimuli, "w") as file:
        file["imgBrick"] = made.pictures.transpose(3, 2, 1, 0)
    with pytest.raises(InputError, match=r"expected \(n_pictures, height, width, 3\)"):
        load(made)
    with h5py.File(made.stimuli, "w") as file:
        file["images"] = made.pictures
    with pytest.raises(InputError, match="found images, expected a data set /imgBrick of bytes"):
        load(made)


def assert_same(one: Brain, other: Brain) -> None:
    for name in ("responses", "coords", "bounding_box", "hemisphere", "noise_ceiling", "n_repeats", "shared"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.fingerprint == other.fingerprint
    assert dict(one.fingerprints) == dict(other.fingerprints)
    assert one.stimuli[1].tobytes() == other.stimuli[1].tobytes()
    assert [roi.name for roi in one.rois] == [roi.name for roi in other.rois]


def test_the_result_is_kept_without_its_pictures(made: MadeNsd, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(made)
    (folder,) = (cache_folder() / "brains").iterdir()
    assert not (folder / "pixels.npy").exists()
    monkeypatch.setattr(subject, "average_sessions", None)  # cannot be made again
    assert_same(first, load(made))
    # the selection of voxels is not part of the key
    assert load(made, rois=("V1v",)).n_voxels == 4
    for other in ({"average": "none"}, {"standardise": False}, {"sessions": (1,)}, {"mask": "streams"}):
        with pytest.raises(TypeError):
            load(made, **other)


# by `VERSION`: responses and noise ceiling; add a line per version, never edit one
# version 2 turns files of other orientations, which these are not
RECORDED = {1: (0.016978, 1.938187), 2: (0.016978, 1.938187)}


def test_other_numbers_need_another_version_of_the_cache(made: MadeNsd) -> None:
    brain = load(made)
    assert brain.noise_ceiling is not None
    rows, columns = (np.cos(np.arange(size)) for size in brain.responses.shape)
    projected = 2 * rows @ brain.responses.astype(float) @ columns / np.sqrt(brain.responses.size)
    found = (float(projected), float(columns @ brain.noise_ceiling))
    assert found == pytest.approx(RECORDED[subject.VERSION], abs=1e-4), (
        "loaded brains have changed: raise VERSION in harness/brains/nsd/subject.py and record "
        f"{found}, or caches of users keep the old one"
    )


def test_the_cache_key_is_version_settings_packages_and_files_and_no_source(made: MadeNsd) -> None:
    config = NsdConfig(root=str(made.root))
    files = [made.design, made.stimuli]
    key = subject.cache_key(config, files)
    # nothing else is in the key, such as source code
    settings = config.model_dump(mode="json", exclude={"rois", "min_ceiling", "subjects"})
    assert {name: key[name] for name in ("version", "settings")} == {
        "version": subject.VERSION,
        "settings": settings,
    }
    assert [entry.split()[0] for entry in key["packages"]] == ["numpy", "scipy", "nibabel", "h5py"]
    assert [entry[0] for entry in key["files"]] == [str(path.resolve()) for path in files]
    assert set(key) == {"version", "settings", "packages", "files"}
    for change in ({"average": "none"}, {"standardise": False}, {"sessions": (1,)}, {"subject": 2}):
        assert subject.cache_key(config.model_copy(update=change), files) != key
    for change in ({"rois": ("V1v",)}, {"min_ceiling": 0.3}):
        assert subject.cache_key(config.model_copy(update=change), files) == key


@pytest.mark.parametrize("name", ["betas", "ncsnr", "labels", "names", "design", "stimuli"])
def test_the_result_is_kept_until_a_file_changes(
    name: str, made: MadeNsd, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(made)
    path = {
        "betas": made.betas / "betas_session02.hdf5",
        "ncsnr": made.betas / "ncsnr.nii.gz",
        "labels": made.rois / "lh.streams.nii.gz",
        "names": made.table("streams"),
        "design": made.design,
        "stimuli": made.stimuli,
    }[name]
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000))
    monkeypatch.setattr(subject, "average_sessions", None)
    with pytest.raises(TypeError):
        load(made)


def test_every_file_has_a_fingerprint(made: MadeNsd) -> None:
    brain = load(made)
    assert {"betas_session01.nii.gz", "betas_session02.hdf5", "ncsnr.nii.gz", "nsd_expdesign.mat"} <= {
        Path(name).name for name in brain.fingerprints
    }
    assert "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5" in brain.fingerprints
    assert all(not Path(name).is_absolute() for name in brain.fingerprints)


def test_memory_stays_near_the_result_and_one_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beta_files, "BLOCK", 2**16)
    made = write_nsd(tmp_path / "nsd", hdf5=(2,), shape=(36, 42, 40), n_copies=6)
    load(made)  # triggers lazy imports
    shutil.rmtree(cache_folder())
    tracemalloc.start()
    brain = load(made)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    session, label_volume = made.stored[1][made.mask].size * 4, made.mask.size * 8
    # labels are read one volume at a time, as doubles and integers; never all responses of a session
    assert peak < brain.responses.nbytes + 2 * session + 8 * label_volume
    assert peak < 0.6 * made.stored[1].nbytes


def test_settings_come_from_the_command_line() -> None:
    config = load_config(
        ["brain=nsd", "brain.root=/data/nsd", "brain.subject=2", "brain.sessions=[1,2]"]
    ).brain
    assert isinstance(config, NsdConfig)
    assert (config.subject, config.sessions, config.preparation) == (2, (1, 2), "func1pt8mm")
    with pytest.raises(InputError, match=r'brain\.preparation: found "func2mm"'):
        load_config(["brain=nsd", "brain.root=/data/nsd", "brain.preparation=func2mm"])
    with pytest.raises(
        InputError, match=r"brain\.root: found nothing, expected the folder that holds nsddata"
    ):
        load_config(["brain=nsd"])
