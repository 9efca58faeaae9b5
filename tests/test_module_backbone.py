"""Plain torch modules as backbones: layers by hooks, depths, and every stage of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_lab import Block, SmallViT, resnet, vit
from made_training import load_once
from overrides import TINY
from torch import Tensor, nn

from harness.backbones.backbone import Backbone
from harness.config.compose import load_config
from harness.finetuning.devices import build_accelerator
from harness.finetuning.loop import finetune
from harness.finetuning.methods.tuned import tune
from harness.finetuning.snapshots import read_backbone
from harness.runs.journal import read_rows
from harness.runs.layout import list_snapshots
from harness.storage.errors import InputError
from harness.tokens.extraction import extract_layer_means

GREY = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "image_size": 32}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_layers_of_a_resnet_are_its_stages() -> None:
    backbone = resnet()
    assert backbone.widths == (64, 128, 256, 512) and backbone.n_features == 512
    network = backbone.encoder
    with torch.no_grad():
        x = network.maxpool(network.relu(network.bn1(network.conv1(IMAGES))))
        expected = [x := getattr(network, name)(x) for name in backbone.layers]
        grids, globals_ = backbone.tokens(IMAGES)
        features, (same, _) = backbone.features_and_tokens(IMAGES)
    for grid, token, layer, again in zip(grids, globals_, expected, same, strict=True):
        assert torch.equal(grid, layer) and torch.equal(again, layer)
        torch.testing.assert_close(token, layer.mean(dim=(2, 3)))
    torch.testing.assert_close(features, backbone(IMAGES))
    torch.testing.assert_close(features, expected[-1].mean(dim=(2, 3)))


def test_depths_follow_the_order_in_which_modules_run() -> None:
    layers = resnet().parameter_layers()
    assert layers["conv1.weight"] == layers["bn1.bias"] == "stem"
    assert layers["layer3.0.downsample.0.weight"] == "layer3"
    backbone = vit()
    layers = backbone.parameter_layers()
    assert {layers[name] for name in ("prefix", "places", "cut.weight")} == {"stem"}
    assert layers["trunk.step1.think.1.weight"] == "trunk.step1" and layers["end.bias"] == "top"
    assert max(backbone.depths().values()) == 4
    assert layers.keys() == dict(backbone.encoder.named_parameters()).keys()


class Between(nn.Module):
    """A module between two layers, registered out of the order it runs in."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(4, 5, 1)
        self.bridge = nn.Conv2d(4, 4, 1)
        self.first = nn.Conv2d(3, 4, 8, 8)
        self.head = nn.Linear(5, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.last(self.bridge(self.first(images))).mean(dim=(2, 3)))


def test_what_runs_between_two_layers_belongs_to_the_later_one() -> None:
    backbone = Backbone.from_module(Between(), ["first", "last"], **GREY)
    layers = backbone.parameter_layers()
    assert [layers[f"{name}.weight"] for name in ("first", "bridge", "last", "head")] == [
        "first",
        "last",
        "last",
        "top",
    ]


def test_class_token_registers_and_local_tokens() -> None:
    backbone = vit()
    network = backbone.encoder
    with torch.no_grad():
        x = torch.cat(
            [
                network.prefix.expand(2, -1, -1),
                network.cut(IMAGES).flatten(2).transpose(1, 2) + network.places,
            ],
            dim=1,
        )
        x = network.trunk["step0"](x)
        grids, globals_ = backbone.tokens(IMAGES)
        without = vit(class_token=False)
        without.encoder = network
        _, means = without.tokens(IMAGES)
    assert grids[0].shape == (2, 24, 4, 4)
    assert torch.equal(grids[0][:, :, 1, 2], x[:, 3 + 4 * 1 + 2])
    assert torch.equal(globals_[0], x[:, 0])
    torch.testing.assert_close(means[0], x[:, 3:].mean(dim=1))


