"""Weight files: the formats of libraries and authors, and what is rejected."""

from __future__ import annotations

import argparse
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from made_backbones import MINI, add_tiny_siglip, configuration, make_tiny_clip, register_small
from made_weights import (
    State,
    as_convnext,
    as_dinov2_reg,
    as_dinov3,
    as_dinov3_convnext,
    as_ijepa,
    as_mae,
    as_moco_v3,
    as_open_clip,
    as_sam,
    write_weights,
)
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from harness.backbones.backbone import (
    Preprocessing,
    encoder_hash,
)
from harness.backbones.clip_backbone import load_clip
from harness.backbones.load import load_backbone
from harness.backbones.timm_backbone import load_timm
from harness.backbones.weight_files import (
    load_strictly,
    read_weight_file,
)
from harness.config.backbone import PreprocessingConfig
from harness.config.compose import load_config
from harness.config.method import LinearProbeConfig
from harness.finetuning.methods.tuned import tune
from harness.finetuning.snapshots import (
    describe,
    read_manifest,
    read_snapshot,
    write_snapshot,
)
from harness.storage.errors import InputError


def trained(model: str, **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(11)
    return timm.create_model(model, **options).state_dict()


def assert_loaded(model: str, path: Path, expected: dict[str, Tensor], **options: Any) -> None:
    found = load_timm(model, None, 0, path, **options).encoder.state_dict()
    for name, part in found.items():
        assert torch.equal(part, expected[name]), name


# timm


def test_what_a_training_script_writes(tmp_path: Path) -> None:
    state, path = trained("test_vit"), tmp_path / "checkpoint.pth.tar"
    wrapped = {f"module._orig_mod.{name}": part.half() for name, part in state.items()}
    rest = {"epoch": 3, "arch": "vit", "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}}
    for zipped in (True, False):
        torch.save({**rest, "state_dict": wrapped}, path, _use_new_zipfile_serialization=zipped)
        assert_loaded("test_vit", path, {name: part.half().float() for name, part in state.items()})


@pytest.mark.parametrize("publish", [as_mae, as_moco_v3, as_ijepa])
def test_what_other_objectives_authors_write(tmp_path: Path, publish: Callable[[State], Any]) -> None:
    state = trained("test_vit", num_classes=0)
    assert_loaded("test_vit", write_weights(tmp_path / "vit", state, publish), state)


def test_dinov2_with_registers(tmp_path: Path) -> None:
    name, place = register_small("dinov2_reg"), torch.randn(1, 1, 48)
    state, path = load_timm(name, None, 5, image_size=28).encoder.state_dict(), tmp_path / "dinov2.pth"
    torch.save(as_dinov2_reg(state, place), path)
    found = load_timm(name, None, 0, path, image_size=28).encoder
    torch.testing.assert_close(found.cls_token, state["cls_token"] + place)
    torch.testing.assert_close(found.reg_token.data, state["reg_token"])
    torch.testing.assert_close(found.blocks[1].ls1.gamma.data, state["blocks.1.ls1.gamma"])


@pytest.mark.parametrize(
    ("family", "publish"),
    [
        ("sam", as_sam),
        ("dinov3", as_dinov3),
        ("convnext", as_convnext),
        ("convnext", as_dinov3_convnext),
    ],
)
def test_authors_own_names(tmp_path: Path, family: str, publish: Callable[[State], Any]) -> None:
    name = register_small(family)
    state = load_timm(name, None, 5).encoder.state_dict()
    assert_loaded(name, write_weights(tmp_path / family, state, publish), state)


def test_a_file_of_another_resolution(tmp_path: Path) -> None:
    name, path = register_small("vit"), tmp_path / "vit.safetensors"
    save_file(load_timm(name, None, 5, image_size=64).encoder.state_dict(), path)
    whole = load_timm(name, None, 0, path).encoder.pos_embed
    back = functional.interpolate(
        load_timm(name, None, 5, image_size=64).encoder.pos_embed[:, 1:].mT.unflatten(2, (4, 4)),
        (14, 14),
        mode="bicubic",
        antialias=True,
    )
    torch.testing.assert_close(whole[:, 1:], back.flatten(2).mT)


def test_counters_of_batches_may_be_missing(tmp_path: Path) -> None:
    state = {k: v for k, v in trained("test_resnet").items() if not k.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "resnet.safetensors")
    found = load_timm("test_resnet", None, 0, tmp_path / "resnet.safetensors").encoder.state_dict()
    assert all(torch.equal(found[name], part) for name, part in state.items() if name in found)


# open_clip


def test_what_open_clip_writes(tmp_path: Path) -> None:
    make_tiny_clip(tmp_path, 32)
    name = "palimpsest_tiny_clip_32"
    torch.manual_seed(7)
    model = open_clip.create_model(name).eval()
    path = tmp_path / "epoch_3.pt"
    torch.save(as_open_clip(model.state_dict()), path)
    found = load_clip(name, None, 0, path)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(found.eval()(images), model.encode_image(images))
        texts = open_clip.get_tokenizer(name)(["a cat"])
        assert torch.equal(found.text.embed(["a cat"]), model.encode_text(texts, normalize=True))
    # at twice the size, position embeddings are resampled, but not the class token's
    larger = load_clip(name, None, 0, path, image_size=64).encoder.positional_embedding
    own = model.visual.positional_embedding
    assert larger.shape == (65, 64) and torch.equal(larger[0], own[0])
    grid = functional.interpolate(
        own[1:].mT.unflatten(1, (4, 4))[None], (8, 8), mode="bicubic", antialias=True
    )
    torch.testing.assert_close(larger[1:], grid[0].flatten(1).mT)


def test_siglip_from_a_file(tmp_path: Path) -> None:
    source = open_clip.create_model(add_tiny_siglip(tmp_path))
    path = tmp_path / "open_clip_model.safetensors"
    save_file({name: part.clone() for name, part in source.state_dict().items()}, path)
    found = load_clip("palimpsest_tiny_sigmoid", None, 3, path, image_size=64, text=False)
    assert found.text is None and found.preprocessing.size == 64
    assert torch.equal(found.encoder.trunk.attn_pool.q.weight, source.visual.trunk.attn_pool.q.weight)
    assert found.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, found.n_features)


# activation and preprocessing


def test_openais_gelu(tmp_path: Path) -> None:
    plain, quick = (make_tiny_clip(tmp_path, 32, quick_gelu=wanted) for wanted in (None, True))
    assert (plain.flags, quick.flags) == ({"quick_gelu": False}, {"quick_gelu": True})
    assert encoder_hash(plain) == encoder_hash(quick)  # the weights do not show the difference
    mlp = quick.encoder.transformer.resblocks[0].mlp
    x = torch.randn(5, 64)
    hidden = mlp.c_fc(x)
    torch.testing.assert_close(mlp(x), mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden)))


