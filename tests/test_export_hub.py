"""Snapshots as models of the hub: loaded back with timm, open_clip and peft, their cards, and pushes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
import yaml
from huggingface_hub import ModelCard, constants
from made_backbones import add_tiny_siglip, add_tiny_vit
from made_hub import TOKEN, cache_weights, serve_hub
from made_images import write_hub_copy
from overrides import TINY
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional

from harness.backbones.load import load_backbone
from harness.backbones.origin import describe_origin
from harness.commands.export import main
from harness.config.compose import (
    config_hash,
    load_config,
    read_config,
    to_yaml,
)
from harness.config.folders import REPOSITORY
from harness.config.task import tasks_in_order
from harness.exports.exported_model import ExportedModel
from harness.exports.model_card import accuracy_interval
from harness.exports.model_folder import write_model
from harness.exports.timm_files import write_timm
from harness.finetuning.devices import build_accelerator
from harness.finetuning.loop import finetune
from harness.finetuning.methods.tuned import TunedModel, tune
from harness.finetuning.snapshots import read_manifest, read_tuned
from harness.measures.catalogue import describe
from harness.runs.journal import Journal
from harness.runs.layout import snapshot_folder
from harness.storage.errors import InputError
from tasks.load import load_task

ROWS = {
    "brain/all/r2": 0.25,
    "task/digits/accuracy": 0.7,
    "task/digits/balanced_accuracy": 0.6875,
    "task/digits/auroc": 0.9125,
    "task/digits/ece": 0.125,
    "probe/digits/n_test": 10.0,
    "probe/shapes/n_test": 480.0,
    "forgetting/shapes/delta_lp": -0.0625,
    "forgetting/shapes/delta_lp_low": -0.09375,
    "forgetting/shapes/delta_lp_high": -0.03125,
    "forgetting/textures/delta_knn": 0.015625,
    "verdict/all/kind": 3.0,
    "verdict/V1/kind": 0.0,
    "verdict/V4/kind": 3.0,
    "verdict/V4/p": 0.012,
    "verdict/LO2/kind": 1.0,
}
MANIFEST = {"code_version": "0123456789ab", "tasks": {"digits": {"n_train": 24, "fingerprint": "f" * 64}}}
TAGGED = ["backbone=timm", "backbone.model=test_vit", "backbone.weights=r160_in1k"]
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def write_run(run: Path, *overrides: str, rows: Mapping[str, float] | None = None) -> Path:
    """Fine-tune for two steps per task, and write what the harness writes beside the snapshots."""
    config = load_config([*TINY, "finetune.max_steps=2", *overrides])
    tasks = [load_task(**one.model_dump()) for one in tasks_in_order(config.task)]
    finetune(config, run, tasks, load_backbone(config.backbone), build_accelerator(config.finetune))
    (run / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    (run / "manifest.json").write_text(json.dumps(MANIFEST), encoding="utf-8")
    with Journal(run / "results.jsonl") as journal:
        journal.log(2, rows or {})
        journal.log(1, {name: 0.5 for name in rows or {} if name.startswith("task/")})
    return run


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("full") / "run", "backbone=mini_supervised", rows=ROWS)


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    return write_run(folder / "run", "backbone=mini_supervised", "method=lora", "finetune.lr=0.05", rows=ROWS)


@pytest.fixture(scope="module")
def clip_lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip_lora")
    return write_run(folder / "run", "backbone=mini_clip", "method=lora", "finetune.lr=0.05")


@pytest.fixture(scope="module")
def flyp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("flyp") / "run", "backbone=mini_clip", "method=flyp")


def read_run(run: Path, step: int = 2) -> tuple[TunedModel, torch.Tensor, Image.Image]:
    """Return a snapshot as training had it, preprocessed test images, and the first of them."""
    config = read_config(run / "config.yaml")
    model = read_tuned(config, run, step)
    images = load_task("digits", n_train=24, n_test=10).test["image"][:4]
    return model, model.backbone.preprocessing(images), images[0].convert("RGB")


@torch.no_grad()
def logits_of(model: TunedModel, images: torch.Tensor) -> torch.Tensor:
    """Logits of a snapshot with its adapters merged, as every measure of it is taken."""
    return model.classify(model.merged_backbone()(images))


def run_snippets(page: Path, folder: Path, image: Image.Image) -> dict[str, Any]:
    """Run a card's code in its folder, and return its variables."""
    (code,) = PYTHON.findall(page.read_text(encoding="utf-8"))
    image.save(folder / "image.png")
    found: dict[str, Any] = {}
    exec(compile(code, str(page), "exec"), found)
    (folder / "image.png").unlink()
    return found


