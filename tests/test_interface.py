"""The Python interface: quick to import, same numbers as a run, self-describing tables."""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_lab import draw_images, vit
from made_study import make_brain, make_mapping
from PIL import ExifTags, Image

import harness
from harness.config.compose import load_config
from harness.mappings.data import FitData
from harness.mappings.fit import (
    fit_mapping,
    prepare_tokens,
)
from harness.mappings.splits import split_brain
from harness.measures.rewiring import rewiring_measures
from harness.storage.errors import InputError
from harness.tracking import queries

TINY = {"n_voxels": 100, "n_stimuli": 20}
FAST = {"steps": 4, "n_channels": 4}


def in_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_imported_in_under_a_second_and_without_torch() -> None:
    code = """
import time
started = time.process_time()
import harness
harness.Brain, harness.load_brain, harness.load_mapping, harness.InputError, harness.__version__
print(time.process_time() - started)
import sys
print("torch" in sys.modules, "mlflow" in sys.modules, "datasets" in sys.modules)
harness.query
print("torch" in sys.modules)
"""
    seconds, heavy, after_query = in_python(code).splitlines()
    assert heavy == "False False False" and after_query == "False"
    assert float(seconds) < 2  # 0.4 s on an idle machine


@pytest.mark.parametrize(
    "code",
    [
        "from harness import query",
        "import harness; query = harness.query",
        "import harness.query; query = harness.query",
        "import harness; harness.query; import harness.query; query = harness.query",
    ],
)
def test_query_is_a_function_however_it_is_imported(code: str) -> None:
    assert in_python(f"{code}; print(query.__module__, query.__name__)").split() == [
        "harness.tracking.queries",
        "query",
    ]


def test_everything_listed_is_there_and_documented() -> None:
    for name in harness.__all__:
        item = getattr(harness, name)
        if name not in ("__version__", "plot"):
            assert inspect.getdoc(item), name
    functions = [harness.fit, harness.compare, harness.load_backbone, harness.load_brain, harness.load_task]
    functions += [getattr(harness.plot, name) for name in ("layers", "shift", "values", "clusters", "brain")]
    functions += [harness.Brain.from_arrays, harness.Backbone.from_module, harness.Task.from_images]
    for function in functions:
        text = inspect.getdoc(function) or ""
        assert "Examples\n--------" in text, function
        documented = text.partition("Parameters\n----------")[2]
        for parameter in inspect.signature(function).parameters:
            assert parameter in documented, (function, parameter)


def test_query_is_that_of_the_command() -> None:
    assert harness.query is queries.query


