"""Beta maps on grayordinates, from CIFTI files and a table to a brain on the real cortex."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from drawn import draw_on
from made_cifti import AFFINE, N_CORTEX, lay_out, write_maps, write_pictures, write_table

from harness.brains.brain import Brain
from harness.brains.cortex import (
    REGIONS,
    Cortex,
    load_cortex,
)
from harness.brains.grayordinates import subject as grayordinates
from harness.brains.load import load_brain
from harness.config.brain import GrayordinatesConfig
from harness.config.compose import load_config
from harness.storage.errors import InputError

N_PICTURES, N_MAPS = 5, 12
NAMES = [f"p{index}.png" for index in range(N_PICTURES)]
SHOWN = np.random.default_rng(7).integers(0, N_PICTURES, 2 * N_MAPS)
EVERY = 16  # keep one of 16 grayordinates, for speed
COLUMNS = lay_out(subcortex=False, every=EVERY)


@pytest.fixture(scope="module")
def cortex() -> Cortex:
    return load_cortex()


@pytest.fixture(autouse=True)
def _one_cortex(cortex: Cortex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grayordinates, "load_cortex", lambda: cortex)


def write(root: Path, columns: Any = COLUMNS, **changed: Any) -> np.ndarray:
    """Write two sessions of maps; return their values, [maps, grayordinates]."""
    rng = np.random.default_rng(8)
    values = rng.normal(3, 2, (2 * N_MAPS, len(columns))).astype(np.float32)
    write_maps(root / "ses-1.dscalar.nii", values[:N_MAPS], columns)
    write_maps(root / "ses-2.dscalar.nii", values[N_MAPS:], columns)
    write_pictures(root, NAMES, rng)
    rows = [{"image": NAMES[shown], "session": 1 + place // N_MAPS} for place, shown in enumerate(SHOWN)]
    write_table(root / "stimuli.tsv", rows)
    return values


def load(root: Path, **settings: Any) -> Brain:
    return load_brain(GrayordinatesConfig(root=str(root), **settings))


def list_vertices(cortex: Cortex) -> np.ndarray:
    """Of the columns, in order."""
    sides = [np.flatnonzero((cortex.area != "") & (cortex.hemisphere == side)) for side in "LR"]
    return np.concatenate([vertices[::EVERY] for vertices in sides])


def standardise(values: np.ndarray) -> np.ndarray:
    parts = np.split(values.astype(float), 2)
    return np.concatenate([(part - part.mean(axis=0)) / part.std(axis=0, ddof=1) for part in parts])


def test_visual_areas_are_the_voxels(cortex: Cortex, tmp_path: Path) -> None:
    values = write(tmp_path)
    brain = load(tmp_path)
    vertices = list_vertices(cortex)
    chosen = np.flatnonzero(cortex.region[vertices] >= 0)
    expected = standardise(values)[:, chosen]
    assert brain.stimulus_ids.tolist() == [NAMES[shown] for shown in np.unique(SHOWN)]
    for name, response in zip(brain.stimulus_ids, brain.responses, strict=True):
        np.testing.assert_allclose(response, expected[NAMES.index(name) == SHOWN].mean(axis=0), atol=1e-5)
    np.testing.assert_array_equal(brain.coords, cortex.sphere[vertices[chosen]])
    np.testing.assert_array_equal(brain.hemisphere, cortex.hemisphere[vertices[chosen]])
    assert brain.n_repeats is not None
    assert brain.n_repeats.tolist() == np.bincount(SHOWN).tolist()
    rois = {roi.name: roi for roi in brain.rois}
    for region in REGIONS:
        np.testing.assert_array_equal(
            rois[region.name].voxels, np.flatnonzero(np.isin(cortex.area[vertices[chosen]], region.areas))
        )
        assert rois[region.name].rank == region.rank
    # areas lie within their region and have its rank
    assert set(rois["LO1"].voxels) < set(rois["LO"].voxels)
    assert rois["LO1"].rank == rois["LO"].rank
    assert set(brain.fingerprints) == {"stimuli.tsv", "ses-1.dscalar.nii", "ses-2.dscalar.nii", "images/"}


def test_the_whole_cortex_has_every_area(cortex: Cortex, tmp_path: Path) -> None:
    write(tmp_path, lay_out(subcortex=False))
    brain = load(tmp_path, cortex="all")
    assert brain.n_voxels == N_CORTEX
    names = [roi.name for roi in brain.rois]
    assert len(names) == len(set(names))
    assert set(cortex.area) - {""} <= set(names)
    assert len(names) == 180 + 3  # LO, VMV and PHA are made of several
    np.testing.assert_array_equal(brain.bounding_box, [cortex.sphere.min(axis=0), cortex.sphere.max(axis=0)])
    assert brain.select_rois(["V1"]).n_voxels == 831 + 787


def test_below_the_cortex(cortex: Cortex, tmp_path: Path) -> None:
    columns = lay_out(subcortex=True, every=EVERY)
    values = write(tmp_path, columns)
    brain = load(tmp_path, subcortex=True)
    rois = {roi.name: roi.voxels for roi in brain.rois}
    assert {name: len(rois[name]) for name in ("THALAMUS_LEFT", "THALAMUS_RIGHT", "BRAIN_STEM")} == {
        "THALAMUS_LEFT": 625,
        "THALAMUS_RIGHT": 742,
        "BRAIN_STEM": 625,
    }
    assert brain.n_voxels == load(tmp_path).n_voxels + 625 + 742 + 625
    thalamus = rois["THALAMUS_LEFT"]
    assert set(brain.hemisphere[thalamus]) == {"L"}
    assert set(brain.hemisphere[rois["THALAMUS_RIGHT"]]) == {"R"}
    stem = brain.hemisphere[rois["BRAIN_STEM"]]
    place = np.stack(np.unravel_index(np.arange(10000), (25, 25, 25)), axis=1) + np.array([45, 30, 20])
    millimetres = place[::EVERY] @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    np.testing.assert_array_equal(stem == "R", millimetres[:, 0] > 0)
    # shifted beside the spheres, otherwise in native millimetres
    assert brain.coords[thalamus, 0].min() > cortex.sphere[:, 0].max()
    np.testing.assert_allclose(
        np.diff(brain.coords[rois["BRAIN_STEM"]], axis=0), np.diff(millimetres, axis=0), atol=1e-3
    )
    inside = (brain.coords >= brain.bounding_box[0]) & (brain.coords <= brain.bounding_box[1])
    assert inside.all()
    column = np.flatnonzero(columns.name == "CIFTI_STRUCTURE_THALAMUS_LEFT")
    expected = standardise(values[:, column])
    np.testing.assert_allclose(
        brain.responses[0][thalamus],
        expected[NAMES.index(brain.stimulus_ids[0]) == SHOWN].mean(axis=0),
        atol=1e-5,
    )


def test_voxels_below_the_cortex_are_not_drawn(tmp_path: Path) -> None:
    write(tmp_path, lay_out(subcortex=True, every=EVERY))
    brain = load(tmp_path, subcortex=True)
    assert brain.surface is not None
    on_sheet = brain.surface.voxel_vertex >= 0
    assert (~on_sheet).sum() == 625 + 742 + 625
    pictures = []
    for low in (0.0, 1.0):  # of voxels that are not drawn
        figure, ax = plt.subplots(figsize=(3, 2), dpi=60)
        draw_on(ax, brain.surface, np.where(on_sheet, 0.5, low), limits=(0, 1), names=False)
        figure.canvas.draw()
        pictures.append(np.asarray(figure.canvas.buffer_rgba()).copy())  # type: ignore[attr-defined]
        plt.close(figure)
    np.testing.assert_array_equal(*pictures)


def test_single_trials_and_sessions(tmp_path: Path) -> None:
    values = write(tmp_path)
    brain = load(tmp_path, average="none", standardise=False)
    assert brain.session is not None
    assert brain.session.tolist() == [1] * N_MAPS + [2] * N_MAPS
    assert brain.stimulus_ids.tolist() == [NAMES[shown] for shown in SHOWN]
    assert np.isin(brain.responses[3], values[3]).all()
    assert len(brain.stimuli) == len(SHOWN)
    assert brain.stimuli[4].tobytes() == brain.stimuli[int(np.flatnonzero(SHOWN[4] == SHOWN)[0])].tobytes()


def test_sessions_may_share_files(tmp_path: Path) -> None:
    """The table defines sessions, regardless of the files."""
    values = write(tmp_path)
    expected = load(tmp_path)
    for path in tmp_path.glob("*.nii"):
        path.unlink()
    for name, part in (("a", values[:5]), ("b", values[5:20]), ("c", values[20:])):
        write_maps(tmp_path / f"{name}.dtseries.nii", part, COLUMNS)
    np.testing.assert_array_equal(load(tmp_path).responses, expected.responses)


def test_without_sessions_all_maps_are_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = write(tmp_path)
    write_table(tmp_path / "stimuli.tsv", [{"image": NAMES[shown]} for shown in SHOWN])
    with caplog.at_level(logging.WARNING):
        brain = load(tmp_path, average="none")
    assert "no column session; all maps count as one session" in caplog.text
    assert brain.session is None
    np.testing.assert_allclose(brain.responses.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(brain.responses.std(axis=0, ddof=1), 1, atol=1e-5)
    assert len(values) == len(brain.responses)


def test_enough_repeats_say_how_high_the_ceiling_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert load(tmp_path).noise_ceiling is None
    assert "too few repeats for a noise ceiling" in caplog.text
    rng = np.random.default_rng(9)
    n_pictures, n_repeats, power = 40, 3, 4.0
    signal = rng.standard_normal((n_pictures, 1)) * power**0.5
    order = rng.permutation(np.repeat(np.arange(n_pictures), n_repeats))
    noise = rng.standard_normal((len(order), len(COLUMNS)), dtype=np.float32)
    (tmp_path / "ses-2.dscalar.nii").unlink()
    write_maps(tmp_path / "ses-1.dscalar.nii", (signal[order] + noise).astype(np.float32), COLUMNS)
    names = [f"n{index}.png" for index in range(n_pictures)]
    write_pictures(tmp_path, names, rng)
    write_table(tmp_path / "stimuli.tsv", [{"image": names[index]} for index in order])
    brain = load(tmp_path)
    assert brain.noise_ceiling is not None
    # of the pictures that were drawn
    power = signal.var(ddof=1)
    assert abs(float(np.median(brain.noise_ceiling)) - power / (power + 1 / n_repeats)) < 0.02


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"maps": "*.dtseries.nii"}, r"brain.maps: found no \*\.dtseries\.nii in .*, only p0\.png"),
        ({"maps": "/data/*.nii"}, r"brain.maps: found '/data/\*\.nii', expected a pattern below"),
        ({"table": "trials.csv"}, r"trials\.csv: no such file"),
        ({"images": "/nowhere"}, r"/nowhere/p0\.png: no such file"),
        (
            {"subcortex": True},
            r"brain.subcortex: found true, but .*ses-1\.dscalar\.nii has no subcortical voxels",
        ),
    ],
)
def test_settings_that_find_nothing_are_refused(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write(tmp_path)
    with pytest.raises(InputError, match=message):
        load(tmp_path, **settings)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"brain.root: /nowhere: no such folder"):
        load(Path("/nowhere"))
    values = write(tmp_path)
    write_table(tmp_path / "stimuli.csv", [{"image": "p0.png"}])
    with pytest.raises(InputError, match=r"found both of stimuli\.tsv and stimuli\.csv"):
        load(tmp_path)
    with pytest.raises(
        InputError,
        match=r"stimuli\.csv: found 1 rows, expected 24, one per map \(12 in ses-1\.dscalar",
    ):
        load(tmp_path, table="stimuli.csv")
    (tmp_path / "stimuli.csv").unlink()
    write_maps(tmp_path / "ses-2.dscalar.nii", values[:N_MAPS, :-7], COLUMNS[:-7])
    with pytest.raises(
        InputError, match=r"ses-2\.dscalar\.nii: found \d+ grayordinates in \w+, expected \d+, as in .*ses-1"
    ):
        load(tmp_path)
    values[N_MAPS:] = np.nan
    write_maps(tmp_path / "ses-2.dscalar.nii", values[N_MAPS:], COLUMNS)
    with pytest.raises(
        InputError, match=r"ses-2\.dscalar\.nii \(session 2\): \d+ of \d+ voxels are constant or"
    ):
        load(tmp_path)


def test_settings_come_from_the_command_line() -> None:
    config = load_config(["brain=grayordinates", "brain.root=/data", "brain.cortex=all"]).brain
    assert isinstance(config, GrayordinatesConfig)
    assert (config.cortex, config.subcortex) == ("all", False)


def test_images_outside_their_folder_are_refused_unless_allowed(tmp_path: Path) -> None:
    root = tmp_path / "maps"
    root.mkdir()
    write(root)
    first = (root / NAMES[0]).rename(tmp_path / NAMES[0])
    table = root / "stimuli.tsv"
    table.write_text(table.read_text().replace(NAMES[0], f"../{NAMES[0]}"))
    with pytest.raises(InputError, match=rf"stimuli.tsv: found ../{NAMES[0]}, which leads out of .*maps \("):
        load(root)
    brain = load(root, allow_outside_root=True)
    assert f"../{NAMES[0]}" in brain.stimulus_ids.tolist() and first.exists()
    # a table elsewhere
    table.rename(tmp_path / "stimuli.tsv")
    moved = load(root, allow_outside_root=True, table=str(tmp_path / "stimuli.tsv"))
    assert moved.fingerprint == brain.fingerprint
