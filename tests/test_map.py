"""``palimpsest map``: networks as they are, their folders, and the atlas."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from catalogued import check_rows
from equality import assert_equal
from made_study import make_brain, make_mapping, without_surface
from overrides import SMALL_TRACKING, TINY
from test_report import Page

from harness.brains.brain import Brain
from harness.cli import dispatch
from harness.commands.finetune import run as finetune
from harness.commands.map import expand, run
from harness.config.compose import load_config, to_yaml
from harness.mappings.mapping import load_mapping, save_mapping
from harness.mappings.splits import load_split, save_split, split_brain
from harness.measures.rows import measure_brain
from harness.reporting import atlas
from harness.reporting.mapped_networks import (
    SubjectFits,
    find_maps,
    read_maps,
)
from harness.runs.journal import Journal, read_rows
from harness.runs.layout import is_finished, map_folder, mapping_folder, refit_folders, run_folder, split_file
from harness.storage.errors import InputError
from harness.storage.files import read_json, write_json

MAP = [text for text in SMALL_TRACKING if not text.startswith("probes.")]


def rows_of(folder: Path) -> dict[str, float]:
    return {row["name"]: row["value"] for row in read_rows(folder / "results.jsonl")[0] if row["step"] == 0}


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """Map a small network to two subjects of a small brain."""
    overrides = [*MAP, "backbone=mini_random", "brain.subjects=[1,2]"]
    overrides.append(f"runs_dir={tmp_path_factory.mktemp('runs')}")
    return overrides, run(load_config(overrides))


def test_a_folder_holds_splits_mappings_refits_and_rows(mapped: tuple[list[str], Path]) -> None:
    _, folder = mapped
    assert is_finished(folder)
    for subject in ("subj01", "subj02"):
        own = folder / "subjects" / subject
        assert len(load_split(split_file(own)).held_out) == 4
        assert load_mapping(mapping_folder(own, 0)).layer.shape[1] == 8
        assert len(refit_folders(own)) == 2
    stages = {name.split("/")[0] for name in check_rows(folder)}
    assert {"brain", "selectors"} <= stages <= {"brain", "selectors", "alignment"}
    assert {"brain/all/r2", "brain/all/subj02/r2"} <= set(rows_of(folder))
    manifest = read_json(folder / "manifest.json")
    assert set(manifest["fingerprints"]["brain"]) == {"subj01", "subj02"}
    assert "tasks" not in manifest


def test_a_second_call_does_nothing_and_a_killed_one_goes_on(
    mapped: tuple[list[str], Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides, folder = mapped

    def note_files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}

    before = note_files()
    assert run(load_config(overrides)) == folder
    assert capsys.readouterr().out == f"{folder}: already there\n"
    assert note_files() == before
    (folder / "finished.json").unlink()
    # nothing is fitted again
    monkeypatch.setattr("harness.tracking.fitter.fit_mapping", None)
    run(load_config(overrides))
    assert is_finished(folder)
    kept = [path for path in before if path.suffix == ".safetensors"]
    assert len(kept) >= 6
    assert all(path.stat().st_mtime_ns == before[path] for path in kept)


@pytest.mark.parametrize("warm", ["null", "2"])
def test_a_map_is_step_0_of_a_run(tmp_path: Path, warm: str) -> None:
    overrides = ["backbone=mini_random", *MAP, f"mapping.warm_steps={warm}", f"runs_dir={tmp_path}"]
    folder = run(load_config(overrides))
    own = ["finetune.max_steps=1", "probes.tasks=[]", "method=linear_probe"]
    tracked = finetune(load_config([*TINY, *overrides, *own]))
    assert_equal(load_mapping(mapping_folder(folder, 0)), load_mapping(mapping_folder(tracked, 0)))
    for mine, theirs in zip(refit_folders(folder), refit_folders(tracked), strict=True):
        assert_equal(load_mapping(mine), load_mapping(theirs))
    assert rows_of(folder).items() <= rows_of(tracked).items()


def test_folders_depend_on_what_a_map_is_made_of_only() -> None:
    first = load_config([])
    for same in ("task=shapes", "method=lora", "finetune.lr=1", "mapping.voxels_per_pass=7"):
        assert map_folder(load_config([same])) == map_folder(first)
    for other in ("seed=1", "backbone=mini_random", "brain.n_voxels=5000", "mapping.steps=3", "study.name=x"):
        assert map_folder(load_config([other])) != map_folder(first)
    assert map_folder(first).parent.parent == run_folder(first).parent


def test_several_networks_are_named_with_commas_or_by_a_grid() -> None:
    def names(*overrides: str) -> list[str]:
        return [config.backbone.name for config in expand(overrides)]

    assert names() == ["mini_clip"]
    assert names("backbone=mini_random,mini_clip,mini_random") == ["mini_random", "mini_clip"]
    assert names("backbone=[mini_random,mini_clip]") == ["mini_random", "mini_clip"]
    # the demo's grid varies backbones; two tasks are one map
    assert names("study=demo") == ["mini_clip", "mini_supervised", "mini_random"]
    assert names("study.grid={task:[digits,shapes]}") == ["mini_clip"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["map", "backbone=mini_clip,mini_clup"],
            "unknown backbone 'mini_clup': .* mean 'mini_clip'",
        ),
        (
            ["map", "method=lora"],
            "method: palimpsest map does not read it, expected settings of seed",
        ),
        (["map", "mapping.stesp=3"], "unknown setting 'mapping.stesp': .* did you mean 'mapping.steps'"),
        (["map", "backbone"], "override 'backbone': expected key=value"),
        (["atlas", "/nowhere"], "/nowhere: found no finished map, expected the folder of palimpsest map"),
        (["atlas"], "required: FOLDER"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        dispatch(arguments)
    assert "\n" not in str(raised.value)


def write_map(overrides: list[str], folder: Path, order: float) -> Path:
    """Write a map with known selectors, the better the larger `order`, by the code that writes real ones."""
    config = load_config([*overrides, f"runs_dir={folder}", "mapping.floor_refits=2", "study.name=made"])
    own, brain = map_folder(config), make_brain()
    fits = [make_mapping(brain, order, 0.6 - order, seed) for seed in range(3)]
    for refit, fit in enumerate(fits):
        save_mapping(fit, mapping_folder(own, 0, refit))
    with Journal(own / "results.jsonl") as journal:
        journal.log(0, dict(measure_brain({0: fits[0]}, fits[1:], brain, 0))[0])
    (own / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    write_json(own / "manifest.json", {"code_version": "0123456789ab"})
    ids = np.arange(20)
    save_split(split_brain(make_rows(20), config.mapping, 0), split_file(own), ids)
    write_json(own / "finished.json", {"steps": [0]})
    return own


def make_rows(n_images: int) -> Brain:
    """Give the made brain as many stimuli."""
    brain = make_brain()
    return replace(
        brain,
        stimuli=[brain.stimuli[0]] * n_images,
        responses=np.zeros((n_images, brain.n_voxels), np.float32),
        stimulus_ids=np.arange(n_images),
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two maps and their atlas."""
    place = tmp_path_factory.mktemp("maps")
    write_map(["backbone=mini_clip"], place, 0.6)
    write_map(["backbone=mini_random"], place, 0.0)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(atlas, "load_brain", lambda config: make_rows(20))
        dispatch(["atlas", str(place / "made")])
    return place / "made"


