"""``configs/backbone/``: the libraries know every network and tag named there."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import timm
import yaml

from harness.backbones.mini import MODEL_NAME
from harness.backbones.mini_clip import register_clip_config
from harness.config.backbone import BackboneConfig
from harness.config.compose import (
    CONFIGS,
    GROUPS,
    group_options,
    load_config,
)
from harness.storage.errors import InputError

# options that need further settings, and those settings
NEEDS = {
    "backbone=timm": ["backbone.model=resnet18", "backbone.weights=a1_in1k"],
    "backbone=open_clip": ["backbone.model=ViT-B-32", "backbone.weights=openai"],
    "backbone=python": ["backbone.function=my_lab.networks:load"],
    "backbone=mocov3_b16": ["backbone.checkpoint=vit-b-300ep.pth.tar"],
}
BACKBONES = group_options("backbone")
OF_LIBRARIES = [option for option in BACKBONES if option not in ("python", "stable_diffusion")]


def compose(option: str) -> BackboneConfig:
    return load_config([f"backbone={option}", *NEEDS.get(f"backbone={option}", [])]).backbone


def test_no_file_is_outside_the_groups() -> None:
    files = {path.relative_to(CONFIGS).parts[0] for path in CONFIGS.rglob("*.yaml")}
    assert files == {*GROUPS, "config.yaml"}


@pytest.mark.parametrize("option", OF_LIBRARIES)
def test_the_library_knows_the_network_and_its_weights(option: str) -> None:
    found = compose(option)
    if found.library == "timm":
        assert timm.is_model(found.model)
        assert found.weights is None or f"{found.model}.{found.weights}" in timm.list_pretrained(
            found.model + ".*"
        )
    else:
        register_clip_config()
        assert found.model in open_clip.list_models()
        assert found.weights is None or found.weights in open_clip.list_pretrained_tags_by_model(found.model)
    if option not in ("timm", "open_clip"):
        assert found.name == option and found.size is not None
        assert found.untrained == (found.objective == "none")
    if found.checkpoint is not None and found.checkpoint.startswith("harness/"):
        assert (CONFIGS.parent / found.checkpoint).is_file()


def test_the_documentation_lists_every_backbone() -> None:
    text = (CONFIGS.parent / "docs" / "backbones.md").read_text(encoding="utf-8")
    assert [option for option in BACKBONES if f"`{option}`" not in text] == []


def test_sizes_and_objectives_can_be_compared() -> None:
    found = {
        option: yaml.safe_load((CONFIGS / "backbone" / f"{option}.yaml").read_text()) for option in BACKBONES
    }
    of_base_size = {each["objective"] for each in found.values() if each.get("size") == "B"}
    assert {
        "contrastive",
        "supervised",
        "self_distillation",
        "masked_autoencoding",
        "instance_discrimination",
        "segmentation",
    } <= of_base_size
    laion = {found[name]["size"] for name in found if name.startswith("clip_") and name.endswith("_laion2b")}
    assert laion == {"B", "L", "H", "g", "G"}


# any network


def test_any_network_by_name() -> None:
    found = load_config(["backbone=timm", f"backbone.model={MODEL_NAME}", "backbone.objective=none"]).backbone
    assert (found.name, found.library, found.untrained) == (MODEL_NAME, "timm", True)
    with pytest.raises(InputError, match=r"^backbone.model: found nothing, expected the library's name"):
        load_config(["backbone=open_clip"])


@pytest.mark.parametrize("option", ["mocov3_b16", "timm"])
def test_a_pretrained_network_needs_weights(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PALIMPSEST_MOCOV3_B16", raising=False)
    with pytest.raises(
        InputError, match=r"^backbone: found neither weights nor checkpoint for .* with objective"
    ):
        load_config([f"backbone={option}", "backbone.model=vit_base_patch16_224"])


def test_a_file_for_a_grid_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PALIMPSEST_MOCOV3_B16", str(tmp_path / "vit-b-300ep.pth.tar"))
    grid = "study.grid={backbone: [clip_b16, mocov3_b16]}"
    assert load_config([grid, "backbone=mocov3_b16"]).backbone.checkpoint == str(
        tmp_path / "vit-b-300ep.pth.tar"
    )


@pytest.mark.parametrize("value", ["[0.1,0.2]", "[0.1,0.2,0.3,0.4]", "0.5"])
def test_a_mean_that_is_not_of_three_colours(value: str) -> None:
    with pytest.raises(InputError, match=r"^backbone.preprocessing.mean"):
        load_config([f"backbone.preprocessing.mean={value}"])
