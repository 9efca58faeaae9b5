"""Images of what regions read: colours by hand, and the command on a tracked run."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from overrides import SMALL_TRACKING, TINY
from PIL import Image

from harness.backbones.backbone import encoder_hash
from harness.backbones.load import load_backbone
from harness.brains.load import load_brain
from harness.commands.readout import main
from harness.config.compose import (
    load_config,
    read_config,
    to_yaml,
)
from harness.config.run import Config
from harness.finetuning.methods.tuned import tune
from harness.finetuning.snapshots import (
    describe,
    read_backbone,
    write_snapshot,
)
from harness.mappings.data import FitData
from harness.mappings.fit import (
    fit_mapping,
    prepare_tokens,
)
from harness.mappings.mapping import (
    load_mapping,
    save_mapping,
)
from harness.mappings.splits import (
    save_split,
    split_stimuli,
)
from harness.measures.projection import Projection
from harness.plot.flatmap import layer_colours
from harness.plot.projections import (
    RoiReading,
    choose_limits,
    colour_pictures,
    draw_layers,
    draw_readout,
)
from harness.reporting.readout import write_readout
from harness.runs.layout import (
    mapping_folder,
    run_folder,
    snapshot_folder,
)
from harness.storage.errors import InputError

IMAGES = np.linspace(0, 1, 2 * 5 * 5 * 3).reshape(2, 5, 5, 3)


def made_reading(name: str = "V1", scale: float | None = 0.25) -> RoiReading:
    layers = tuple(np.random.default_rng(index).normal(size=(2, 3, 3, 3)) for index in range(2))
    layer = np.array([0.25, 0.75])
    mixed = 0.25 * layers[0] + 0.75 * layers[1]
    return RoiReading(name, Projection(layers, mixed), layer, scale, np.array([0.6, 0.3]))


def test_colours_by_hand() -> None:
    values = np.array([[0.0, 1, -1], [2, -4, 0.5], [-1, 5, 3]])
    found = colour_pictures(values, np.array([2.0, 4.0, 0.0]))
    np.testing.assert_allclose(found, [[0.5, 0.625, 0.5], [1, 0, 0.5], [0.25, 1, 0.5]])


def test_limits_are_those_of_all_pictures_but_for_a_few_places() -> None:
    one, two = np.zeros((1, 10, 10, 3)), np.zeros((1, 10, 10, 3))
    one[..., 0], two[..., 1] = -3.0, 0.5
    two[0, 0, 0] = 1000  # half a percent
    np.testing.assert_allclose(choose_limits([one, two]), [3.0, 0.5, 0.0])


def test_rows_are_regions_under_the_images() -> None:
    first, second = made_reading("V1"), made_reading("V2", None)
    second = replace(second, projection=replace(second.projection, mixed=100 * second.projection.mixed))
    figure = draw_readout(IMAGES, [first, second], "made")
    shown = [image.get_array() for image in figure.axes[0].images]
    np.testing.assert_allclose(shown[:2], IMAGES)
    mixed = colour_pictures(first.projection.mixed, choose_limits([first.projection.mixed]))
    np.testing.assert_allclose(shown[2:4], mixed)
    np.testing.assert_allclose(shown[4:], mixed)  # each row has its own scale
    extents = np.array([image.get_extent() for image in figure.axes[0].images])
    assert (np.diff(extents[::2, 3]) < 0).all()  # from top to bottom
    np.testing.assert_allclose(extents[::2, :2], extents[[0, 0, 0], :2])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"V1", "V2", "made", "60%", "30%", "global token 25%"} <= set(texts)
    assert texts.count("global token 25%") == 1


def test_bars_are_the_layer_distribution() -> None:
    figure = draw_readout(IMAGES, [made_reading()], "made")
    low, high = figure.axes[0].patches
    assert high.get_height() == pytest.approx(3 * low.get_height())
    np.testing.assert_allclose([bar.get_facecolor()[:3] for bar in (low, high)], layer_colours(np.eye(2)))


def test_layers_share_a_scale_and_the_last_is_on_top() -> None:
    reading = made_reading()
    faint = replace(
        reading.projection, layers=(0.1 * reading.projection.layers[0], reading.projection.layers[1])
    )
    figure = draw_layers(IMAGES, replace(reading, projection=faint), ("early", "late"), "made")
    shown = [image.get_array() for image in figure.axes[0].images]
    limits = choose_limits(faint.layers)
    np.testing.assert_allclose(shown[4:6], colour_pictures(faint.layers[1], limits))
    np.testing.assert_allclose(shown[6:8], colour_pictures(faint.layers[0], limits))
    assert np.ptp(shown[6]) < 0.3 < np.ptp(shown[4])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.index("late") < texts.index("early")
    assert {"75% of the reading", "25% of the reading"} <= set(texts)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a run with two snapshots and their mappings, and nothing the command does not need."""
    folder = tmp_path_factory.mktemp("runs")
    config = load_config([*TINY, *SMALL_TRACKING, f"runs_dir={folder}", "mapping.steps=3"])
    return write_run(config)