def test_a_tag_tells_the_activation_of_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def create(model: str, **options: Any) -> None:
        asked.append(options)
        raise InputError("far enough")

    monkeypatch.setattr("open_clip.create_model", create)
    for model, tag in (("ViT-B-32", "openai"), ("ViT-B-16-SigLIP", "webli"), ("ViT-B-32", None)):
        with pytest.raises(InputError, match="far enough"):
            load_clip(model, tag, 0, tmp_path / "weights.pt")
    openai, siglip, untold = asked
    assert openai["force_quick_gelu"] is True and openai["load_weights"] is False
    assert "force_quick_gelu" not in siglip and siglip["force_preprocess_cfg"]["resize_mode"] == "squash"
    assert siglip["force_preprocess_cfg"]["mean"] == (0.5, 0.5, 0.5)
    assert untold == {"load_weights": False, "device": torch.get_default_device()}


def test_an_activation_that_the_name_contradicts() -> None:
    with pytest.raises(InputError, match=r"^backbone.quick_gelu: found False, expected True or null"):
        load_clip("ViT-B-32-quickgelu", None, 0, quick_gelu=False)


def test_a_tag_tells_the_preprocessing_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "vit.safetensors"
    save_file(trained("test_vit"), path)
    by_tag = load_backbone(configuration("timm", "test_vit", "r160_in1k", path))
    assert (by_tag.preprocessing.size, by_tag.preprocessing.crop_pct) == (160, 0.95)
    stated = PreprocessingConfig(mean=(0.1, 0.2, 0.3), interpolation="nearest", crop_mode="squash")
    other = load_backbone(configuration("timm", "test_vit", "r160_in1k", path, preprocessing=stated))
    assert other.preprocessing == Preprocessing(
        160, (0.1, 0.2, 0.3), by_tag.preprocessing.std, "nearest", 0.95, "squash"
    )


