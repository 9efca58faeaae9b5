"""What regions read in several networks, side by side: the figure by hand, and its place in the atlas."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from made_study import make_brain
from overrides import SMALL_TRACKING
from PIL import Image
from test_report import Page

from harness.backbones.load import load_backbone
from harness.brains.brain import Roi
from harness.brains.load import load_brain
from harness.cli import dispatch
from harness.commands.map import run
from harness.config.compose import load_config
from harness.mappings.mapping import load_mapping, save_mapping
from harness.mappings.splits import Split, save_split
from harness.measures.projection import Projection, open_reader
from harness.plot.channel_grid import (
    MOST_NETWORKS,
    ChannelColumn,
    count_pictures,
    draw_channel_grid,
)
from harness.plot.projections import RoiReading, choose_limits, colour_pictures
from harness.plot.style import WIDTH
from harness.reporting.mapped_networks import MappedNetwork, find_maps, read_maps
from harness.reporting.readout import as_seen, read_roi
from harness.reporting.region_channels import (
    MOST_REGIONS,
    choose_regions,
    choose_stimuli,
    draw_channels,
)
from harness.runs.layout import mapping_folder, split_file
from harness.runs.records import begin_record
from harness.storage.errors import InputError
from harness.storage.files import read_json
from harness.storage.hub import hub_answers, without_downloads
from harness.tokens.extraction import extract_tokens

MAP = [text for text in SMALL_TRACKING if not text.startswith("probes.")]


def make_column(
    label: str, seed: int, n_images: int = 2, regions: tuple[str, ...] = ("V1", "V4")
) -> ChannelColumn:
    rng = np.random.default_rng(seed)
    readings = {
        region: RoiReading(
            region,
            Projection((), rng.normal(size=(n_images, 3, 3, 3))),
            np.array([0.4, 0.6]),
            0.1,
            np.array([0.7, 0.2]),
        )
        for region in regions
    }
    scores = {"V1": (0.3125, 0.501), "V4": (-0.021, None)}
    return ChannelColumn(label, "#336699", rng.uniform(size=(n_images, 5, 5, 3)), readings, scores)


def test_rows_are_regions_and_columns_are_networks() -> None:
    columns = [make_column("one", 0), make_column("two", 1, regions=("V4",))]
    (figure,) = draw_channel_grid(columns, ["V1", "V4"])
    (ax,) = figure.axes
    shown = [image.get_array() for image in ax.images]
    extents = np.array([image.get_extent() for image in ax.images])
    # the images, then the cells of a network; the second has no V1
    assert len(shown) == 2 * 3 + 2 * 2
    np.testing.assert_allclose(shown[:2], columns[0].images)
    for place, region in ((2, "V1"), (4, "V4")):
        mixed = columns[0].readings[region].projection.mixed
        np.testing.assert_allclose(shown[place : place + 2], colour_pictures(mixed, choose_limits([mixed])))
    np.testing.assert_allclose(shown[6:8], columns[1].images)
    # the same region at the same height in both networks; networks beside each other
    np.testing.assert_allclose(extents[4:6, 2:], extents[8:10, 2:])
    assert extents[:6, 1].max() < extents[6:, 0].min()
    assert (np.diff(extents[:6:2, 3]) < 0).all()
    assert extents[:, :2].min() >= 0 and extents[:, :2].max() <= WIDTH
    texts = [text.get_text() for text in ax.texts]
    assert {"one", "two", "V1", "V4", "R² 0.312 (0.50)", "R² −0.021", "not mapped", "image"} == set(texts)


def test_no_label_overlaps_another_or_a_picture() -> None:
    names = ["stable_diffusion_with_a_long_name", "mini_clip, factortopy, seed 0, ab12", *"cdef"]
    n_images = count_pictures(len(names))
    columns = [make_column(name, seed, n_images) for seed, name in enumerate(names)]
    (figure,) = draw_channel_grid(columns, ["V1", "V4", "a_region_of_a_long_name"])
    (ax,) = figure.axes
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    boxes += [image.get_window_extent() for image in ax.images]
    for place, box in enumerate(boxes[: len(ax.texts)]):
        assert min(box.x0, box.y0) >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        for other in boxes[place + 1 :]:
            apart = box.x1 <= other.x0 or other.x1 <= box.x0 or box.y1 <= other.y0 or other.y1 <= box.y0
            assert apart, (ax.texts[place].get_text(), other)


@pytest.mark.parametrize(("n_networks", "sizes"), [(1, [1]), (6, [6]), (7, [4, 3]), (13, [5, 5, 3])])
def test_many_networks_are_spread_over_figures(n_networks: int, sizes: list[int]) -> None:
    columns = [make_column(f"network {number}", number) for number in range(n_networks)]
    figures = draw_channel_grid(columns, ["V1"])
    assert [
        sum("network" in text.get_text().replace("\n", " ") for text in figure.axes[0].texts)
        for figure in figures
    ] == sizes
    # columns have one width
    lefts = [image.get_extent()[0] for image in figures[0].axes[0].images]
    assert {figure.get_size_inches()[0] for figure in figures} == {WIDTH}
    if len(figures) > 1:
        assert lefts[: 4 * sizes[-1]] == [image.get_extent()[0] for image in figures[-1].axes[0].images]


def test_the_more_networks_the_fewer_pictures() -> None:
    counts = [count_pictures(n_networks) for n_networks in range(1, MOST_NETWORKS + 1)]
    assert counts[0] == 6 and counts[-1] == 2
    assert all(fewer <= more for more, fewer in pairwise(counts))


def test_regions_are_spread_over_the_hierarchy_or_named() -> None:
    rois = [Roi(f"R{number:02d}", np.arange(3), None) for number in range(20)]
    order = [roi.name for roi in rois]
    chosen = [roi.name for roi in choose_regions(rois[::-1], order)]
    assert len(chosen) == MOST_REGIONS and chosen == sorted(chosen)
    assert chosen[0] == "R00" and chosen[-1] == "R19"
    places = [order.index(name) for name in chosen]
    assert set(np.diff(places)) <= {2, 3}
    assert [roi.name for roi in choose_regions(rois, order, ["R05", "R01"])] == ["R01", "R05"]
    assert len(choose_regions(rois[:3], order)) == 3
    with pytest.raises(InputError, match=r"unknown region 'R5': expected one of R00, R01"):
        choose_regions(rois, order, ["R5"])


def test_without_downloads_no_server_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with without_downloads():
        assert constants.HF_HUB_OFFLINE and not hub_answers()
    assert constants.HF_HUB_OFFLINE is False


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Map two networks whose weights are here."""
    place = tmp_path_factory.mktemp("runs")
    for name in ("mini_clip", "mini_random"):
        run(load_config([*MAP, f"backbone={name}", f"runs_dir={place}"]))
    return place / "default"