@pytest.mark.parametrize("method", ["full", "bitfit", "linear_probe", "lora"])
def test_timm_loads_what_the_run_has(
    method: str, full: Path, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    made = {"full": full, "lora": lora}
    run = made.get(method) or write_run(
        tmp_path / "run", "backbone=mini_supervised", f"method={method}", "finetune.lr=0.05"
    )
    folder = tmp_path / "model"
    written = write_model(run, "huggingface", output=folder)
    names = ["README.md", "config.json", "model.safetensors", "palimpsest.json"]
    assert [path.name for path in written] == names == sorted(path.name for path in folder.iterdir())
    model, images, image = read_run(run)
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        found = loaded(images)
        assert torch.equal(found, logits_of(model, images))
        # with adapters beside the weights, as they were trained: another order of the same sums
        torch.testing.assert_close(found, model(images), rtol=0, atol=2e-5)
        features = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
        assert torch.equal(features(images), model.merged_backbone()(images))
    assert found.std() > 1e-3  # the head is trained, so equal logits say something
    pretrained = load_backbone(read_config(run / "config.yaml").backbone).encoder.state_dict()
    changed = {
        name
        for name, part in load_file(folder / "model.safetensors").items()
        if not name.startswith("head.") and not torch.equal(part, pretrained[name])
    }
    if method == "linear_probe":
        assert changed == set()
    elif method == "bitfit":
        assert changed and all(name.endswith("bias") for name in changed)
    elif method == "lora":
        assert changed and all(re.fullmatch(r"blocks.*(qkv|proj|fc[12])\.weight", name) for name in changed)
    else:
        assert len(changed) > 90
    # a stranger's preprocessing is the run's
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(loaded), is_training=False)
    assert torch.equal(transform(image), images[0])
    config = json.loads((folder / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == ("palimpsest_mini", 10)
    assert config["label_names"] == list(load_task("digits").class_names)
    monkeypatch.chdir(folder)
    ran = run_snippets(folder / "README.md", folder, image)
    torch.testing.assert_close(ran["logits"], found[:1], rtol=0, atol=1e-5)
    assert capsys.readouterr().out.strip() == config["label_names"][int(found[0].argmax())]


@pytest.mark.parametrize("image_size", [None, 96])
def test_a_network_of_timms_with_another_preprocessing(image_size: int | None, tmp_path: Path) -> None:
    overrides = ["backbone=timm", "backbone.model=test_vit", "backbone.objective=none"]
    overrides += [
        "backbone.preprocessing.mean=[0.1,0.2,0.3]",
        "backbone.preprocessing.interpolation=bilinear",
    ]
    overrides += ["backbone.preprocessing.crop_mode=squash"]
    overrides += [] if image_size is None else [f"backbone.image_size={image_size}"]
    run = write_run(tmp_path / "run", *overrides)
    folder = write_model(run, "huggingface")[0].parent
    assert folder == run / "exports/step-000002/huggingface"
    model, images, image = read_run(run)
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(loaded(images), logits_of(model, images))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(loaded), is_training=False)
    assert images.shape[-1] == (image_size or 160)
    assert torch.equal(transform(image), images[0])


# two classifiers, a convolution, a normalised one, and widened features
@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("deit_tiny_distilled_patch16_224", True),
        ("resnetv2_50", True),
        ("test_efficientnet", True),
        ("test_resnet", True),
        ("levit_128s", False),
    ],
)
def test_classifiers_of_every_sort(name: str, inside: bool, tmp_path: Path) -> None:
    config = load_config(
        ["backbone=timm", f"backbone.model={name}", "backbone.objective=none", "task.n_train=20"]
    )
    task = load_task("digits", n_train=20, n_test=10)
    model = tune(load_backbone(config.backbone), task.n_classes, config.method, 0).eval()
    torch.nn.init.normal_(model.head.weight)
    torch.nn.init.normal_(model.head.bias)
    exported = ExportedModel(
        config,
        config.backbone,
        tmp_path,
        1,
        task,
        0,
        model,
        model.merged_backbone(),
        describe_origin(config.backbone),
        None,
    )
    assert write_timm(tmp_path, exported) is inside
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    size = model.backbone.preprocessing.size
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        found, expected = loaded(images), model(images)
        if not inside:
            head = load_file(tmp_path / "classifier.safetensors")
            found = found @ head["weight"].T + head["bias"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sort", ["mini", "flyp", "vit", "siglip"])
def test_open_clip_loads_what_the_run_has(
    sort: str, clip_lora: Path, flyp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    if sort in ("vit", "siglip"):
        name = add_tiny_vit(tmp_path, 32) if sort == "vit" else add_tiny_siglip(tmp_path)
        overrides = ["backbone=open_clip", f"backbone.model={name}", "backbone.objective=none"]
        if sort == "vit":  # another size, activation and preprocessing than the architecture's
            overrides += ["backbone.image_size=64", "backbone.quick_gelu=true", "method=lora"]
            overrides += ["backbone.preprocessing.std=[0.5,0.5,0.5]", "backbone.text=false"]
        run = write_run(tmp_path / "run", *overrides, "finetune.lr=0.05")
    else:
        run = clip_lora if sort == "mini" else flyp
    folder = tmp_path / "model"
    write_model(run, "huggingface", output=folder)
    model, images, image = read_run(run)
    loaded, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    loaded.eval()
    assert torch.equal(transform(image), images[0])
    head = load_file(folder / "classifier.safetensors")
    classes = json.loads((folder / "classifier.json").read_text())
    assert classes == {
        "label_names": list(load_task("digits").class_names),
        "multi_label": False,
        "features_of_unit_length": sort == "flyp",
    }
    expected = logits_of(model, images)
    with torch.no_grad():
        features = loaded.encode_image(images)
        assert torch.equal(features, model.merged_backbone()(images))
        features = functional.normalize(features, dim=1) if sort == "flyp" else features
        torch.testing.assert_close(features @ head["weight"].T + head["bias"], expected, rtol=1e-5, atol=1e-5)
    sentences = ["a photo of a digit four.", "a red circle"]
    if model.backbone.text is not None and sort != "flyp":  # as pretrained
        with torch.no_grad():
            texts = loaded.encode_text(
                open_clip.get_tokenizer(f"local-dir:{folder}")(sentences), normalize=True
            )
        torch.testing.assert_close(texts, model.backbone.text.embed(sentences), rtol=0, atol=1e-6)
    if sort == "flyp":  # tuned: the head is what zero-shot with its own tokenizer gives
        task = load_task("digits")
        tokenizer, tower = open_clip.get_tokenizer(f"local-dir:{folder}"), model.texts.encoder
        assert torch.equal(tokenizer(sentences), tower.tokenize(sentences))
        with torch.no_grad():
            texts = loaded.encode_text(tokenizer(sentences), normalize=True)
            assert torch.equal(texts, tower(tower.tokenize(sentences)))
            assert (texts - model.backbone.text.embed(sentences)).abs().max() > 1e-3
            rows = [
                loaded.encode_text(tokenizer([one.format(name) for one in task.templates]), normalize=True)
                for name in task.class_names
            ]
            zero_shot = functional.normalize(torch.stack([row.mean(dim=0) for row in rows]), dim=1)
            torch.testing.assert_close(loaded.logit_scale.exp() * zero_shot, head["weight"])
    monkeypatch.chdir(folder)
    ran = run_snippets(folder / "README.md", folder, image)
    torch.testing.assert_close(ran["logits"], expected[:1], rtol=1e-4, atol=1e-4)
    said = classes["label_names"].index(capsys.readouterr().out.strip())
    # to the tokenizer of the mini network all digits are unknown words, so FLYP's classes tie
    assert expected[0, said] > expected[0].max() - 1e-4


def test_peft_puts_the_adapter_onto_the_pretrained_network(
    lora: Path, clip_lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for run in (lora, clip_lora):
        on_timm = run is lora
        folder = tmp_path / run.parent.name
        written = write_model(run, "peft", output=folder)
        extra = [] if on_timm else ["classifier.safetensors"]
        assert [path.name for path in written] == [
            *("README.md", "adapter_config.json", "adapter_model.safetensors", "classifier.json"),
            *extra,
            "palimpsest.json",
        ]
        model, images, image = read_run(run)
        network = load_backbone(read_config(run / "config.yaml").backbone).encoder
        if on_timm:
            network.reset_classifier(10)
        before = network.eval()(images)
        adapted = PeftModel.from_pretrained(network, str(folder)).eval()
        with torch.no_grad():
            expected = model(images) if on_timm else model.backbone(images)
            found = adapted(images)
            assert torch.equal(found, expected)
            # the very numbers of the merged network, but for the order of sums
            merged = model.merged_backbone()(images)
            merged = model.classify(merged) if on_timm else merged
            torch.testing.assert_close(found, merged, rtol=0, atol=2e-5)
        assert (before - found).abs().max() > 1e-3
        size = (folder / "adapter_model.safetensors").stat().st_size
        assert size < sum(part.numel() for part in network.parameters()) * 4 / 5
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            ran = run_snippets(folder / "README.md", folder, image)
        logits = logits_of(model, images)
        torch.testing.assert_close(ran["logits"], logits[:1], rtol=0, atol=1e-4)
        names = json.loads((folder / "classifier.json").read_text())["label_names"]
        assert capsys.readouterr().out.strip() == names[int(logits[0].argmax())]
        card = ModelCard.load(folder / "README.md")
        assert card.data.library_name == "peft" and {"peft", "lora"} <= set(card.data.tags)


def test_weights_of_the_hub_are_named_as_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    pretrained = timm.create_model("test_vit")
    cache_weights(tmp_path / "cache", "timm/test_vit.r160_in1k", pretrained.state_dict())
    run = write_run(tmp_path / "run", *TAGGED, "method=lora", "finetune.lr=0.05")
    for form, relation in (("huggingface", "finetune"), ("peft", "adapter")):
        folder = write_model(run, form)[0].parent
        data = ModelCard.load(folder / "README.md").data
        assert (data.base_model, data.base_model_relation) == ("timm/test_vit.r160_in1k", relation)
        assert data.license == "apache-2.0"
        model, images, image = read_run(run)
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            ran = run_snippets(folder / "README.md", folder, image)
        torch.testing.assert_close(ran["logits"], logits_of(model, images)[:1], rtol=0, atol=1e-4)
        assert "harness" not in ran  # timm and peft are enough
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "timm/test_vit.r160_in1k"
    assert settings["modules_to_save"] == ["head"]


def test_what_is_known_of_weights() -> None:
    def origin(*overrides: str) -> Any:
        return describe_origin(load_config([*overrides]).backbone)

    mae = origin("backbone=mae_b16")
    assert (mae.hub_id, mae.license) == ("timm/vit_base_patch16_224.mae", "cc-by-nc-4.0")
    clip = origin("backbone=clip_b16")
    assert (clip.hub_id, clip.license) == ("laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K", None)
    mini = origin("backbone=mini_supervised")
    assert (mini.hub_id, mini.license, mini.shipped) == (None, "mit", True)
    # a file may hold anything
    own = origin("backbone=mae_b16", "backbone.checkpoint=/data/secret/mine.safetensors")
    assert (own.hub_id, own.license, own.shipped) == (None, None, False)
    assert "mine.safetensors" in own.text and "secret" not in own.text
    assert origin("backbone=mini_random").text == "random weights (seed 0)"


def cells_of(text: str, heading: str) -> list[list[str]]:
    """Rows of the table below a heading, without its head."""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def test_the_card_has_the_numbers_of_the_rows(full: Path, tmp_path: Path) -> None:
    folder = write_model(full, "huggingface", output=tmp_path / "model")[0].parent
    card = ModelCard.load(folder / "README.md")
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.license) == ("timm", "image-classification", "mit")
    assert data.get("base_model") is None and data.get("base_model_relation") is None
    assert {"palimpsest", "timm", "full"} <= set(data.tags)
    (result,) = data.eval_results
    assert (result.dataset_type, result.metric_type) == ("digits", "accuracy")
    assert result.metric_value == ROWS["task/digits/accuracy"]
    assert data.model_name == "run"
    scores = cells_of(card.text, "Scores on digits")
    for (title, value, interval, n_test), measure in zip(
        scores, ("accuracy", "balanced_accuracy", "auroc", "ece"), strict=True
    ):
        name = f"task/digits/{measure}"
        assert (title, number(value), n_test) == (describe(name).title, ROWS[name], "10")
        assert bool(interval) == (measure == "accuracy")
    # Wilson's interval in closed form: 7 of 10 images
    n, p, z = 10, 0.7, 1.959963984540054
    centre, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    ends = [(centre + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]
    np.testing.assert_allclose([number(end) for end in scores[0][2].split(" to ")], ends, atol=5e-5)
    np.testing.assert_allclose(accuracy_interval(p, n), ends)
    changes = cells_of(card.text, "Forgetting")
    assert changes == [
        ["shapes", "Δ_LP", "−0.0625", "−0.0938 to −0.0312", "480"],
        ["textures", "Δ_kNN", "+0.0156", "", ""],
    ]
    assert describe("forgetting/shapes/delta_lp").definition in card.text
    rewiring = card.text.partition("## Rewiring\n")[2].partition("\n## ")[0]
    assert "V4 (p = 0.012) is rewired" in rewiring and "1 other region has lost signal" in rewiring
    training = dict(cells_of(card.text, "Training"))
    expected = {"method": "full", "optimizer steps": "2", "batch size": "8", "seed": "0"}
    assert expected.items() <= training.items()
    assert (training["learning rate"], training["training images"]) == ("0.001, cosine", "24")
    provenance = {name: value.strip("`") for name, value in cells_of(card.text, "Provenance")}
    about = json.loads((folder / "palimpsest.json").read_text())
    assert provenance["code version"] == about["code version"] == MANIFEST["code_version"]
    assert provenance["hash of the settings"] == config_hash(read_config(full / "config.yaml"))
    assert provenance["hash of the snapshot"] == read_manifest(snapshot_folder(full, 2)).weights_hash
    assert (provenance["run"], provenance["step"]) == ("run", "2")
    assert about["files"] == ["README.md", "config.json", "model.safetensors"]
    earlier = write_model(full, "huggingface", step=1, output=tmp_path / "earlier")[0]
    assert ModelCard.load(earlier).data.eval_results[0].metric_value == 0.5


def test_a_card_leaves_out_what_was_not_measured(clip_lora: Path, tmp_path: Path) -> None:
    folder = write_model(clip_lora, "huggingface", output=tmp_path / "model")[0].parent
    card = ModelCard.load(folder / "README.md")
    assert card.data.eval_results is None and card.data.library_name == "open_clip"
    headings = re.findall(r"^## (.*)", card.text, re.MULTILINE)
    assert headings == ["How to load it", "Training", "Provenance"]
    assert not re.search(r"\{\{|%\}|\| None|\n\n\n", card.text)
    # nothing of this machine
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            assert str(tmp_path.parent) not in path.read_text(encoding="utf-8"), path.name


def test_data_sets_of_the_hub_are_named(tmp_path: Path) -> None:
    splits = {"train": [0, 1, 2, 0, 1, 2, 1, 0], "test": [2, 1, 0]}
    write_hub_copy(tmp_path / "copy", splits, ("one", "two", "three"), ("image", "label"))
    source = ["task=hub", "task.name=made", "task.repository=someone/made", f"task.root={tmp_path / 'copy'}"]
    rows = {"task/made/accuracy": 2 / 3, "probe/made/n_test": 3.0}
    run = write_run(tmp_path / "run", *source, "task.n_test=null", "task.n_train=null", rows=rows)
    card = ModelCard.load(write_model(run, "huggingface")[0])
    assert card.data.datasets == ["someone/made"] and card.data.metrics == ["accuracy"]
    (result,) = card.data.eval_results
    assert (result.dataset_type, result.dataset_name, result.metric_value) == ("someone/made", "made", 2 / 3)
    assert str(tmp_path) not in card.content
    metadata = yaml.safe_load(card.content.split("---")[1])
    assert metadata["model-index"][0]["results"][0]["dataset"]["type"] == "someone/made"


def test_of_a_sequence_the_head_that_is_trained(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "task=[digits,textures]")
    n_textures = load_task("textures", n_train=24, n_test=10).n_classes
    for step, task, expected in ((4, None, "textures"), (4, "digits", "digits"), (2, None, "digits")):
        folder = write_model(run, "huggingface", step, task, tmp_path / f"{step}-{task}")[0].parent
        config = json.loads((folder / "config.json").read_text())
        assert config["num_classes"] == (10 if expected == "digits" else n_textures)
        model, images, _ = read_run(run, step)
        model.choose_head(["digits", "textures"].index(expected))
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        with torch.no_grad():
            assert torch.equal(loaded(images), logits_of(model, images))
        assert json.loads((folder / "palimpsest.json").read_text())["task"] == expected
    with pytest.raises(
        InputError, match="--task: found textures, whose head is not trained yet at step 2; ex"
    ):
        write_model(run, "huggingface", 2, "textures")


def test_a_folder_is_replaced_only_if_an_export_wrote_it(full: Path, lora: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write_model(lora, "peft", output=folder)
    first = (folder / "palimpsest.json").read_text()
    write_model(full, "huggingface", output=folder)
    assert not (folder / "adapter_config.json").exists() and (folder / "model.safetensors").exists()
    assert (folder / "palimpsest.json").read_text() != first
    (folder / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(
        InputError, match=r"^--output: .*model: found notes.txt, which no export wrote; expec"
    ):
        write_model(full, "huggingface", output=folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_network_that_is_not_the_runs_is_not_written(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = timm.models.save_for_hf

    def spoil(network: Any, *arguments: Any, **settings: Any) -> None:
        network.blocks[0].mlp.fc1.bias.data += 0.1
        save(network, *arguments, **settings)

    monkeypatch.setattr(timm.models, "save_for_hf", spoil)
    with pytest.raises(
        InputError, match=r"^export: found outputs that differ by .* when timm loads"
    ) as error:
        write_model(full, "huggingface", output=tmp_path / "model")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_said_in_a_line(
    full: Path, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    own = tmp_path / "own"
    own.mkdir()
    config = load_config([*TINY, "backbone=python", "backbone.function=made_lab:vit"])
    (own / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.yaml").write_text((full / "config.yaml").read_text(), encoding="utf-8")
    vit = add_tiny_vit(tmp_path, 32)
    native = ["backbone=open_clip", f"backbone.model={vit}", "backbone.objective=none"]
    native = write_run(tmp_path / "native", *native, "method=lora", "backbone.preprocessing.crop_pct=0.9")
    large = write_run(tmp_path / "large", "backbone=mini_clip", "backbone.image_size=128")
    for run, form, settings, problem in (
        (full, "timm", {}, "^unknown format 'timm': expected one of huggingface, peft"),
        (full, "peft", {}, "^--format peft: found a run with method full, expected lora$"),
        (full, "huggingface", {"step": 3}, "^--step: found 3, expected 1, 2$"),
        (
            full,
            "huggingface",
            {"step": 0},
            r"^--step: found 0 \(the pretrained backbone, unchanged\), expected",
        ),
        (
            full,
            "huggingface",
            {"task": "digit"},
            "unknown task of this run 'digit': expected digits; did you",
        ),
        (full, "huggingface", {"output": file}, "^--output: .* found a file, expected a folder"),
        (full, "huggingface", {"repository": "name"}, "^--push: found 'name', expected USER/NAME .*no owner"),
        (full, "huggingface", {"repository": "a/b c"}, "^--push: found 'a/b c', expected USER/NAME"),
        (tmp_path, "huggingface", {}, r"config\.yaml: no such file"),
        (
            empty,
            "huggingface",
            {},
            "empty: found no snapshot after step 0, expected the folder of a fine-tun",
        ),
        (
            own,
            "huggingface",
            {},
            r"^backbone.library: found python \(made_lab:vit\), expected timm or open_clip",
        ),
        (
            native,
            "huggingface",
            {},
            "^backbone.preprocessing.crop_pct: found 0.9, expected 1: open_clip knows",
        ),
        (native, "peft", {}, "^--format peft: found a network with torch's MultiheadAttention, which peft"),
        (
            large,
            "huggingface",
            {},
            "^backbone.image_size: found 128, expected 64: open_clip builds palimpsest",
        ),
    ):
        with pytest.raises(InputError, match=problem) as error:
            write_model(run, form, **settings)
        assert "\n" not in str(error.value)
        assert not [path for path in run.rglob("exports/**/*") if path.is_file()]
    for options, problem in (
        (
            ["--format", "huggingface", "--subject", "subj01"],
            "^--subject: found --format huggingface, expected",
        ),
        (["--format", "csv", "--push", "a/b"], "^--push: found --format csv, expected huggingface or peft$"),
        (["--format", "csv", "--private"], "^--private: found --format csv, expected huggingface or peft$"),
        (["--format", "huggingface", "--private"], "^--private: found no --push, expected a repository"),
        (["--format", "huggingface", "--push", "name"], "^--push: found 'name', expected USER/NAME"),
    ):
        with pytest.raises(InputError, match=problem):
            main([str(full), *options])


def push(run: Path, folder: Path, *options: str) -> None:
    main([str(run), "--format", "huggingface", "--output", str(folder), "--push", "somebody/mini", *options])


def test_a_push_sends_the_folder(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with serve_hub(monkeypatch) as hub:
        push(full, tmp_path / "model", "--private")
        out = capsys.readouterr().out.splitlines()
        assert out[-1] == f"{constants.ENDPOINT}/somebody/mini" and out[0].endswith("README.md")
        sent = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
        assert hub.files["somebody/mini"] == {".gitattributes": b"", **sent}
        assert hub.private == {"somebody/mini": True}
        assert hub.tokens == {f"Bearer {TOKEN}"} and hub.messages == ["run at step 2"]
        card = ModelCard.load(tmp_path / "model" / "README.md")
        assert card.data.model_name == "mini" and 'snapshot_download("somebody/mini")' in card.text
        # an earlier export is replaced
        push(full, tmp_path / "model", "--step", "1")
        assert hub.messages[1] == "run at step 1"
        about = json.loads(hub.files["somebody/mini"]["palimpsest.json"])
        assert about["step"] == 1


@pytest.mark.parametrize(
    ("start", "status", "problem"),
    [
        ("/api/repos/create", 401, "^--push: the hub refuses the token .*expected one that may write"),
        ("/api/repos/create", 403, "^--push: the token may not write to somebody/mini .*of your own$"),
        ("/api/models/somebody/mini/commit", 403, "^--push: the token may not write to somebody/mini"),
        ("/api/models/somebody/mini/preupload", 404, "^--push: the hub has no somebody/mini that this token"),
        ("/api/repos/create", 400, "^--push: somebody/mini: the hub answers '.*made to fail"),
        (
            "/api/validate-yaml",
            0,
            r"^--push: somebody/mini: the upload failed \(\w+: .*isconnect",
        ),
        ("/api/validate-yaml", 400, "^--push: somebody/mini: the .*made to fail"),
    ],
)
def test_what_the_hub_refuses_is_said_in_a_line(
    full: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    start: str,
    status: int,
    problem: str,
) -> None:
    with serve_hub(monkeypatch) as hub:
        hub.refuses[start] = (status, "made to fail")
        with pytest.raises(InputError, match=problem) as error:
            push(full, tmp_path / "model")
    assert "\n" not in str(error.value)
    assert (tmp_path / "model" / "README.md").exists()  # the export stands, only the push failed


def test_a_repository_of_something_else_is_left_alone(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with serve_hub(monkeypatch) as hub:
        hub.files["somebody/mini"] = {".gitattributes": b"", "pytorch_model.bin": b"theirs"}
        with pytest.raises(
            InputError, match=r"^--push: found pytorch_model.bin in somebody/mini, which no exp"
        ):
            push(full, tmp_path / "model")
        assert hub.messages == [] and len(hub.files["somebody/mini"]) == 2


def test_without_token_or_network_nothing_is_written(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "none either"))
    with pytest.raises(InputError, match=r"^--push: found no token for the Hugging Face hub, expected one"):
        push(full, tmp_path / "model")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"^--push: the hub at .* does not answer \(HF_HUB_OFFLINE is set\)"):
        push(full, tmp_path / "model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("harness.exports.push.hub_answers", lambda: False)
    with pytest.raises(InputError, match=r"^--push: the hub at \S+ does not answer; expected a network"):
        push(full, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_the_page_of_the_documentation_runs(
    full: Path, lora: Path, clip_lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    page = (REPOSITORY / "docs" / "huggingface.md").read_text(encoding="utf-8")
    blocks = PYTHON.findall(page)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    for run, form, block in zip(
        (full, clip_lora, lora), ("huggingface", "huggingface", "peft"), blocks, strict=True
    ):
        write_model(run, form, output=tmp_path / "model")
        model, images, image = read_run(run)
        image.save(tmp_path / "image.png")
        found: dict[str, Any] = {}
        exec(compile(block, "docs/huggingface.md", "exec"), found)
        torch.testing.assert_close(found["logits"], logits_of(model, images)[:1], rtol=0, atol=1e-4)
    capsys.readouterr()


def test_several_labels_are_said(full: Path, tmp_path: Path) -> None:
    from harness.exports.model_card import Kind, write_card

    config = read_config(full / "config.yaml")
    task = replace(load_task("digits", n_train=24, n_test=10), multi_label=True)
    model = read_tuned(config, full, 2)
    exported = ExportedModel(
        *(config, config.backbone, full, 2, task, 0, model, model.merged_backbone()),
        *(describe_origin(config.backbone), None),
    )
    text = write_card(exported, Kind("timm", True)).text
    assert "10 labels, of which an image may have several" in text and "logits.sigmoid()" in text
    assert all(cells[2] == "" for cells in cells_of(text, "Scores on digits"))