def test_moco_v3_sees_what_it_was_evaluated_with() -> None:
    settings = load_config(["backbone=mocov3_b16", "backbone.checkpoint=vit-b-300ep.pth.tar"]).backbone
    ours = Preprocessing(224, (0.5,) * 3, (0.5,) * 3, "bicubic", 0.9).changed(settings.preprocessing)
    assert ours == Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear", 0.875)


def test_snapshots_remember_activation_and_preprocessing(tmp_path: Path) -> None:
    backbone = make_tiny_clip(tmp_path, 32, quick_gelu=True)
    probe, pretrained = LinearProbeConfig(), encoder_hash(backbone)
    folder = tmp_path / "step"
    model = tune(backbone, 3, probe, 0)
    architecture = {"library": "open_clip", "model": "tiny", **backbone.flags}
    write_snapshot(folder, model, describe(model, 0, "linear_probe", pretrained, architecture))
    manifest = read_manifest(folder)
    assert manifest.architecture["quick_gelu"] is True
    assert manifest.preprocessing["crop_mode"] == "center" and manifest.preprocessing["size"] == 32
    read_snapshot(folder, tune(backbone, 3, probe, 0), pretrained)
    with pytest.raises(InputError, match="found a snapshot with quick_gelu True, expected False"):
        read_snapshot(folder, tune(make_tiny_clip(tmp_path, 32), 3, probe, 0), pretrained)
    backbone.preprocessing = backbone.preprocessing.changed(PreprocessingConfig(mean=(0.5, 0.5, 0.5)))
    with pytest.raises(InputError, match=r"found a snapshot with mean \[0.48.*expected \[0.5, 0.5, 0.5\]"):
        read_snapshot(folder, tune(backbone, 3, probe, 0), pretrained)


@pytest.mark.parametrize(("name", "value"), [("quick_gelu", True), ("text", False)])
def test_settings_of_open_clip_are_not_timms(name: str, value: bool) -> None:
    with pytest.raises(
        InputError, match=rf"^backbone.{name}: found {value}, expected only for library open_cl"
    ):
        load_backbone(configuration("timm", MINI, **{name: value}))


# rejected files