class Returns(nn.Module):
    """A network whose layer returns a tensor of a given shape."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.shape = shape
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        out = torch.arange(2.0).reshape(2, *[1] * len(self.shape)).expand(2, *self.shape) * self.scale
        return self.layer(out).flatten(1)[:, :3]


@pytest.mark.parametrize(
    ("shape", "settings", "width", "grid"),
    [
        ((7, 4, 4), {}, 7, (4, 4)),
        ((4, 4, 7), {}, 7, (4, 4)),
        ((4, 4, 4), {"layout": "channels_last"}, 4, (4, 4)),
        ((3, 5, 7), {"layout": "channels_first"}, 3, (5, 7)),
        ((16, 7), {}, 7, (4, 4)),
        ((17, 7), {}, 7, (4, 4)),
        ((18, 7), {"prefix_tokens": 2}, 7, (4, 4)),
        ((7,), {}, 7, (1, 1)),
    ],
)
def test_layouts_are_recognised_or_stated(shape, settings, width, grid) -> None:
    backbone = Backbone.from_module(Returns(*shape), ["layer"], **GREY, **settings)
    assert backbone.widths == (width,)
    assert backbone.tokens(IMAGES)[0][0].shape == (2, width, *grid)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (
            lambda: Backbone.from_module(Between(), ["firts"], **GREY),
            "layers: unknown module of Between 'firts'.*'first'",
        ),
        (lambda: Backbone.from_module(Between(), [], **GREY), r"layers: found \[\], expected names"),
        (
            lambda: Backbone.from_module(Between(), ["last", "first"], **GREY),
            "layers: .* order .*first, last",
        ),
        (
            lambda: Backbone.from_module(Returns(4, 4, 4), ["layer"], **GREY),
            "layout: layer returns .*ambiguous",
        ),
        (
            lambda: Backbone.from_module(Returns(4, 5, 6), ["layer"], **GREY),
            "layout: layer returns .*ambiguous",
        ),
        (
            lambda: Backbone.from_module(Returns(18, 7), ["layer"], **GREY),
            "prefix_tokens: layer returns 18 tokens",
        ),
        (
            lambda: Backbone.from_module(Returns(2, 2, 2, 2), ["layer"], **GREY),
            "layers: layer returns .*for 2 images",
        ),
        (
            lambda: Backbone.from_module(nn.Sequential(nn.Conv2d(3, 2, 8, 8)), ["0"], **GREY),
            "features: the network returns .*features=",
        ),
        (
            lambda: Backbone.from_module(Between(), ["first"], **{**GREY, "image_size": 4}),
            "image_size: the network cannot take images of 4 x 4",
        ),
        (lambda: Backbone.from_module(Between(), ["first"], **{**GREY, "mean": (0.5,)}), "mean: found"),
    ],
)
def test_what_does_not_fit_is_one_line(make, problem) -> None:
    with pytest.raises(InputError, match=problem) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_layer_that_is_changed_in_place_keeps_its_own_output() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 8, 8), nn.ReLU(inplace=True))
    backbone = Backbone.from_module(network, ["0"], features="1", **GREY)
    assert (backbone.tokens(IMAGES)[0][0] < 0).any()
    assert (backbone(IMAGES) >= 0).all()


def test_features_may_be_the_mean_of_a_layer() -> None:
    backbone = Backbone.from_module(
        SmallViT(), ["trunk.step0"], features="trunk.step2", prefix_tokens=3, **GREY
    )
    block: list[Tensor] = []
    handle = backbone.encoder.trunk["step2"].register_forward_hook(lambda m, i, out: block.append(out))
    with torch.no_grad():
        found = backbone(IMAGES)
    handle.remove()
    torch.testing.assert_close(found, block[0][:, 3:].mean(dim=1))


def test_hooks_are_taken_off_again_and_gradients_pass() -> None:
    backbone = vit()
    grids, globals_ = backbone.requires_grad_(True).tokens(IMAGES)
    (grids[0].square().sum() + globals_[0].sum()).backward()
    assert backbone.encoder.trunk["step0"].mix.weight.grad is not None
    assert all(not module._forward_hooks for module in backbone.encoder.modules())


@pytest.mark.parametrize(
    ("make", "overrides"),
    [
        (resnet, ["method=full", "method.layer_decay=0.7"]),
        (resnet, ["method=bitfit"]),
        (resnet, ["method=ldifs"]),
        (vit, ["method=full", "method.frozen_blocks=2"]),
        (vit, ["method=lora", "method.targets='.*(mix|out)'", "method.rank=2"]),
        (resnet, ["method=lora", "method.targets=.*conv2", "method.rank=2"]),
        (vit, ["method=l2_sp"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else " ".join(value),
)
def test_it_is_fine_tuned_and_snapshots_are_read_back(make, overrides, tmp_path: Path, monkeypatch) -> None:
    config = load_config(
        [
            *TINY,
            "backbone=python",
            f"backbone.function=made_lab:{make.__name__}",
            *overrides,
            "finetune.max_steps=2",
        ]
    )
    from harness.backbones.load import load_backbone

    backbone = load_backbone(config.backbone)
    task = load_once("digits", config.task.n_train, config.task.n_test)
    finetune(config, tmp_path, [task], backbone, build_accelerator(config.finetune))
    first, last = (read_backbone(config, tmp_path, list_snapshots(tmp_path)[place]) for place in (0, -1))
    before = dict(backbone.encoder.named_parameters())
    assert all(torch.equal(part, before[name]) for name, part in first.encoder.named_parameters())
    changed = {name for name, part in last.encoder.named_parameters() if not torch.equal(part, before[name])}
    assert changed
    depths = backbone.depths()
    if "method.frozen_blocks=2" in overrides:
        assert {depths[name] for name in changed} == {3, 4}
    if "method=bitfit" in overrides:
        assert all(name.endswith("bias") for name in changed)
    if "method=lora" in overrides:
        assert all(("mix" in name or "out" in name or "conv2" in name) for name in changed)
    # the merged copy has its own hooks
    images = [task.test[place]["image"] for place in range(4)]
    means = [extract_layer_means(part, images, range(4), 4) for part in (first, last)]
    layer = backbone.layers[-1]
    assert (means[0][layer] != means[1][layer]).any()
    rows = {row["name"] for row in read_rows(tmp_path / "results.jsonl")[0]}
    assert f"drift/{layer}/grad_norm" in rows


def test_adapters_belong_to_the_layer_of_their_module() -> None:
    method = load_config(["method=lora", "method.targets=.*mix"]).method
    layers = tune(vit(), 2, method, 0).parameters_by_layer()
    assert set(layers) == {"stem", "trunk.step0", "trunk.step1", "trunk.step2", "top", "head"}
    block = Block(24)
    assert len(layers["trunk.step0"]) == len(list(block.parameters())) + 2
