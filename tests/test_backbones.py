from __future__ import annotations

import json
import math
import socket
import time
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.backbones import Backbone, load_backbone
from harness.backbones.backbone import Preprocessing, TextTower
from harness.backbones.clip_backbone import load_clip
from harness.backbones.hub import hub_answers, hub_or_message
from harness.backbones.mini import MEAN, STD
from harness.backbones.timm_backbone import TimmBackbone, load_timm
from harness.config import BackboneConfig
from harness.errors import InputError

MINI = "palimpsest_mini"


def noise(size: int, n_images: int = 2) -> Tensor:
    return torch.randn(n_images, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def mini() -> Backbone:
    return load_timm(MINI, None, 0).eval()


@pytest.fixture(scope="module")
def mini_clip() -> Backbone:
    return load_backbone(configuration("open_clip", f"{MINI}_clip"))


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """open_clip's own ViT, very small."""
    folder = tmp_path_factory.mktemp("open_clip")
    vision = {"image_size": 32, "layers": 3, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    settings = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    (folder / "palimpsest_tiny_clip.json").write_text(json.dumps(settings))
    open_clip.add_model_config(folder)
    return load_clip("palimpsest_tiny_clip", None, 0).eval()


def configuration(library: str, model: str, weights: str | None = None, seed: int = 0) -> BackboneConfig:
    return BackboneConfig(
        name="tried", library=library, model=model, weights=weights, objective="none", seed=seed
    )


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def as_grid(tokens: Tensor) -> Tensor:
    """[n_images, places, n_channels] to [n_images, n_channels, height, width], row by row."""
    edge = math.isqrt(tokens.shape[1])
    return torch.stack([tokens[:, place] for place in range(edge * edge)], dim=-1).unflatten(-1, (edge, edge))


# tokens, against blocks applied by hand


def assert_tokens_of_vit(backbone: Backbone, vit: nn.Module, images: Tensor, global_is: str) -> None:
    local, global_ = backbone.tokens(images)
    assert len(local) == len(global_) == len(backbone.layers) == len(vit.blocks)
    x = vit.patch_embed(images)
    x = x.flatten(1, 2) if x.ndim == 4 else x
    edge, position = math.isqrt(x.shape[1]), vit.pos_embed
    prefix = [token.expand(len(x), -1, -1) for token in (vit.cls_token, vit.reg_token) if token is not None]
    if position.shape[1] == edge**2:
        x = torch.cat([*prefix, x + position], dim=1)
    else:
        x = torch.cat([*prefix, x], dim=1) + position
    n_prefix = x.shape[1] - edge**2
    x = vit.norm_pre(x)
    for block, grid, token in zip(vit.blocks, local, global_, strict=True):
        x = block(x)
        torch.testing.assert_close(grid, as_grid(x[:, n_prefix:]), rtol=1e-5, atol=1e-6)
        expected = x[:, 0] if global_is == "class token" else x[:, n_prefix:].mean(dim=1)
        torch.testing.assert_close(token, expected, rtol=1e-5, atol=1e-6)


def test_tokens_of_the_mini_vit(mini: Backbone) -> None:
    with torch.no_grad():
        assert_tokens_of_vit(mini, mini.encoder, noise(64), "class token")


def test_tokens_of_the_mini_vit_under_open_clip(mini_clip: Backbone) -> None:
    with torch.no_grad():
        assert_tokens_of_vit(mini_clip, mini_clip.encoder.trunk, noise(64), "class token")


VITS = {
    "test_vit": ({}, "class token"),
    "test_vit with registers": ({"class_token": True, "reg_tokens": 3}, "class token"),
    "test_vit without prefix": ({"class_token": False, "global_pool": "avg"}, "mean"),
    "test_vit2, one register and no class token": ({}, "mean"),
}


@pytest.mark.parametrize("name", VITS)
@torch.no_grad()
def test_tokens_of_timm_vits(name: str) -> None:
    options, global_is = VITS[name]
    torch.manual_seed(3)
    vit = timm.create_model(name.split()[0].rstrip(","), num_classes=0, **options).eval()
    for token in (vit.cls_token, vit.reg_token):
        if token is not None:
            nn.init.normal_(token)
    size = vit.pretrained_cfg["input_size"][-1]
    assert_tokens_of_vit(TimmBackbone(vit), vit, noise(size), global_is)


@torch.no_grad()
def test_tokens_of_open_clips_own_vit(tiny_clip: Backbone) -> None:
    images, vit = noise(32), tiny_clip.encoder
    local, global_ = tiny_clip.tokens(images)
    x = vit.conv1(images).flatten(2).mT
    x = torch.cat([vit.class_embedding.expand(2, 1, -1), x], dim=1) + vit.positional_embedding
    x = vit.ln_pre(x)
    assert len(local) == len(tiny_clip.layers) == 3
    for block, grid, token in zip(vit.transformer.resblocks, local, global_, strict=True):
        x = block(x)
        torch.testing.assert_close(grid, as_grid(x[:, 1:]), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(token, x[:, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tiny_clip(images), vit.ln_post(x)[:, 0] @ vit.proj, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet", "test_mambaout"])
@torch.no_grad()
def test_networks_without_tokens(name: str) -> None:
    backbone = load_timm(name, None, 0).eval()
    images = noise(96, 1)
    local, global_ = backbone.tokens(images)
    assert len(local) == len(global_) == len(backbone.layers)
    for grid, token in zip(local, global_, strict=True):
        torch.testing.assert_close(token, grid.mean(dim=(2, 3)))
    assert backbone(images).shape == (1, backbone.n_features)


def test_features_wider_than_the_last_layer() -> None:
    backbone = load_timm("mobilenetv4_conv_small_035", None, 0).eval()
    with torch.no_grad():
        assert backbone(noise(64, 1)).shape == (1, backbone.n_features)


# preprocessing


def test_preprocessing_by_hand() -> None:
    grey = Image.new("L", (20, 20), 51)
    colour = Image.new("RGB", (40, 20), (255, 0, 51))
    seen = Preprocessing(8, (0.5, 0.5, 0.0), (0.25, 0.5, 0.1))([grey, colour])
    assert seen.shape == (2, 3, 8, 8) and seen.dtype == torch.float32
    torch.testing.assert_close(seen[0, :, 3, 4], torch.tensor([-1.2, -0.6, 2.0]))
    torch.testing.assert_close(seen[1, :, 0, 7], torch.tensor([2.0, -1.0, 2.0]))


def test_the_crop_is_central() -> None:
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[16:48, 16:48] = 255
    seen = Preprocessing(32, (0.0,) * 3, (1.0,) * 3, "bilinear", crop_pct=0.5)([Image.fromarray(pixels)])
    assert seen.mean() > 0.95
    whole = Preprocessing(32, (0.0,) * 3, (1.0,) * 3, "bilinear", crop_pct=1.0)([Image.fromarray(pixels)])
    assert whole.mean() == pytest.approx(0.25, abs=0.02)


def test_every_backbone_remembers_its_own_preprocessing(
    mini: Backbone, mini_clip: Backbone, tiny_clip: Backbone
) -> None:
    assert mini.preprocessing == mini_clip.preprocessing == Preprocessing(64, MEAN, STD)
    assert tiny_clip.preprocessing.size == 32
    assert tiny_clip.preprocessing.mean == open_clip.OPENAI_DATASET_MEAN
    resnet = load_timm("test_resnet", None, 0).preprocessing
    assert (resnet.size, resnet.crop_pct) == (160, 0.95)


# the text tower


def test_text_embeddings_have_unit_length(mini_clip: Backbone) -> None:
    found = mini_clip.text.embed(["a red circle", "a blue star", "a red circle"])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(found[0], found[2])
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    assert not found.requires_grad
    assert found.shape[1] == mini_clip.n_features
    assert mini_clip.text.logit_scale == pytest.approx(1 / 0.07, rel=1e-4)


def test_the_zero_shot_head_is_the_mean_over_templates() -> None:
    class Angles(TextTower):
        logit_scale = 1.0

        def embed(self, texts: list[str]) -> Tensor:
            angle = torch.tensor([math.radians(float(text)) for text in texts])
            return torch.stack([angle.cos(), angle.sin()], dim=1)

    head = Angles().embed_classes(["1", "9"], ["{}0", "{}0", "{}30"])
    for row, angles in zip(head, ((10, 10, 130), (90, 90, 930)), strict=True):
        mean = np.exp(1j * np.radians(angles)).mean()
        torch.testing.assert_close(
            torch.view_as_complex(row), torch.tensor(mean / abs(mean)).to(torch.cfloat)
        )


def test_text_is_kept_while_the_encoder_changes(mini_clip: Backbone) -> None:
    names = [name for name, _ in mini_clip.named_parameters()]
    assert names and all(name.startswith("encoder.") for name in names)  # none of the text tower
    torch.testing.assert_close(mini_clip.text.embed(["a ring"]), mini_clip.text.embed(["a ring"]))


# weights


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
    loaded = load_backbone(configuration("timm", MINI, str(path)))
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
    loaded = load_backbone(configuration("open_clip", f"{MINI}_clip", str(path)))
    assert same(loaded.encoder, trained.visual)
    assert loaded.preprocessing.mean == MEAN


def test_a_file_without_classifier_and_one_with_another_name(tmp_path: Path) -> None:
    trained = timm.create_model("test_resnet")
    path = tmp_path / "weights.safetensors"
    save_file(trained.state_dict(), path)
    loaded = load_backbone(configuration("timm", "test_resnet", str(path)))
    assert torch.equal(loaded.encoder.conv1[0].weight, trained.conv1[0].weight)
    save_file(loaded.encoder.state_dict(), path)
    assert same(load_backbone(configuration("timm", "test_resnet", str(path))), loaded)


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
            load_backbone(configuration(library, model, str(path)))
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    state = timm.create_model(MINI, num_classes=0).state_dict()
    state["pos_embed"] = torch.zeros(1, 50, 128)
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"size mismatch for pos_embed"):
        load_backbone(configuration("timm", MINI, str(tmp_path / "weights.safetensors")))


def test_only_safetensors_are_opened() -> None:
    with pytest.raises(InputError, match=r"^backbone.weights: found model.pth, accepted: a .safetensors"):
        load_backbone(configuration("timm", MINI, "model.pth"))


# names


@pytest.mark.parametrize(
    ("library", "model", "weights", "problem"),
    [
        ("timm", "palimpsest_mina", None, "unknown timm model .*did you mean 'palimpsest_mini'"),
        ("open_clip", "ViT-B-23", None, "unknown open_clip model 'ViT-B-23'.*did you mean 'ViT-B-32'"),
        ("timm", "test_vit", "r160_in21k", "unknown weights of test_vit .*did you mean 'r160_in1k'"),
        ("open_clip", "ViT-B-32", "openia", "unknown weights of ViT-B-32 .*did you mean 'openai'"),
        ("timm", MINI, "openai", f"unknown weights of {MINI} 'openai': there is none"),
    ],
)
def test_an_unknown_name_is_one_line(library: str, model: str, weights: str | None, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as error:
        load_backbone(configuration(library, model, weights))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1500


# the hub


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def closed_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("library", "model", "weights"), [("timm", "test_vit", "r160_in1k"), ("open_clip", "ViT-B-32", "openai")]
)
def test_offline_and_not_in_the_cache(empty_cache: Path, library: str, model: str, weights: str) -> None:
    assert not hub_answers()  # conftest.py says so
    with pytest.raises(InputError, match=f"{model}.*does not answer and the cache .* has no copy") as error:
        load_backbone(configuration(library, model, weights))
    assert str(empty_cache) in str(error.value) and "\n" not in str(error.value)


def test_a_hub_that_does_not_answer_is_found_out_at_once(empty_cache: Path, closed_port: None) -> None:
    start = time.perf_counter()
    with pytest.raises(InputError, match="does not answer"):
        load_timm("test_vit", "r160_in1k", 0)
    assert time.perf_counter() - start < 20  # 48 s without the probe, on an idle machine
    assert constants.HF_HUB_OFFLINE is False  # as before


def test_a_hub_that_answers_is_seen(closed_port: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert not hub_answers()
        with monkeypatch.context() as patch:
            patch.setattr(constants, "ENDPOINT", f"http://{address}")
            assert hub_answers()
            patch.setattr(constants, "HF_HUB_OFFLINE", True)
            assert not hub_answers()
        # through a proxy the hub itself cannot be reached, and need not be
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
        for proxy in (f"http://{address}", address):
            monkeypatch.setenv("http_proxy", proxy)
            assert hub_answers()


def test_errors_are_not_blamed_on_a_hub_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.backbones.hub.hub_answers", lambda: True)
    with pytest.raises(KeyError), hub_or_message("model"):
        raise KeyError("a bug")


def test_weights_in_the_cache_need_no_hub(empty_cache: Path) -> None:
    folder = empty_cache / "models--timm--test_vit.r160_in1k"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    trained = timm.create_model("test_vit")
    save_file(trained.state_dict(), snapshot / "model.safetensors")
    before = torch.get_rng_state()
    loaded = load_timm("test_vit", "r160_in1k", 0)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(loaded.encoder.blocks[0].attn.qkv.weight, trained.blocks[0].attn.qkv.weight)
    assert loaded.encoder(noise(160, 1)).shape == (1, 64)  # no classifier


def test_openais_weights_get_the_gelu_they_were_trained_with(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def create(model: str, pretrained: str, force_quick_gelu: bool) -> None:
        asked.append((pretrained, force_quick_gelu))
        raise InputError("far enough")

    monkeypatch.setattr(open_clip, "create_model", create)
    monkeypatch.setattr("harness.backbones.hub.hub_answers", lambda: True)
    for tag in ("openai", "laion2b_s34b_b79k"):
        with pytest.raises(InputError, match="far enough"):
            load_clip("ViT-B-32", tag, 0)
    assert asked == [("openai", True), ("laion2b_s34b_b79k", False)]
