from __future__ import annotations

import math
import re

import pytest
import torch
from made_backbones import make_tiny_clip
from torch import Tensor, nn
from torch.nn import functional

from harness.backbones.backbone import Backbone
from harness.backbones.clip_backbone import load_clip
from harness.backbones.timm_backbone import load_timm
from harness.config.method import (
    BitFitConfig,
    FullConfig,
    LinearProbeConfig,
    LoraConfig,
    MethodConfig,
)
from harness.finetuning.methods.tuned import (
    TunedModel,
    tune,
)
from harness.storage.errors import InputError

METHODS = {"full": FullConfig(), "linear_probe": LinearProbeConfig(), "lora": LoraConfig(rank=3, alpha=5.0)}
BACKBONES = ("mini", "mini_clip", "tiny_clip", "batch_norm")


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backbone]:
    found = {
        "mini": load_timm("palimpsest_mini", None, 0),
        "mini_clip": load_clip("palimpsest_mini_clip", None, 0),
        "tiny_clip": make_tiny_clip(tmp_path_factory.mktemp("open_clip"), image_size=64),
        "batch_norm": load_timm("test_resnet", None, 0),
    }
    return {name: backbone.eval() for name, backbone in found.items()}


def images(n_images: int = 4) -> Tensor:
    return torch.randn(n_images, 3, 64, 64, generator=torch.Generator().manual_seed(2))


def copy_of(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def train(model: TunedModel, n_steps: int = 2) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    model.train()
    for _ in range(n_steps):
        functional.cross_entropy(model(images()), torch.tensor([0, 1, 2, 1])).backward()
        optimizer.step()
        optimizer.zero_grad()


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_every_class_is_equally_likely_at_the_start(backbones: dict[str, Backbone]) -> None:
    for method in METHODS.values():
        model = tune(backbones["mini"], 5, method, 0)
        assert torch.equal(model(images()), torch.zeros(4, 5))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["mini", "mini_clip", "tiny_clip"])
def test_the_start_is_the_pretrained_backbone(backbones: dict[str, Backbone], name: str, method: str) -> None:
    backbone = backbones[name]
    before = copy_of(backbone.state_dict())
    model = tune(backbone, 3, METHODS[method], 0).eval()
    with torch.no_grad():
        assert torch.equal(model.backbone(images()), backbone(images()))
        merged = model.merged_backbone()
        torch.testing.assert_close(merged(images()), backbone(images()), rtol=0, atol=1e-6)
    train(model)
    assert not changed(before, backbone.state_dict())  # a copy is trained
    assert not any(parameter.requires_grad for parameter in merged.parameters())


@pytest.mark.parametrize("name", ["mini", "tiny_clip"])
def test_full_trains_everything(backbones: dict[str, Backbone], name: str) -> None:
    model = tune(backbones[name], 3, FullConfig(), 0)
    before = copy_of(model.state_dict())
    assert all(parameter.requires_grad for parameter in model.parameters())
    train(model)
    assert changed(before, model.state_dict()) == set(dict(model.named_parameters()))
    assert model.changing_state().keys() == before.keys()


@pytest.mark.parametrize("name", BACKBONES)
def test_a_linear_probe_leaves_the_encoder_bit_for_bit(backbones: dict[str, Backbone], name: str) -> None:
    model = tune(backbones[name], 3, LinearProbeConfig(), 0)
    before = copy_of(model.state_dict())
    train(model)
    assert changed(before, model.state_dict()) == {"head.weight", "head.bias"}
    assert model.training and model.head.training
    assert not any(module.training for module in model.backbone.modules())
    with torch.no_grad():
        features = model.backbone(images())
        assert torch.equal(features, backbones[name](images()))
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())


def test_other_methods_train_in_training_mode(backbones: dict[str, Backbone]) -> None:
    for method in (FullConfig(), LoraConfig()):
        model = tune(backbones["mini"], 3, method, 0).train()
        assert model.backbone.training
        assert not model.eval().backbone.training


