"""Stable Diffusion as a backbone: its tokens by hand, its files, what is refused, and a map."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from overrides import SMALL_TRACKING
from PIL import Image
from safetensors.torch import load_file, save_file
from test_report import Page
from torch import Tensor

from harness.backbones.backbone import Backbone, encoder_hash
from harness.backbones.load import load_backbone
from harness.cli import dispatch
from harness.commands.finetune import main as finetune
from harness.commands.map import run
from harness.config.compose import load_config
from harness.mappings.mapping import load_mapping
from harness.measures.rewiring import expected_depth
from harness.runs.layout import mapping_folder
from harness.storage.errors import InputError
from harness.storage.files import read_json
from harness.studies.availability import find_weights
from harness.tokens.extraction import extract_tokens

pytest.importorskip("diffusers", reason="needs the extra: pip install 'palimpsest[diffusion]'")

from made_diffusion import (
    CONTEXT,
    SIZE,
    WIDTHS,
    rename_as_published,
    write_tiny_diffusion,
)

LAYERS = (
    *(f"down_blocks.{place}" for place in range(3)),
    "mid_block",
    *(f"up_blocks.{place}" for place in range(3)),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_diffusion(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """Copy the model, to be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "tiny"))


def load(folder: Path, **settings: Any) -> Backbone:
    chosen = [f"backbone.{name}={value}" for name, value in settings.items()]
    config = load_config(["backbone=stable_diffusion", f"backbone.checkpoint={folder}", *chosen])
    return load_backbone(config.backbone)


def draw_images(n_images: int = 3) -> Tensor:
    """Preprocessed images of noise, RGB in −1 to 1."""
    return torch.rand(n_images, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def tokens_by_hand(folder: Path, images: Tensor, timestep: int, prompt: str, seed: int) -> list[Tensor]:
    """Outputs of the U-Net's blocks, which are called one by one, in diffusers' own pipeline."""
    from diffusers import DDPMScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    unet = pipeline.unet
    embedding, _ = pipeline.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)
    embedding = embedding.expand(len(images), -1, -1)
    latents = pipeline.vae.encode(images).latent_dist.mean * 0.18215
    noise = torch.randn(1, *latents.shape[1:], generator=torch.Generator().manual_seed(seed))
    steps = torch.full((len(images),), timestep)
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    hidden = unet.conv_in(scheduler.add_noise(latents, noise.expand_as(latents), steps))
    time = unet.time_embedding(unet.time_proj(steps))
    found, skipped = [], [hidden]
    for block in unet.down_blocks:
        cross = {"encoder_hidden_states": embedding} if hasattr(block, "attentions") else {}
        hidden, outputs = block(hidden, time, **cross)
        skipped += outputs
        found.append(hidden)
    hidden = unet.mid_block(hidden, time, encoder_hidden_states=embedding)
    found.append(hidden)
    for block in unet.up_blocks:
        n_skipped = len(block.resnets)
        skipped, own = skipped[:-n_skipped], tuple(skipped[-n_skipped:])
        cross = {"encoder_hidden_states": embedding} if hasattr(block, "attentions") else {}
        hidden = block(hidden, own, time, **cross)
        found.append(hidden)
    return found