def test_the_atlas_has_its_panels_and_needs_nothing_beside_it(study: Path) -> None:
    path = study / "atlas.html"
    page = Page(path)
    assert not {name for name, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    assert all(address.startswith("data:image/png") for address in page.values("img", "src"))
    assert "url(" not in path.read_text(encoding="utf-8")
    assert not page.values("a", "href")
    assert all(page.values("img", "alt"))
    assert not page.open
    # scores, hierarchy; selectors, shares, places and clusters of two networks; no channels
    assert len(page.values("img", "src")) == 2 + 2 * 4
    for text in ("mini_clip", "mini_random", "One map a layer", "Places on the image plane", "b0", "Sources"):
        assert text in page.text
    assert page.text.count("saved without learned.safetensors") == 2
    assert len(re.findall(r">best<", path.read_text(encoding="utf-8"))) == 4  # the brain and three regions


def test_the_atlas_takes_maps_from_several_places(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        atlas, "render_atlas", lambda networks, rois: ", ".join(network.label for network in networks)
    )
    one, two = sorted((study / "maps").iterdir())
    other = write_map(["backbone=mini_random"], tmp_path, 0.0).parents[1]
    # by default in the first one's study
    dispatch(["atlas", str(other), str(one)])
    assert capsys.readouterr().out == f"{other / 'atlas.html'}\n"
    out = tmp_path / "both.html"
    dispatch(["atlas", str(one), str(two), str(one), "--out", str(out)])
    assert out.read_text(encoding="utf-8") == "mini_clip, mini_random"
    with pytest.raises(InputError, match="--out: found the folder"):
        atlas.write_atlas([one], tmp_path)


def test_tables_name_the_difference_to_the_best(study: Path) -> None:
    networks = read_maps(find_maps(study))
    rows = list(atlas.tabulate(networks, ["all", "V1", "absent"], [{"all": 0.1, "V1": 0.2}] * 2))
    assert [row["place"] for row in rows] == ["Whole brain", "V1", "absent"]
    for row, place in zip(rows[:2], ("all", "V1"), strict=True):
        values = [network.rows[f"brain/{place}/r2"] for network in networks]
        assert [cell["value"] for cell in row["cells"]] == values
        assert [cell["below"] for cell in row["cells"]] == [value - max(values) for value in values]
    assert [cell["value"] for cell in rows[2]["cells"]] == [None, None]


def test_maps_of_one_backbone_are_told_apart(tmp_path: Path) -> None:
    write_map(["backbone=mini_clip"], tmp_path, 0.6)
    write_map(["backbone=mini_clip", "mapping.steps=9"], tmp_path, 0.6)
    write_map(["backbone=mini_random"], tmp_path, 0.6)
    labels = [network.label for network in read_maps(find_maps(tmp_path / "made"))]
    assert len(set(labels)) == 3
    assert "mini_random" in labels


@pytest.mark.parametrize("lacking", ["surface", "ceiling", "selectors", "ranks"])
def test_maps_of_what_is_lacking_are_left_out(lacking: str) -> None:
    brain, mapping = make_brain(), make_mapping(make_brain(), 0.5, 0.0, 0)
    if lacking == "surface":
        brain = without_surface(brain)
    elif lacking == "ceiling":
        brain = replace(brain, noise_ceiling=None)
    elif lacking == "ranks":
        brain = replace(brain, rois=tuple(replace(roi, rank=None) for roi in brain.rois))
    else:
        bare = dict.fromkeys(("space", "scale", "weights", "bias"))
        mapping = replace(mapping, family="layer_ridge", **bare)
    fits = SubjectFits(mapping, {}, mapping.r2 > 0, {})
    drawn = atlas.draw_network(brain, fits, 0)
    gone = {name for name, image in drawn.items() if image is None}
    assert gone == ({"places", "clusters"} if lacking == "selectors" else set())
