"""ImageNet and its natural shifts, from small folders in their authors' layouts; pretrained heads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from made_backbones import configuration, register_small
from made_images import make_image, write_folders, write_hub_copy
from PIL import Image
from safetensors.torch import save_file

from harness.backbones.load import load_backbone
from harness.backbones.pretrained_head import PretrainedHead, load_pretrained_head
from harness.config.compose import load_config
from harness.config.shifts import ShiftsConfig
from harness.measures.probes.pretrained_head import classifier, pretrained_head
from harness.measures.probes.probed_task import ProbedTask, fit_classifiers, score_probes
from harness.storage.errors import InputError
from harness.studies.availability import find_images
from harness.tracking.shift_probing import measure_shifts
from tasks.imagenet_classes import class_names, find_index, wordnet_ids
from tasks.load import load_task

TENCH, GOLDFISH, ANALOG, DIGITAL = "n01440764", "n01443537", "n02708093", "n03196217"
INDICES = (0, 1, 409, 530)
NAMES = ["tench", "goldfish", "analog clock", "digital clock"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imagenet")
    ids = dict.fromkeys((TENCH, GOLDFISH, ANALOG, DIGITAL), 3)
    write_folders(root / "clean" / "train", ids)
    write_folders(root / "clean" / "val", dict.fromkeys(ids, 2), 1000)
    # ImageNet-R and -A have folders of ids, a README, and other classes
    write_folders(root / "imagenet-r", {GOLDFISH: 2, DIGITAL: 1, "n02051845": 1}, 2000)
    (root / "imagenet-r" / "README.txt").write_text("text")
    write_folders(root / "imagenetv2" / "imagenetv2-matched-frequency-format-val", {"0": 1, "409": 2}, 3000)
    write_folders(root / "sketch-download" / "sketch", {TENCH: 1, ANALOG: 1}, 4000)
    objects = write_folders(root / "objectnet-1.0" / "images", {"alarm_clock": 2, "air_freshener": 1}, 5000)
    framed = make_image(7).resize((20, 30))
    framed = Image.fromarray(np.pad(np.asarray(framed), ((2, 2), (2, 2), (0, 0)), constant_values=255))
    framed.save(objects / "alarm_clock" / "000.png")
    tables = root / "objectnet-1.0" / "mappings"
    tables.mkdir()
    labels = {"alarm_clock": "Alarm clock", "air_freshener": "Air freshener"}
    (tables / "folder_to_objectnet_label.json").write_text(json.dumps(labels))
    (tables / "objectnet_to_imagenet_1k.json").write_text(
        json.dumps({"Alarm clock": "analog clock; digital clock"})
    )
    write_hub_copy(root / "hub-a", {"test": [0, 1, 1]}, [GOLDFISH, ANALOG], ("image", "label"))
    return root


def load(data: Path, **variants: str):
    places = {
        name: place if place.startswith("hub:") else str(data / place) for name, place in variants.items()
    }
    return load_task("imagenet", source="imagenet", root=str(data / "clean"), variants=places, templates=())


def test_classes_have_ids_indices_and_names():
    assert len(wordnet_ids()) == len(class_names()) == 1000
    for wnid, index in zip((TENCH, GOLDFISH, ANALOG, DIGITAL), INDICES, strict=True):
        assert wordnet_ids()[index] == wnid and find_index("x", wnid) == find_index("x", str(index)) == index
    assert [class_names()[index] for index in INDICES] == [
        "tench",
        "goldfish",
        "analog clock",
        "digital clock",
    ]
    for wrong in ("n99999999", "1000", "cat"):
        with pytest.raises(InputError, match=f"here: found class '{wrong}', expected a WordNet id"):
            find_index("here", wrong)


def test_clean_images(data):
    task = load(data)
    assert task.imagenet == INDICES
    assert task.class_names == ("tench", "goldfish", "analog clock", "digital clock")
    assert (len(task.train), len(task.test), task.shifts) == (12, 8, ())


def test_folders_of_ids_and_of_indices(data):
    task = load(data, r="imagenet-r", v2="imagenetv2", sketch="sketch-download")
    r, v2, sketch = task.shifts
    # the penguin is no class of the clean images
    assert r.columns == ((1,), (3,)) and sorted(r.labels.tolist()) == [0, 0, 1] and len(r.images) == 3
    assert v2.columns == ((0,), (2,)) and sorted(v2.labels.tolist()) == [0, 1, 1]
    assert sketch.columns == ((0,), (2,))
    # the clean counterpart has the same classes
    assert {task.test["label"][row] for row in r.clean_rows} == {1, 3}
    assert r.relabel(np.array([3, 1])).tolist() == [1, 0]
    assert r.images[0].size == (11, 9) and len({one.fingerprint for one in task.shifts}) == 3
    assert set(task.describe()["shifts"]) == {"r", "v2", "sketch"}


def test_objectnet_maps_several_classes_to_one_and_loses_its_border(data):
    (shift,) = load(data, objectnet="objectnet-1.0").shifts
    assert shift.columns == ((2, 3),) and shift.labels.tolist() == [0, 0]
    assert sorted(image.size for image in shift.images) == [(7, 5), (20, 30)]
    assert np.array_equal(np.asarray(shift.images[0]), np.asarray(make_image(7).resize((20, 30))))
    np.testing.assert_allclose(shift.project(np.array([[0.5, 0.1, 0.3, 0.1]])), [[1.0]])


def test_a_variant_on_the_hub(data):
    (shift,) = load(data, a=f"hub:{data / 'hub-a'}").shifts
    assert shift.columns == ((1,), (2,)) and sorted(shift.labels.tolist()) == [0, 1, 1]
    assert len(shift.images) == 3 and shift.images[0].mode == "RGB"


def test_as_many_images_as_the_clean_test_set(data):
    place = {"r": str(data / "imagenet-r")}
    task = load_task("imagenet", n_test=2, source="imagenet", root=str(data / "clean"), variants=place)
    assert len(task.shifts[0].images) == len(task.shifts[0].labels) == 2


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("nowhere", "nowhere: no such folder; expected the class folders"),
        ("cats", "found class 'cat', expected a WordNet id"),
        ("others", "none of its 2 images is of a class of imagenet"),
        ("broken", "found 'analogue clock' of 'Alarm clock', expected the description"),
    ],
)
def test_wrong_variants_are_one_line(data, variant, message):
    if not (data / "cats").exists():
        write_folders(data / "cats", {"cat": 1, "dog": 1})
        write_folders(data / "others", {"n02051845": 1, "n01484850": 1})
        write_folders(data / "broken" / "images", {"alarm_clock": 1})
        (data / "broken" / "mappings").mkdir()
        for name, content in (
            ("folder_to_objectnet_label.json", {"alarm_clock": "Alarm clock"}),
            ("objectnet_to_imagenet_1k.json", {"Alarm clock": "analogue clock"}),
        ):
            (data / "broken" / "mappings" / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        load(data, x=variant)


def test_settings(data):
    variants = f"task.variants={{r: {data / 'imagenet-r'}, a: 'hub:owner/name'}}"
    config = load_config(["task=imagenet", f"task.root={data / 'clean'}", "backbone=mini_clip", variants])
    needs = {(need.what, need.state) for need in find_images(config.task)}
    assert needs == {("images of imagenet", "here"), ("images of r", "here"), ("images of a", "download")}
    with pytest.raises(InputError, match="task: found neither of root and repository, expected one"):
        load_config(["task=imagenet", "backbone=mini_clip"])
    with pytest.raises(InputError, match="found fog in variants, which is a shift's name"):
        load_config(["task=imagenet", f"task.root={data / 'clean'}", "task.variants={fog: /data/fog}"])


# heads


def test_a_head_from_a_file_is_the_networks_own(tmp_path):
    name = register_small("vit")
    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    torch.nn.init.normal_(network.head.weight)
    save_file(network.state_dict(), tmp_path / "whole.safetensors")
    config = configuration("timm", name, checkpoint=tmp_path / "whole.safetensors")
    backbone = load_backbone(config)
    head = load_pretrained_head(config, backbone.n_features)
    image = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        expected, features = network(image), backbone(image).numpy()
    np.testing.assert_allclose(features @ head.weight.T + head.bias, expected.numpy(), atol=1e-4)
    # no such head: another library, no weights, another width
    assert load_pretrained_head(configuration("timm", name), backbone.n_features) is None
    assert load_pretrained_head(config, 7) is None


def test_logits_are_restricted_to_the_classes_of_the_task():
    rng = np.random.default_rng(0)
    head = PretrainedHead(rng.normal(size=(1000, 4)).astype(np.float32), np.zeros(1000, np.float32))
    features = rng.normal(size=(5, 4)).astype(np.float32)
    found = pretrained_head(features, head, INDICES)
    logits = features @ head.weight[list(INDICES)].T
    np.testing.assert_allclose(found, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), atol=1e-6)


def test_shifts_are_scored_by_every_head_and_fitted_once(data, monkeypatch):
    """Features of a class's own direction: everything is right, whatever is shifted."""
    task = load(data, r="imagenet-r", objectnet="objectnet-1.0")
    directions = np.eye(4, dtype=np.float32) * 5
    labels = [np.array(split["label"], dtype=np.int64) for split in (task.train, task.test)]
    weight = np.zeros((1000, 4), np.float32)
    weight[list(INDICES)] = directions
    head = PretrainedHead(weight, np.zeros(1000, np.float32))
    probed = ProbedTask(directions[labels[0]], labels[0], directions[labels[1]], labels[1], task, None, head)
    config = load_config(["task=digits", "backbone=mini_clip", "probes.steps=30"])
    fitted = fit_classifiers(probed, config)
    assert set(fitted) == {"linear", "pretrained_head"}
    for other in (replace(probed, head=None), replace(probed, task=replace(task, imagenet=()))):
        assert classifier(other, config) is None
    # what is fitted once scores like what is fitted alone
    assert score_probes(probed, config, fitted) == score_probes(probed, config)

    def extract(images, name):
        shift = next(one for one in task.shifts if one.name == name)
        return directions[[shift.columns[label][0] for label in shift.labels]]

    found, features = measure_shifts(task, probed.test, fitted, extract, ShiftsConfig())
    assert set(features) == {"r/r", "objectnet/objectnet"}
    for name in ("r", "objectnet"):
        for scoring in fitted:
            assert found[name]["parts"][name][scoring]["accuracy"] == 1
            assert found[name]["clean"][scoring]["accuracy"] == 1
    assert found["r"]["n"] == 3 and found["r"]["n_clean"] == 4
    assert found["r"]["chance"] == pytest.approx(2 / 3)