@pytest.mark.parametrize(("timestep", "prompt", "seed"), [(261, "", 0), (0, "a cat", 5), (999, "cat cat", 1)])
def test_tokens_are_the_outputs_of_the_blocks(folder: Path, timestep: int, prompt: str, seed: int) -> None:
    backbone = load(folder, timestep=timestep, prompt=f"'{prompt}'", noise_seed=seed)
    images = draw_images()
    expected = tokens_by_hand(folder, images, timestep, prompt, seed)
    with torch.no_grad():
        features, (local, global_) = backbone.features_and_tokens(images)
        again, (same, _) = backbone(images), backbone.tokens(images)
    assert backbone.layers == LAYERS
    assert backbone.widths == (*WIDTHS, WIDTHS[-1], *reversed(WIDTHS)) == tuple(g.shape[1] for g in global_)
    # three down blocks halve the grid twice
    assert [grid.shape[2] for grid in local] == [8, 4, 4, 4, 8, 16, 16]
    for grid, token, hand in zip(local, global_, expected, strict=True):
        torch.testing.assert_close(grid, hand, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(token, hand.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features, expected[3].mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
    assert features.shape[1] == backbone.n_features
    assert torch.equal(features, again)
    assert all(torch.equal(one, other) for one, other in zip(local, same, strict=True))


@torch.no_grad()
def test_an_image_has_the_same_tokens_each_time(folder: Path) -> None:
    images = draw_images()
    one, other = load(folder), load(folder)
    together = one.tokens(images)[0]
    torch.manual_seed(7)  # noise does not depend on the caller's random state
    for grid, whole in zip(other.tokens(images[1:2])[0], together, strict=True):
        torch.testing.assert_close(grid[0], whole[1], rtol=1e-4, atol=1e-5)
    before = torch.get_rng_state()
    load(folder)
    assert torch.equal(before, torch.get_rng_state())
    assert encoder_hash(one) == encoder_hash(other)


@torch.no_grad()
@pytest.mark.parametrize("changed", [{"timestep": 600}, {"prompt": "cat"}, {"noise_seed": 1}])
def test_every_setting_counts_and_is_recorded(folder: Path, changed: dict[str, Any]) -> None:
    images = draw_images(1)
    base, other = load(folder), load(folder, **changed)
    assert not torch.allclose(base.tokens(images)[0][3], other.tokens(images)[0][3], atol=1e-4)
    assert encoder_hash(base) != encoder_hash(other)  # fingerprints of manifests
    assert other.flags == base.flags | changed


@torch.no_grad()
def test_noise_takes_the_images_place_as_time_goes_on(folder: Path) -> None:
    shares = [float(load(folder, timestep=step).encoder.signal) for step in (0, 261, 999)]
    # ᾱ of Stable Diffusion's schedule: the square roots of β rise linearly
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    np.testing.assert_allclose(shares, np.cumprod(1 - betas)[[0, 261, 999]], rtol=1e-4)


@torch.no_grad()
def test_in_half_precision_tokens_are_nearly_the_same(folder: Path) -> None:
    images = draw_images()
    exact, half = load(folder), load(folder, precision="bf16")
    assert half.flags["precision"] == "bf16"
    for one, other in zip(exact.tokens(images)[0], half.tokens(images)[0], strict=True):
        assert other.dtype == torch.float32
        assert 0 < (one - other).abs().mean() < 0.03 * one.abs().mean()
    on_cpu = load(folder, precision="fp16").tokens(images)[0]
    assert all(torch.equal(one, other) for one, other in zip(exact.tokens(images)[0], on_cpu, strict=True))


@torch.no_grad()
def test_other_image_sizes(folder: Path) -> None:
    backbone = load(folder, image_size=64)
    assert backbone.preprocessing.size == 64
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8))
    tokens = extract_tokens(backbone, [picture], None, 4)
    assert [grid.shape[2] for grid in tokens.local] == [16, 8, 8, 8, 16, 32, 32]
    seen = backbone.preprocessing([picture])
    assert -1 <= seen.min() < -0.5 and 0.5 < seen.max() <= 1


def test_depths_follow_the_blocks(folder: Path) -> None:
    backbone = load(folder)
    layers = backbone.parameter_layers()
    assert set(layers.values()) == {"stem", *LAYERS, "top"}
    assert layers["vae.encoder.conv_in.weight"] == layers["unet.time_embedding.linear_1.bias"] == "stem"
    assert layers["unet.mid_block.resnets.0.conv1.weight"] == "mid_block"
    assert layers["unet.conv_out.weight"] == "top"
    assert not any(part.requires_grad for part in backbone.parameters())
    assert "decoder" not in " ".join(layers)


@torch.no_grad()
def test_files_of_the_hub_have_older_names(folder: Path, copy: Path) -> None:
    rename_as_published(copy)
    (copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle beside, never opened")
    images = draw_images()
    assert encoder_hash(load(copy)) == encoder_hash(load(folder))
    for one, other in zip(load(copy).tokens(images)[0], load(folder).tokens(images)[0], strict=True):
        assert torch.equal(one, other)


def test_from_the_hubs_cache(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(["backbone=stable_diffusion"]).backbone
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        InputError, match=r"v1-5: the hub at .* does not answer .* no copy .*format"
    ) as raised:
        load_backbone(config)
    assert "\n" not in str(raised.value)
    assert [need.state for need in find_weights(config)] == ["download"]
    stored = tmp_path / "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    (stored / "refs").mkdir(parents=True)
    (stored / "refs" / "main").write_text("0" * 40)
    shutil.move(copy, stored / "snapshots" / ("0" * 40))
    assert load_backbone(config).layers == LAYERS
    local = load_config(["backbone=stable_diffusion", "backbone.checkpoint=/nowhere"]).backbone
    assert [need.state for need in find_weights(local)] == ["missing"]


def change_index(folder: Path, **changes: Any) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | changes))


def drop_a_weight(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["conv_in.weight"]
    save_file(tensors, file, {"format": "pt"})


def resize_a_weight(folder: Path) -> None:
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["encoder.conv_in.bias"] = torch.zeros(5)
    save_file(tensors, file, {"format": "pt"})


def drop_a_text_weight(folder: Path) -> None:
    file = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    del tensors[next(name for name in tensors if "token_embedding" in name)]
    save_file(tensors, file, {"format": "pt"})


def pickle_instead(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({}, folder / "unet" / "diffusion_pytorch_model.bin")


def rename_as_variant(folder: Path) -> None:
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_name("diffusion_pytorch_model.fp16.safetensors"))


def cut(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def make_inpainting(folder: Path) -> None:
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"in_channels": 9}))
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.weight"] = torch.zeros(WIDTHS[0], 9, 3, 3)
    save_file(tensors, file, {"format": "pt"})


