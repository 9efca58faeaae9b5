"""Loading backbones: untrained, from a file, and by unknown names."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import timm
import torch
from made_backbones import MINI, configuration
from safetensors.torch import save_file
from torch import nn

from harness.backbones.clip_backbone import load_clip
from harness.backbones.load import load_backbone
from harness.backbones.mini import MEAN
from harness.backbones.timm_backbone import load_timm
from harness.config.compose import load_config
from harness.storage.errors import InputError


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_an_untrained_network_is_a_function_of_its_seed() -> None:
    for library, model in (("timm", MINI), ("open_clip", f"{MINI}_clip")):
        first, again, other = (load_backbone(configuration(library, model, seed=seed)) for seed in (3, 3, 4))
        assert same(first, again)
        assert not same(first, other)
        assert not first.training


def test_global_randomness_is_left_alone() -> None:
    before = torch.get_rng_state()
    load_timm(MINI, None, 5)
    load_clip(f"{MINI}_clip", None, 5)
    assert torch.equal(before, torch.get_rng_state())


def test_weights_are_read_from_a_file(tmp_path: Path) -> None:
    trained = timm.create_model(MINI, num_classes=7)
    path = tmp_path / "weights.safetensors"
    save_file({name: part.half() for name, part in trained.state_dict().items()}, path)
    before = torch.get_rng_state()
    loaded = load_backbone(configuration("timm", MINI, checkpoint=path))
    assert torch.equal(before, torch.get_rng_state())
    assert loaded.encoder.pos_embed.dtype == torch.float32
    expected = {
        name: part.half().float()
        for name, part in trained.state_dict().items()
        if not name.startswith("head.")
    }
    assert loaded.encoder.state_dict().keys() == expected.keys()
    assert all(torch.equal(part, expected[name]) for name, part in loaded.encoder.state_dict().items())


def test_clip_weights_are_read_from_a_file(tmp_path: Path) -> None:
    trained = open_clip.create_model(f"{MINI}_clip", load_weights=False)
    path = tmp_path / "weights.safetensors"
    save_file({name: part.contiguous() for name, part in trained.state_dict().items()}, path)
    loaded = load_backbone(configuration("open_clip", f"{MINI}_clip", checkpoint=path))
    assert same(loaded.encoder, trained.visual)
    assert loaded.preprocessing.mean == MEAN


def test_a_file_without_classifier_and_one_with_another_name(tmp_path: Path) -> None:
    trained = timm.create_model("test_resnet")
    path = tmp_path / "weights.safetensors"
    save_file(trained.state_dict(), path)
    loaded = load_backbone(configuration("timm", "test_resnet", checkpoint=path))
    assert torch.equal(loaded.encoder.conv1[0].weight, trained.conv1[0].weight)
    save_file(loaded.encoder.state_dict(), path)
    assert same(load_backbone(configuration("timm", "test_resnet", checkpoint=path)), loaded)


@pytest.mark.parametrize("library", ["timm", "open_clip"])
def test_weights_that_cannot_be_used_are_named(tmp_path: Path, library: str) -> None:
    model = {"timm": MINI, "open_clip": f"{MINI}_clip"}[library]
    path = tmp_path / "weights.safetensors"
    for content, problem in (
        (None, "no such file"),
        (b"corrupt", "not a readable safetensors file"),
        ({"a": torch.zeros(2)}, "do not fit the architecture"),
    ):
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            save_file(content, path)
        with pytest.raises(InputError, match=problem) as error:
            load_backbone(configuration(library, model, checkpoint=path))
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    state = timm.create_model(MINI, num_classes=0).state_dict()
    state["pos_embed"] = torch.zeros(1, 50, 128)
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"size mismatch for pos_embed"):
        load_backbone(configuration("timm", MINI, checkpoint=tmp_path / "weights.safetensors"))


def test_a_file_is_no_tag() -> None:
    with pytest.raises(
        InputError, match=r"^backbone.weights: found model.pth, expected a hub tag; a file is b"
    ):
        load_backbone(configuration("timm", MINI, "model.pth"))


@pytest.mark.parametrize(
    ("library", "model", "weights", "problem"),
    [
        ("timm", "palimpsest_mina", None, "unknown timm model .*did you mean 'palimpsest_mini'"),
        ("open_clip", "ViT-B-23", None, "unknown open_clip model 'ViT-B-23'.*did you mean 'ViT-B-32'"),
        ("timm", "test_vit", "r160_in21k", "unknown weights of test_vit .*did you mean 'r160_in1k'"),
        ("open_clip", "ViT-B-32", "openia", "unknown weights of ViT-B-32 .*did you mean 'openai'"),
        (
            "timm",
            "resnet18.a1_in1k",
            None,
            r"^backbone.model: found resnet18.a1_in1k, .*: backbone.model=resnet18 backbone.weights=a1_in1k$",
        ),
        (
            "timm",
            "hf_hub:timm/vit_tiny_patch16_224.augreg_in21k",
            None,
            "backbone.model=vit_tiny_patch16_224 backbone.weights=augreg_in21k$",
        ),
        (
            "timm",
            "hf-hub:lab/resnet18_ours",
            None,
            "not timm's, expected .* file of weights as backbone.check",
        ),
        (
            "timm",
            "vit_base_patch16_224_in21k",
            "augreg",
            "backbone.model=vit_base_patch16_224 backbone.weights=augreg_in21k$",
        ),
        ("open_clip", "ViT-B/32", "openai", "^backbone.model: found ViT-B/32, .*: backbone.model=ViT-B-32$"),
        (
            "open_clip",
            "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            None,
            "backbone.model=ViT-B-32 backbone.weights=laion2b_s34b_b79k$",
        ),
        ("timm", MINI, "openai", f"unknown weights of {MINI} 'openai': none available"),
    ],
)
def test_an_unknown_name_is_one_line(library: str, model: str, weights: str | None, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as error:
        load_backbone(configuration(library, model, weights))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize(
    ("option", "model", "name"),
    [
        ("timm", "hf_hub:timm/resnet18.a1_in1k", "hf_hub-timm-resnet18.a1_in1k"),
        ("open_clip", "ViT-B/32", "ViT-B-32"),
        ("timm", "resnet18", "resnet18"),
    ],
)
def test_the_name_of_a_model_is_no_hindrance(option: str, model: str, name: str) -> None:
    overrides = [f"backbone={option}", f"backbone.model={model}", "backbone.objective=none"]
    assert load_config(overrides).backbone.name == name
    with pytest.raises(InputError, match=r"^backbone.name: found \"a b\", expected"):
        load_config([*overrides, "backbone.name=a b"])


def test_loading_weights_of_ones_own_is_not_remarked_upon(caplog: pytest.LogCaptureFixture) -> None:
    load_backbone(load_config(["backbone=mini_clip"]).backbone)
    assert [record.getMessage() for record in caplog.records] == []