class Runs:
    """Makes a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.folder,)


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    path, made = tmp_path / "weights.pth", tmp_path / "made"
    torch.save({"state_dict": {"a": torch.zeros(2)}, "more": Runs(made)}, path)
    with pytest.raises(InputError, match=r"holds \w+.mkdir, which is not loaded; expected tensors") as error:
        read_weight_file(path)
    assert not made.exists() and str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            {"model": {"a": torch.zeros(2)}, "args": argparse.Namespace(lr=1)},
            "holds argparse.Namespace, which",
        ),
        (nn.Linear(2, 2), "holds torch.nn.modules.linear.Linear, which is not loaded"),
        ([torch.zeros(2)], "found a list, expected tensors by name"),
        ({"epoch": 3}, "found no tensors"),
        (b"<!DOCTYPE html>", "not a readable file of weights .found a web page .the download failed"),
        (b"nothing of the kind", "not a readable file of weights .corrupt, or not written by torch"),
        (b"", "not a readable file of weights"),
        (b"PK\x03\x04 and then nothing", "not a readable file of weights"),
        (b"\x80\x02 and then nothing", "which is not loaded|not a readable file"),
        (None, "no such file"),
        ("folder", "found a folder, expected a file"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, content: Any, problem: str) -> None:
    path = tmp_path / "weights.pth"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError, match=problem) as error:
        load_backbone(configuration("timm", MINI, checkpoint=path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "key", ["model_state_dict", "net", "ema", "state_dict_ema", "params", "network_state_dict", "student"]
)
def test_usual_sections_are_found(tmp_path: Path, key: str) -> None:
    state, path = {"a.weight": torch.ones(2)}, tmp_path / "w.pth"
    torch.save(
        {"optimizer_state_dict": {"state": {}}, "epoch": 3, "loss": torch.tensor(0.2), key: state}, path
    )
    assert read_weight_file(path).keys() == {"a.weight"}


def test_other_sections_are_listed(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "photographs": {"a.weight": torch.ones(2)}}, tmp_path / "w.pth")
    with pytest.raises(
        InputError, match=r"found no tensors at the top or under a usual name, only in photogr"
    ):
        read_weight_file(tmp_path / "w.pth")


def test_a_section_without_tensors_hides_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = {"a.weight": torch.ones(2)}
    averaged = {"a.weight": torch.zeros(2)}
    torch.save({"model": {"depth": 3}, "net": state, "ema": averaged}, tmp_path / "w.pth")
    assert read_weight_file(tmp_path / "w.pth")["a.weight"].tolist() == [1, 1]
    assert f"{tmp_path / 'w.pth'}: reading the weights in net, not those in ema" in caplog.text


def test_a_section_that_contains_itself_ends(tmp_path: Path) -> None:
    endless: dict[str, Any] = {"epoch": 3}
    endless["model"] = endless
    torch.save(endless, tmp_path / "w.pth")
    with pytest.raises(InputError, match="found no tensors"):
        read_weight_file(tmp_path / "w.pth")
    endless["net"] = {"a.weight": torch.ones(2)}
    torch.save(endless, tmp_path / "w.pth")
    assert read_weight_file(tmp_path / "w.pth").keys() == {"a.weight"}


def test_tensors_beside_the_wrapped_network_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, path = trained("test_vit"), tmp_path / "lightning.ckpt"
    wrapped = {f"model.{name}": part for name, part in state.items()}
    torch.save({"state_dict": {**wrapped, "criterion.weight": torch.ones(5)}}, path)
    assert_loaded("test_vit", path, state)
    assert (
        f"{path}: reading the tensors named model.…, not the 1 beside them (criterion.weight)" in caplog.text
    )


def test_prefixes_of_the_networks_own_stay(tmp_path: Path) -> None:
    names = ["network.0.0.norm1.weight", "network.0.0.norm1.bias", "network.0.0.norm2.weight", "cls_token"]
    save_file({name: torch.ones(2) for name in names}, tmp_path / "volo.safetensors")  # timm's VOLO
    assert sorted(read_weight_file(tmp_path / "volo.safetensors")) == sorted(names)


@pytest.mark.parametrize("name", ["w.bin", "W.SAFETENSORS", "w.ckpt", "w"])
def test_safetensors_under_any_name(tmp_path: Path, name: str) -> None:
    save_file({"a.weight": torch.ones(2)}, tmp_path / name)
    assert read_weight_file(tmp_path / name).keys() == {"a.weight"}


def test_torchs_files_under_the_name_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for zipped in (True, False):
        torch.save({"a.weight": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
        assert read_weight_file(path).keys() == {"a.weight"}
    torch.save({"a": torch.zeros(2), "more": Runs(tmp_path / "made")}, path)
    with pytest.raises(InputError, match="which is not loaded"):
        read_weight_file(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_pointers_say_what_to_run(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    with pytest.raises(InputError, match=rf"{name}: .*a Git LFS pointer.*run git lfs pull"):
        read_weight_file(tmp_path / name)


def test_archives_of_something_else_are_said_to_be_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", kernel=np.zeros(2))
    with pytest.raises(InputError, match=r"w\.npz: found a numpy archive \(\.npz\) of kernel\.npy"):
        read_weight_file(tmp_path / "w.npz")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("weights.pth", b"")
    with pytest.raises(InputError, match=r"w\.zip: found a zip archive \(unpack it\) of weights\.pth"):
        read_weight_file(tmp_path / "w.zip")


# values


class Network(nn.Module):
    """What is initialised to zero or −∞, or counts, is legitimate; the rest must be weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.gate = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4)
        nn.init.zeros_(self.gate.weight)
        self.scale = nn.Parameter(torch.ones(4))
        self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))