DAMAGES = {
    "no index": (
        lambda folder: (folder / "model_index.json").unlink(),
        "tiny: found no model_index.json, expected a folder in diffusers' format",
    ),
    "another model": (
        lambda folder: change_index(folder, unet=["diffusers", "FluxTransformer2DModel"], _class_name="Flux"),
        "model_index.json: found unet FluxTransformer2DModel in a Flux, expected UNet2DConditionModel",
    ),
    "no image encoder": (
        lambda folder: change_index(folder, vae=None),
        "found vae None in a StableDiffusionPipeline, expected AutoencoderKL",
    ),
    "two text encoders": (
        lambda folder: change_index(folder, text_encoder_2=["transformers", "CLIPTextModelWithProjection"]),
        "found two text encoders",
    ),
    "a pickle": (
        pickle_instead,
        "unet: found diffusion_pytorch_model.bin; pickles are not loaded, expected .*model.safetensors",
    ),
    "a variant": (
        rename_as_variant,
        "vae/diffusion_pytorch_model.safetensors: no such file, found diffusion_pytorch_model.fp16.saf",
    ),
    "cut": (cut, "unet: not readable as UNet2DConditionModel"),
    "a weight is missing": (drop_a_weight, "unet: .*1 missing .conv_in.weight"),
    "a weight of the text encoder is missing": (
        drop_a_text_weight,
        "text_encoder: .*1 missing .*token_embedding.weight",
    ),
    "a weight is of another size": (resize_a_weight, "vae: .*AutoencoderKL.*conv_in.bias"),
    "inpainting": (make_inpainting, "found a U-Net with 9 input channels .*, expected 4 channels and none"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), "tokenizer: not readable as CLIP"),
    "no schedule": (lambda folder: shutil.rmtree(folder / "scheduler"), "scheduler: not readable as DDPM"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_and_other_models_are_refused_in_one_line(copy: Path, damage: str) -> None:
    apply, message = DAMAGES[damage]
    apply(copy)
    with pytest.raises(InputError, match=message) as raised:
        load(copy)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timestep": 1000}, "backbone.timestep: found 1000, expected 0 to 999"),
        ({"image_size": 36}, "backbone.image_size: found 36, expected a multiple of 8"),
        ({"prompt": "'a cat a cat a cat a'"}, f"backbone.prompt: found 9 tokens, expected at most {CONTEXT}"),
        ({"timestep": -1}, "backbone.timestep: found -1, expected"),
        ({"weights": "sd15.safetensors"}, "found weights sd15.safetensors, expected a repository of the hub"),
        ({"quick_gelu": "true"}, "quick_gelu: not a setting of the chosen backbone"),
    ],
)
def test_settings_are_checked(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        load(folder, **settings)
    assert "\n" not in str(raised.value)


def test_weights_must_be_named_and_a_folder() -> None:
    with pytest.raises(InputError, match="found neither weights nor checkpoint for stable_diffusion"):
        load_config(["backbone=stable_diffusion", "backbone.weights=null"])
    with pytest.raises(InputError, match="/nowhere: no such folder, expected a folder in diffusers' format"):
        load(Path("/nowhere"))
    with pytest.raises(InputError, match=r"\.py: found a file, expected a folder in diffusers' format"):
        load(Path(__file__))


@pytest.mark.parametrize("package", ["diffusers", "transformers"])
def test_without_the_extra_one_line_names_it(
    folder: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(InputError, match=rf"needs the package {package}.*palimpsest\[diffusion\]") as raised:
        load(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "command",
    [
        ["finetune", "backbone=stable_diffusion"],
        ["study", "backbone=stable_diffusion"],
        ["plan", "--quick", "study.grid={backbone:[mini_random,stable_diffusion]}"],
    ],
)
def test_fine_tuning_is_refused_before_anything_is_read(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"backbone: found stable_diffusion .*no method fine-tunes.*map"
    ) as raised:
        # dispatch would launch it in a process of its own
        finetune(command[1:]) if command[0] == "finetune" else dispatch(command)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
    config = load_config(["backbone=stable_diffusion"]).backbone
    with pytest.raises(InputError, match="no method fine-tunes"):
        load_backbone(config, pretrained=False)


def test_a_map_from_end_to_end(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [text for text in SMALL_TRACKING if not text.startswith("probes.")]
    common = [*small, f"runs_dir={tmp_path}", "probes.batch_size=16"]
    run(load_config(["backbone=stable_diffusion", f"backbone.checkpoint={folder}", *common]))
    run(load_config(["backbone=mini_random", *common]))
    study = tmp_path / "default"
    dispatch(["atlas", str(study)])
    assert capsys.readouterr().out.splitlines()[-1] == str(study / "atlas.html")
    page = Page(study / "atlas.html")
    assert "stable_diffusion" in page.text and "mini_random" in page.text
    (own,) = (study / "maps").glob("stable_diffusion-*")
    mapping = load_mapping(mapping_folder(own, 0))
    assert mapping.layers == LAYERS
    np.testing.assert_allclose(mapping.layer.sum(axis=1), 1, rtol=1e-5)
    assert 0 <= expected_depth(mapping.layer).min() <= expected_depth(mapping.layer).max() <= 1
    manifest = read_json(own / "manifest.json")
    assert manifest["fingerprints"]["pretrained_encoder"] == encoder_hash(load(folder))
    assert manifest["packages"]["diffusers"] != "not installed"