def test_the_atlas_shows_networks_side_by_side(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(["atlas", str(study), "--roi", "FFC", "--roi", "V1"])
    path = Path(capsys.readouterr().out.strip())
    page = Page(path)
    assert "What regions read" in page.text and "is not shown" not in page.text
    alts = page.values("img", "alt")
    assert sum("What regions read" in alt for alt in alts) == 1
    with pytest.raises(InputError, match="unknown region 'FFA'"):
        dispatch(["atlas", str(study), "--roi", "FFA"])


def test_pictures_are_those_of_readout_and_scores_those_of_the_rows(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[ChannelColumn] = []
    monkeypatch.setattr(
        "harness.reporting.region_channels.draw_channel_grid",
        lambda columns, regions: drawn.extend(columns) or [],
    )
    networks = read_maps(find_maps(study))
    brain = load_brain(networks[0].config.brain)
    images = choose_stimuli(brain, networks)
    assert len(images) == 4  # five would fit, but of 20 stimuli four are held out
    roi = next(roi for roi in brain.rois if roi.name == "V1")
    assert draw_channels(networks, images, [roi]).missing == []
    for network, column in zip(networks, drawn, strict=True):
        folder = mapping_folder(network.folder, 0)
        mapping = load_mapping(folder, with_learned=True)
        backbone = load_backbone(network.config.backbone)
        tokens = extract_tokens(backbone, images, None, 8)
        expected = read_roi(roi, mapping, open_reader(mapping, folder), tokens)
        np.testing.assert_allclose(
            column.readings["V1"].projection.mixed, expected.projection.mixed, rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(column.images, as_seen(backbone, images))
        r2 = mapping.r2[roi.voxels].mean(dtype=np.float64)
        assert column.scores["V1"][0] == pytest.approx(r2) == network.rows["brain/V1/r2"]
        assert column.scores["V1"][1] == network.rows["brain/V1/r2_normalised"]


def test_stimuli_are_held_out_from_every_network_and_shown_once(tmp_path: Path) -> None:
    ids = np.repeat([10, 11, 12, 13], 2)  # every image was shown twice
    rows = [Image.new("RGB", (4, 4), (row, 0, 0)) for row in range(8)]
    brain = make_brain()
    responses = np.zeros((8, brain.n_voxels), np.float32)
    brain = replace(brain, stimuli=rows, responses=responses, stimulus_ids=ids)

    def make_network(name: str, held_out: list[int]) -> MappedNetwork:
        fitted = np.setdiff1d(np.arange(8), held_out)
        save_split(Split(fitted, np.array(held_out)), split_file(tmp_path / name), ids)
        return MappedNetwork(name, "#336699", load_config([]), tmp_path / name, {})

    one, other = make_network("one", [0, 1, 2, 3, 6, 7]), make_network("other", [2, 3, 4, 5, 6, 7])
    third = make_network("third", [0, 1])

    def shown(*networks: MappedNetwork) -> list[int]:
        return [image.getpixel((0, 0))[0] for image in choose_stimuli(brain, networks)]

    assert shown(one) == [0, 2, 6]
    assert shown(one, other) == [2, 6]
    assert shown(other, one, third) == [2, 4, 6]  # nothing is held out from all: those of the first


def record_settings(folder: Path, *overrides: str) -> None:
    """Let a map be one that began with other settings."""
    begin_record(load_config([*MAP, *overrides]), folder, read_json(folder / "manifest.json"))


def lose_weights(folder: Path) -> str:
    """Let the map be of a network of the hub, which is not in the cache."""
    record_settings(folder, "backbone=clip_b16")
    return r"clip_b16 is not shown: .*the cache .* has no copy"


def change_weights(folder: Path) -> str:
    record_settings(folder, "backbone=mini_random", "backbone.seed=5")
    return "mini_random is not shown: .*found other weights of mini_random than those mapped"


def drop_channels(folder: Path) -> str:
    place = mapping_folder(folder, 0)
    absent = dict.fromkeys(("space", "scale", "weights", "bias"))
    save_mapping(replace(load_mapping(place), family="layer_ridge", **absent), place)
    return "mini_random is not shown: .*family layer_ridge, which has no channels"


def drop_learned(folder: Path) -> str:
    (mapping_folder(folder, 0) / "learned.safetensors").unlink()
    return "mini_random is not shown: .*saved without learned.safetensors"


def test_edited_settings_are_refused(study: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(study, tmp_path / "study"))
    (folder,) = (copy / "maps").glob("mini_random-*")
    settings = folder / "config.yaml"
    settings.write_text(settings.read_text().replace("mapping:", "mapping:  # mine"))
    with pytest.raises(InputError, match=r"config.yaml: differs from the settings that the run began with"):
        read_maps(find_maps(copy))


@pytest.mark.parametrize("damage", [lose_weights, change_weights, drop_channels, drop_learned])
def test_a_network_that_cannot_be_shown_is_named_in_one_line(
    study: Path, tmp_path: Path, damage: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(study, tmp_path / "study"))
    (folder,) = (copy / "maps").glob("mini_random-*")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    message = damage(folder)
    networks = read_maps(find_maps(copy))
    brain = load_brain(networks[0].config.brain)
    found = draw_channels(
        networks,
        choose_stimuli(brain, networks),
        choose_regions(brain.rois, [roi.name for roi in brain.rois], ["V1"]),
    )
    assert len(found.figures) == 1  # of the other network
    (line,) = found.missing
    assert re.search(message, line) and "\n" not in line
    alone = draw_channels([network for network in networks if network.folder == folder], [], brain.rois[:1])
    assert alone.figures == [] and alone.missing == [line]