def change_weights(name: str, value: Any) -> dict[str, Tensor]:
    state = {key: part.clone() for key, part in Network().state_dict().items()}
    state[name] = value(state[name])
    return state


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        (
            "conv.weight",
            lambda part: part * part.new_tensor(torch.nan),
            "NaN or infinity in conv.weight (108 of",
        ),
        ("norm.running_var", lambda part: part / 0, "NaN or infinity in norm.running_var (4 of 4 numbers"),
        ("conv.weight", torch.zeros_like, "only zeros in conv.weight, expected trained weights"),
        (
            "conv.weight",
            lambda part: part.to(torch.int8),
            "conv.weight of type int8, expected floating-point",
        ),
        ("scale", lambda part: part.to(torch.complex64), "scale of type complex64, expected floating-point"),
    ],
)
def test_what_cannot_be_weights_is_refused(name: str, value: Any, problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_strictly(Network(), change_weights(name, value), tmp_path / "w.pth")
    assert str(caught.value).startswith(f"{tmp_path / 'w.pth'}: found {problem}")


@pytest.mark.parametrize(
    "name", ["conv.bias", "norm.weight", "scale", "gate.weight", "norm.num_batches_tracked"]
)
def test_zeros_that_networks_have_are_loaded(name: str, tmp_path: Path) -> None:
    network, state = Network(), change_weights(name, torch.zeros_like)
    load_strictly(network, state, tmp_path / "w.pth")
    assert torch.equal(network.state_dict()[name], state[name])


def test_a_users_network_of_nan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        found = load_timm("test_vit", None, 0)
        found.encoder.blocks[0].mlp.fc1.weight.data[0, 0] = torch.inf
        return found

    monkeypatch.setattr("harness.backbones.timm_backbone.load_timm", broken)
    with pytest.raises(InputError, match=r"found NaN or infinity in encoder.blocks.0.mlp.fc1.weight of"):
        load_backbone(configuration("timm", "test_vit"))


def test_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(trained("test_vit"), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="not a readable file of weights"):
        read_weight_file(path)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "ViT-B-32.pt"
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    with pytest.raises(InputError, match="found a TorchScript archive"):
        read_weight_file(path)


def test_what_does_not_fit_is_counted_and_named(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    found = {"0.weight": torch.zeros(3, 5), **{f"{letter}.bias": torch.zeros(1) for letter in "abcd"}}
    with pytest.raises(InputError) as error:
        load_strictly(module, found, tmp_path / "w.pth")
    assert str(error.value) == (
        f"{tmp_path}/w.pth: weights do not fit the architecture: 3 missing (0.bias, 1.bias, 1.weight); "
        "4 unexpected (a.bias, b.bias, c.bias, ...); "
        "size mismatch for 0.weight (found [3, 5], expected [3, 2])"
    )


@pytest.mark.parametrize(("model", "family"), [("test_resnet", "vit"), ("palimpsest_small_dinov3", "sam")])
def test_another_familys_file(tmp_path: Path, model: str, family: str) -> None:
    register_small("dinov3")
    path = tmp_path / "weights.safetensors"
    save_file(load_timm(register_small(family), None, 0).encoder.state_dict(), path)
    with pytest.raises(InputError, match="do not fit the architecture") as error:
        load_timm(model, None, 0, path)
    assert str(path) in str(error.value) and len(str(error.value)) < 700


def test_files_are_found_from_the_current_folder_and_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = load_backbone(load_config(["backbone=mini_supervised"]).backbone)  # part of the repository
    state = {name: part + 1 for name, part in ours.encoder.state_dict().items()}
    save_file(state, tmp_path / "own.safetensors")
    own = load_backbone(configuration("timm", MINI, checkpoint=Path("own.safetensors")))
    assert torch.equal(own.encoder.pos_embed.data, ours.encoder.pos_embed.data + 1)
    with pytest.raises(InputError, match=r"^none.pth: no such file"):
        load_backbone(configuration("timm", MINI, checkpoint=Path("none.pth")))