def write_run(config: Config) -> Path:
    folder = run_folder(config)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    brain, backbone = load_brain(config.brain), load_backbone(config.backbone)
    split = split_stimuli(len(brain.stimuli), config.mapping.held_out, config.seed)
    save_split(split, folder / "split.json")
    model = tune(backbone, 10, config.method, config.seed)
    for step in (0, 2):
        if step:
            with torch.no_grad():
                model.backbone.encoder.blocks[0].mlp.fc1.weight.mul_(0.5)
        manifest = describe(model, step, config.method.name, encoder_hash(backbone), {})
        write_snapshot(snapshot_folder(folder, step), model, manifest)
        tokens = prepare_tokens(
            model.merged_backbone(), brain.stimuli, split, config.mapping, 20, "cpu", folder
        )
        data = FitData(tokens, brain.responses, brain.coords, brain.bounding_box, split)
        mapping = fit_mapping(data, config.mapping, seed=step)
        save_mapping(mapping, mapping_folder(folder, step))
    return folder


def test_pictures_are_written_into_the_run(run: Path) -> None:
    written = write_readout(run)
    assert [path.relative_to(run).as_posix() for path in written] == [
        "figures/readout-step-000002.png",  # the last
        "figures/clusters-step-000002.png",
    ]
    before = [path.read_bytes() for path in written]
    for path in written:
        with Image.open(path) as picture:
            assert picture.width == 1728
            pixels = np.asarray(picture.convert("RGB"))
        assert (pixels[0] == 255).all()  # a white background
        assert len(np.unique(pixels.reshape(-1, 3)[::500], axis=0)) > 100
    assert write_readout(run) == written
    assert [path.read_bytes() for path in written] == before


def test_the_command_shows_named_regions_layer_by_layer_and_prints_where(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wide.png"
    Image.effect_noise((160, 90), 80).convert("RGB").save(file)
    regions = ["--roi", "FFC", "--roi", "V1", "--roi", "FFC"]
    command = ["readout", str(run), "--step", "0", *regions, "--image", str(file), "--clusters", "5"]
    monkeypatch.setattr(sys, "argv", command)
    main()
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.stem for path in printed] == [
        "readout-step-000000",
        "readout-V1-step-000000",  # in the order of the hierarchy
        "readout-FFC-step-000000",
        "clusters-step-000000",
    ]
    assert all(path.parent == run / "figures" and path.stat().st_size > 10_000 for path in printed)


def test_the_backbone_is_that_of_the_snapshot(run: Path) -> None:
    config = load_config([*TINY, *SMALL_TRACKING])
    before, after = (read_backbone(config, run, step).encoder.blocks[0].mlp.fc1.weight for step in (0, 2))
    torch.testing.assert_close(after, 0.5 * before)


def without_learned(run: Path) -> None:
    (mapping_folder(run, 2) / "learned.safetensors").unlink()


def as_ridge(run: Path) -> None:
    mapping = load_mapping(mapping_folder(run, 2))
    absent = dict.fromkeys(("space", "scale", "weights", "bias"))
    save_mapping(replace(mapping, family="layer_ridge", **absent), mapping_folder(run, 2))


def without_mappings(run: Path) -> None:
    (run / "mappings").rename(run / "nowhere")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (without_learned, r"mappings/step-000002: saved without learned.safetensors"),
        (as_ridge, r"mappings/step-000002: found a mapping of family layer_ridge, which has no channels"),
        (without_mappings, r"found no mapping of a snapshot, expected the folder of a tracked run"),
    ],
)
def test_runs_that_cannot_be_read_say_why(
    run: Path, tmp_path: Path, damage: Callable[[Path], None], problem: str
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    damage(copy)
    with pytest.raises(InputError, match=problem) as error:
        write_readout(copy)
    assert "\n" not in str(error.value)


def test_bad_input_is_named(run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    for arguments, problem in (
        ({"step": 1}, r"^--step: found 1, expected 0, 2$"),
        ({"rois": ["FFA"]}, r"^unknown region 'FFA': expected one of .*; did you mean 'FFC'\?"),
        ({"images": [tmp_path / "no.png"]}, r"no\.png: no such file"),
        ({"images": [broken]}, r"broken\.png: not a readable image"),
        ({"images": [tmp_path]}, r"not a readable image"),
        ({"images": [broken] * 13}, r"^--image: found 13, expected at most 12 in a figure"),
        ({"n_clusters": 1}, r"^--clusters: found 1, expected 2 to 60"),
    ):
        with pytest.raises(InputError, match=problem) as error:
            write_readout(run, **arguments)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"config\.yaml: no such file"):
        write_readout(tmp_path)


def test_one_of_several_subjects_is_chosen(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--subject: found subj01; single-subject run, omit --subject"):
        write_readout(run, subject="subj01")
    config = read_config(run / "config.yaml")
    several = tmp_path / "run"
    shutil.copytree(run / "snapshots", several / "snapshots")
    brains = config.model_copy(update={"brain": config.brain.model_copy(update={"subjects": (3, 0)})})
    (several / "config.yaml").write_text(to_yaml(brains), encoding="utf-8")
    own = several / "subjects" / "subj00"
    shutil.copytree(run / "mappings", own / "mappings")
    shutil.copy(run / "split.json", own)
    written = write_readout(several, subject="subj00")
    assert [path.relative_to(own).as_posix() for path in written] == [
        "figures/readout-step-000002.png",
        "figures/clusters-step-000002.png",
    ]
    with pytest.raises(InputError, match=r"subject 'subj1': .*did you mean 'subj0"):
        write_readout(several, subject="subj1")
    with pytest.raises(InputError, match="no mapping of a snapshot"):  # for the first subject, subj03
        write_readout(several)