def test_a_fit_is_that_of_a_run() -> None:
    brain = harness.load_brain("simulated", **TINY)
    backbone = harness.load_backbone("mini_random")
    found = harness.fit(backbone, brain, seed=7, split_seed=3, **FAST)
    config = load_config(["mapping.steps=4", "mapping.n_channels=4"]).mapping
    split = split_brain(brain, config, 3)
    tokens = prepare_tokens(backbone, brain.stimuli, split, config, 128, "cpu", Path.cwd())
    data = FitData(tokens, brain.responses, brain.coords, brain.bounding_box, split)
    expected = fit_mapping(data, config, seed=7, bootstrap=config.bootstrap, device="cpu")
    for name in ("layer", "space", "scale", "weights", "bias", "r2", "correlation"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    again = harness.fit(backbone, brain, seed=8, split_seed=3, **FAST)
    assert (again.layer != found.layer).any()


def test_settings_of_a_fit_are_checked_and_used(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    brain = harness.Brain.from_arrays(
        rng.normal(size=(40, 6)), rng.uniform(-9, 9, (6, 3)), draw_images(40, 0), rois=["a"] * 6
    )
    ridge = harness.fit(vit(), brain, "layer_ridge", held_out=0.5)
    assert (ridge.family, ridge.layers) == ("layer_ridge", ("trunk.step0", "trunk.step1", "trunk.step2"))
    assert ridge.weights is None
    harness.save_mapping(ridge, tmp_path / "ridge")
    np.testing.assert_array_equal(harness.load_mapping(tmp_path / "ridge").layer, ridge.layer)
    for arguments, problem in (
        ({"mapping": "factortopi"}, "unknown mapping 'factortopi'.*did you mean 'factortopy'"),
        ({"stepz": 3}, "unknown setting 'mapping.stepz'.*did you mean 'mapping.steps'"),
        ({"mapping": "layer_ridge", "steps": 3}, "mapping.steps: not a setting of the chosen mapping"),
        ({"held_out": 2.0}, "mapping.held_out: found 2.0"),
    ):
        with pytest.raises(InputError, match=problem):
            harness.fit(vit(), brain, **arguments)


def test_names_and_settings_choose_what_is_loaded() -> None:
    backbone = harness.load_backbone("mini_random", image_size=32)
    assert backbone.preprocessing.size == 32
    config = load_config(["backbone=mini_random"]).backbone
    assert harness.load_backbone(config).layers == backbone.layers
    assert len(harness.load_task("digits", n_train=20, n_test=10).train) == 20
    with pytest.raises(InputError, match=r"did you mean 'mini_clip'"):
        harness.load_backbone("mini_clp")
    with pytest.raises(InputError, match=r'^backbone.image_size: found "a"'):
        harness.load_backbone("mini_random", image_size="a")
    with pytest.raises(InputError, match=r"^backbone: found a configuration and settings image_size"):
        harness.load_backbone(config, image_size=32)


def test_a_comparison_has_a_row_per_voxel_and_per_region() -> None:
    brain = make_brain(n_rois=2, n_voxels_per_roi=16)
    before, after = make_mapping(brain, 0.3, 0.0, seed=0), make_mapping(brain, 0.6, 0.0, seed=1)
    found = harness.compare(before, after, brain)
    assert found.voxels.shape[0] == 32 and found.voxels.index.name == "voxel"
    for name, values in rewiring_measures(before, after).items():
        np.testing.assert_allclose(found.voxels[name], values)
    np.testing.assert_allclose(found.voxels["depth_b"] - found.voxels["depth_a"], found.voxels["depth_shift"])
    assert list(found.rois.index) == ["all", "V1", "V2"]
    assert found.rois["n_voxels"].tolist() == [32, 16, 16]
    np.testing.assert_allclose(
        found.rois.loc["V2", "wasserstein"], found.voxels["wasserstein"].iloc[brain.rois[1].voxels].mean()
    )
    assert list(harness.compare(before, after).rois.index) == ["all"]
    with pytest.raises(InputError, match=r"^brain made: found 4 voxels, expected 32"):
        harness.compare(before, after, make_brain(n_rois=1, n_voxels_per_roi=4))


ROIS = {"V1": np.arange(3), "V2": np.array([False, False, False, True, True, True])}


def arrays(**changed: object) -> harness.Brain:
    rng = np.random.default_rng(0)
    settings = {
        "responses": rng.normal(size=(8, 6)),
        "coordinates": rng.uniform(-9, 9, (6, 3)),
        "stimuli": draw_images(8, 0),
        "rois": ROIS,
    } | changed
    return harness.Brain.from_arrays(**settings)


def test_a_brain_from_arrays_is_checked_standardised_and_fingerprinted() -> None:
    brain = arrays(roi_ranks={"V1": 1}, noise_ceiling=np.full(6, 40.0), name="mine")
    assert [(roi.name, roi.voxels.tolist(), roi.rank) for roi in brain.rois] == [
        ("V1", [0, 1, 2], 1.0),
        ("V2", [3, 4, 5], None),
    ]
    np.testing.assert_allclose(brain.responses.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(brain.responses.std(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(brain.noise_ceiling, 0.4)  # read as percentages
    assert (brain.hemisphere == np.where(brain.coords[:, 0] < 0, "L", "R")).all()
    assert brain.name == "mine" and brain.surface is None
    assert arrays().fingerprint == arrays().fingerprint
    others = [
        arrays(standardise=False),
        arrays(stimuli=draw_images(8, 1)),
        arrays(responses=np.random.default_rng(1).normal(size=(8, 6))),
        arrays(rois=["V1"] * 6),
    ]
    assert len({brain.fingerprint for brain in [arrays(), *others]}) == 5


def test_stimuli_in_memory_are_shown_as_those_of_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for place, image in enumerate(draw_images(8, 0)):
        wide = image.resize((30, 20)).convert("RGBA")
        wide.putalpha(place * 30)
        wide.save(tmp_path / f"{place}.png", exif=exif)
    files = sorted(tmp_path.iterdir())
    with caplog.at_level(logging.WARNING):
        by_file = arrays(stimuli=files)
        assert "8 of 8 images are transparent in part and shown on white" in caplog.text
        assert "1 of 8 images are of one colour on white" in caplog.text
    opened = [Image.open(path) for path in files]
    in_memory = [arrays(stimuli=opened), arrays(stimuli=[image.convert("RGBA") for image in opened])]
    backbone = harness.load_backbone("mini_random")
    for brain in in_memory:
        assert brain.fingerprint == by_file.fingerprint
        for one, other in zip(brain.stimuli, by_file.stimuli, strict=True):
            assert one.size == (20, 30) and one.tobytes() == other.tobytes()
    # a network sees the same, even if the image reaches it as it was stored
    assert (backbone.preprocessing(opened) == backbone.preprocessing(list(by_file.stimuli))).all()
    for image in opened:
        image.close()
    deep = [Image.new("I;16", (8, 8))] * 8
    with pytest.raises(InputError, match=r"stimuli: image 0: found an image of mode I;16, expected 8 bits"):
        arrays(stimuli=deep)


def test_stimuli_may_be_images_pixels_files_or_a_folder(tmp_path: Path) -> None:
    images = draw_images(8, 0)
    for place, image in enumerate(images):
        image.save(tmp_path / f"{place}.png")
    pixels = np.stack([np.asarray(image) for image in images])
    kinds = [
        images,
        pixels,
        sorted(tmp_path.iterdir()),
        [str(p) for p in sorted(tmp_path.iterdir())],
        tmp_path,
    ]
    brains = [arrays(stimuli=kind) for kind in kinds]
    assert len({brain.fingerprint for brain in brains}) == 1
    for brain in brains:
        np.testing.assert_array_equal(np.asarray(brain.stimuli[5]), pixels[5])


def test_equal_pixels_are_one_picture() -> None:
    images = draw_images(7, 0)
    brain = arrays(stimuli=[*images, images[2].copy()])
    assert brain.stimulus_ids[7] == brain.stimulus_ids[2]
    assert len(np.unique(brain.stimulus_ids)) == 7


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"responses": np.zeros(8)}, r"brain arrays: responses: found shape \(8,\)"),
        ({"coordinates": np.zeros((5, 3))}, r"brain arrays: coordinates: found shape \(5, 3\).*\(6, 3\)"),
        ({"stimuli": draw_images(7, 0)}, "brain arrays: stimuli: found 7 images, expected 8, one per row"),
        ({"stimuli": [1] * 8}, "brain arrays: stimuli: found a int, expected PIL images"),
        (
            {"stimuli": np.zeros((8, 4, 4))},
            r"brain arrays: stimuli: found shape .*expected \[n_images, height",
        ),
        ({"rois": {"V1": [6]}}, "brain arrays: rois: V1: found .*, expected voxel numbers from 0 to 5"),
        ({"rois": {"V1": [True]}}, "brain arrays: rois: V1: found .*or 6 booleans"),
        ({"rois": ["V1"]}, r"brain arrays: rois: found shape \(1,\)"),
        ({"roi_ranks": {"V9": 1}}, "brain arrays: roi_ranks: unknown ROI 'V9'"),
        ({"noise_ceiling": np.zeros(5)}, r"brain arrays: noise_ceiling: found shape \(5,\)"),
        ({"hemisphere": ["X"] * 6}, "brain arrays: hemisphere: found 'X'"),
        ({"n_repeats": np.zeros(8, int)}, "brain arrays: n_repeats: found 0"),
    ],
)
def test_arrays_that_do_not_fit_are_one_line(changed: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=f"^{problem}") as error:
        arrays(**changed)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [([0, 1, 1], "train: found labels of shape"), ([0, 5], "train: found labels that are none of 2 classes")],
)
def test_a_task_from_images_is_checked(labels: list[int], problem: str) -> None:
    images = draw_images(2, 0)
    with pytest.raises(InputError, match=f"^task images: {problem}"):
        harness.Task.from_images((images, labels), (images, [0, 1]), ["a", "b"])