@pytest.mark.parametrize("name", ["mini", "mini_clip", "tiny_clip"])
def test_lora_trains_additions_and_head_only(backbones: dict[str, Backbone], name: str) -> None:
    model = tune(backbones[name], 3, METHODS["lora"], 0)
    before = copy_of(model.state_dict())
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(".lora_A." in key or ".lora_B." in key or key.startswith("head.") for key in trained)
    train(model, n_steps=3)
    # the first step has zero gradients (the head is zero), the next one half of them; then all have moved
    assert changed(before, model.state_dict()) == trained
    assert model.changing_state().keys() == trained
    weights = [tensor for key, tensor in model.changing_state().items() if ".lora_A." in key]
    assert weights and all(tensor.shape[0] == 3 for tensor in weights)


def test_lora_reaches_attention_and_mlp_of_every_block(backbones: dict[str, Backbone]) -> None:
    for name, prefix, parts in (
        ("mini", "backbone.encoder.blocks", ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")),
        ("mini_clip", "backbone.encoder.trunk.blocks", ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")),
        (
            "tiny_clip",
            "backbone.encoder.transformer.resblocks",
            ("attn", "attn.base_layer.out_proj", "mlp.c_fc", "mlp.c_proj"),
        ),
    ):
        state = tune(backbones[name], 3, LoraConfig(), 0).changing_state()
        found = {key.removesuffix(".lora_A.default.weight") for key in state if ".lora_A." in key}
        n_blocks = len(backbones[name].layers)
        assert found == {f"{prefix}.{block}.{part}" for block in range(n_blocks) for part in parts}


def randomise(model: TunedModel) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("name", ["mini", "mini_clip", "tiny_clip"])
def test_merged_equals_unmerged(backbones: dict[str, Backbone], name: str) -> None:
    model = tune(backbones[name], 3, METHODS["lora"], 0).eval()
    randomise(model)
    before = copy_of(model.state_dict())
    merged = model.merged_backbone()
    with torch.no_grad():
        expected = model.backbone(images())
        assert (expected - backbones[name](images())).abs().max() > 1e-3  # there is something to merge
        torch.testing.assert_close(merged(images()), expected, rtol=1e-5, atol=1e-5)
        for one, other in zip(merged.tokens(images()), model.backbone.tokens(images()), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert merged.encoder.state_dict().keys() == backbones[name].encoder.state_dict().keys()
    assert not changed(before, model.state_dict())  # training can continue


@pytest.mark.parametrize("name", ["mini", "tiny_clip"])
def test_the_addition_is_the_product_times_alpha_over_rank(backbones: dict[str, Backbone], name: str) -> None:
    model = tune(backbones[name], 3, METHODS["lora"], 0)
    randomise(model)
    state = model.state_dict()
    merged = model.merged_backbone().encoder.state_dict()
    pretrained = backbones[name].encoder.state_dict()
    n_found = 0
    for key in state:
        if ".lora_A." not in key:
            continue
        module = key.removeprefix("backbone.encoder.").removesuffix(".lora_A.default.weight")
        addition = state[key.replace("lora_A", "lora_B")] @ state[key] * (5 / 3)
        target = module.replace(".base_layer", "")
        weight = f"{target}.{'in_proj_weight' if target.endswith('attn') else 'weight'}"
        torch.testing.assert_close(merged[weight] - pretrained[weight], addition, rtol=1e-4, atol=1e-6)
        n_found += 1
    assert n_found == 4 * len(backbones[name].layers)


def test_lora_of_multihead_attention_has_the_gradient_of_its_function(backbones: dict[str, Backbone]) -> None:
    model = tune(backbones["tiny_clip"], 3, METHODS["lora"], 0).double()
    randomise(model)
    trained = {
        name: p for name, p in model.named_parameters() if ".resblocks.0.attn" in name and "lora" in name
    }
    assert len(trained) == 4
    weight = torch.randn(4, 16, dtype=torch.double, generator=torch.Generator().manual_seed(1))

    def loss() -> Tensor:
        return (model.backbone(images().double()) * weight).sum()

    loss().backward()
    for parameter in trained.values():
        direction = torch.randn(
            parameter.shape, dtype=torch.double, generator=torch.Generator().manual_seed(3)
        )
        with torch.no_grad():
            original = parameter.clone()
            parameter.copy_(original + 1e-5 * direction)
            above = loss()
            parameter.copy_(original - 1e-5 * direction)
            slope = float(above - loss()) / 2e-5
            parameter.copy_(original)
        assert float((parameter.grad * direction).sum()) == pytest.approx(slope, rel=1e-4)


def test_fixed_weights_do_not_drift(backbones: dict[str, Backbone]) -> None:
    # peft's adapter of nn.MultiheadAttention subtracts its update again with a rounding error
    model = tune(backbones["tiny_clip"], 3, METHODS["lora"], 0)
    randomise(model)
    before, keys = copy_of(model.state_dict()), model.changing_state().keys()
    for _ in range(3):
        model(images())
    assert not changed(before, model.state_dict())
    assert model.changing_state().keys() == keys
    parameters = dict(model.named_parameters())
    assert not any(parameters[name].requires_grad for name in before.keys() - keys)


def test_adapters_are_a_function_of_the_seed(backbones: dict[str, Backbone]) -> None:
    before = torch.get_rng_state()
    first, again, other = (tune(backbones["mini"], 3, LoraConfig(), seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert not changed(first.state_dict(), again.state_dict())
    assert changed(first.state_dict(), other.state_dict())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["mini", "tiny_clip", "batch_norm"])
def test_changing_state_is_all_that_changes(backbones: dict[str, Backbone], name: str, method: str) -> None:
    settings: MethodConfig = METHODS[method]
    if method == "lora" and name == "batch_norm":
        settings = LoraConfig(targets=r"layer\d\.0\.conv1")
    model = tune(backbones[name], 3, settings, 0)
    train(model)
    state = copy_of(model.changing_state())
    assert not any(tensor.requires_grad for tensor in model.changing_state().values())
    other = tune(backbones[name], 3, settings, 1)
    other.load_changing_state(state)
    assert not changed(model.state_dict(), other.state_dict())
    if name == "batch_norm":
        assert "backbone.encoder.bn1.running_mean" in state


@pytest.mark.parametrize("name", BACKBONES)
def test_bitfit_trains_biases_and_head_only(backbones: dict[str, Backbone], name: str) -> None:
    model = tune(backbones[name], 3, BitFitConfig(), 0)
    before = copy_of(model.state_dict())
    train(model, n_steps=3)
    parameters = dict(model.named_parameters())
    expected = {key for key in parameters if key.endswith("bias") or key.startswith("head.")}
    assert {key for key, part in parameters.items() if part.requires_grad} == expected
    found = changed(before, model.state_dict()) & parameters.keys()
    # the last norms of ResNet branches are zero-initialised, so gradients before them are zero
    assert found < expected if name == "batch_norm" else found == expected
    assert any(key.endswith("in_proj_bias") for key in expected) == (name == "tiny_clip")
    assert model.changing_state().keys() & parameters.keys() == expected


@pytest.mark.parametrize("name", ["mini", "tiny_clip", "batch_norm"])
def test_the_stem_and_the_first_blocks_stay(backbones: dict[str, Backbone], name: str) -> None:
    method = FullConfig(frozen_blocks=2)
    model = tune(backbones[name], 3, method, 0)
    before = copy_of(model.state_dict())
    train(model, n_steps=3)
    depths = backbones[name].depths()
    frozen = {f"backbone.encoder.{key}" for key, depth in depths.items() if depth <= 2}
    assert changed(before, model.state_dict()) & dict(model.named_parameters()).keys() == (
        dict(model.named_parameters()).keys() - frozen
    )
    assert not model.changing_state().keys() & frozen
    # frozen parts stay in evaluation mode, including batch statistics
    for key in model.state_dict():
        if key.endswith("running_mean") and key.replace("running_mean", "weight") in frozen:
            assert torch.equal(model.state_dict()[key], before[key])
    found = {key for key, module in model.backbone.encoder.named_modules() if not module.training}
    assert found and all(
        depths[f"{key}.{part}"] <= 2
        for key in found
        for part, _ in model.backbone.encoder.get_submodule(key).named_parameters()
    )
    other = tune(backbones[name], 3, method, 0)
    other.load_changing_state(copy_of(model.changing_state()))
    assert not changed(model.state_dict(), other.state_dict())


def test_more_frozen_blocks_than_there_are(backbones: dict[str, Backbone]) -> None:
    message = "method.frozen_blocks: found 8, expected at most 7, because this backbone has 8 blocks"
    with pytest.raises(InputError, match=message):
        tune(backbones["mini"], 3, FullConfig(frozen_blocks=8), 0)


def test_the_head_alone_and_then_everything(backbones: dict[str, Backbone]) -> None:
    model = tune(backbones["mini"], 3, FullConfig(frozen_blocks=1), 0)
    everything = {key for key, part in model.named_parameters() if part.requires_grad}
    stored = model.changing_state().keys()
    model.open(head_only=True)
    assert {key for key, part in model.named_parameters() if part.requires_grad} == {
        "head.weight",
        "head.bias",
    }
    assert model.changing_state().keys() == stored
    assert not model.train().backbone.training
    model.open()
    assert {key for key, part in model.named_parameters() if part.requires_grad} == everything
    assert model.train().backbone.training


def test_a_wrong_state_is_refused(backbones: dict[str, Backbone]) -> None:
    full, probe, lora = (tune(backbones["mini"], 3, method, 0) for method in METHODS.values())
    wider = tune(backbones["mini"], 3, LoraConfig(rank=4), 0)
    for model, state in (
        (full, probe.changing_state()),
        (probe, full.changing_state()),
        (lora, probe.changing_state()),
        (lora, {**lora.changing_state(), "other": torch.zeros(1)}),
    ):
        with pytest.raises(RuntimeError, match="names differ: "):
            model.load_changing_state(state)
    with pytest.raises(RuntimeError, match="size mismatch"):
        lora.load_changing_state(wider.changing_state())


@pytest.mark.parametrize("targets", [r"nowhere\.to\.be\.found", "blocks.[", r"norm", r"blocks\.0\.norm1"])
def test_targets_that_cannot_be_adapted(backbones: dict[str, Backbone], targets: str) -> None:
    with pytest.raises(InputError, match=r"^method.targets: ") as error:
        tune(backbones["mini"], 3, LoraConfig(targets=targets), 0)
    assert "\n" not in str(error.value)


def test_default_targets_where_there_are_none(backbones: dict[str, Backbone]) -> None:
    with pytest.raises(InputError, match=r"^method.targets: .*" + re.escape("not found")):
        tune(backbones["batch_norm"], 3, LoraConfig(), 0)


def test_dropout_of_adapters_is_for_training_only(backbones: dict[str, Backbone]) -> None:
    model = tune(backbones["mini"], 3, LoraConfig(dropout=0.5), 0)
    randomise(model)
    model.train()
    with torch.no_grad():
        assert not torch.equal(model.backbone(images()), model.backbone(images()))
        model.eval()
        assert torch.equal(model.backbone(images()), model.backbone(images()))


def test_loss_of_an_untrained_head(backbones: dict[str, Backbone]) -> None:
    model = tune(backbones["mini"], 7, FullConfig(), 0)
    loss = nn.functional.cross_entropy(model(images()), torch.arange(4))
    assert loss.item() == pytest.approx(math.log(7))
