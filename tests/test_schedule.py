from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_backbones import make_tiny_clip

from harness.backbones.backbone import Backbone
from harness.backbones.clip_backbone import load_clip
from harness.backbones.timm_backbone import load_timm
from harness.config.method import (
    FullConfig,
    LinearProbeConfig,
    LpFtConfig,
)
from harness.finetuning.methods.stages import TrainingStage
from harness.finetuning.methods.tuned import tune
from harness.finetuning.schedule import (
    group_parameters,
    plan_stages,
)


def test_lp_ft_has_two_stages_and_all_others_one() -> None:
    assert plan_stages(FullConfig(), 1e-3, 10) == [TrainingStage(0, 10, 1.0)]
    method = LpFtConfig(probe_share=0.3, probe_lr=0.1, lr_factor=0.5)
    assert plan_stages(method, 1e-3, 10) == [
        TrainingStage(0, 3, 100.0, head_only=True),
        TrainingStage(3, 10, 0.5),
    ]
    assert [stage.n_steps for stage in plan_stages(method, 1e-3, 10)] == [3, 7]
    # both stages have a step if there are at least two
    assert [stage.stop for stage in plan_stages(LpFtConfig(probe_share=0.01), 1.0, 4)] == [1, 4]
    assert [stage.stop for stage in plan_stages(LpFtConfig(probe_share=0.99), 1.0, 4)] == [3, 4]
    assert [stage.stop for stage in plan_stages(LpFtConfig(), 1.0, 1)] == [1, 1]


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backbone]:
    folder: Path = tmp_path_factory.mktemp("open_clip")
    return {
        "mini": load_timm("palimpsest_mini", None, 0),
        "mini_clip": load_clip("palimpsest_mini_clip", None, 0),
        "tiny_clip": make_tiny_clip(folder, image_size=64),
        "resnet": load_timm("test_resnet", None, 0),
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "mini",
            {"pos_embed": 0, "patch_embed.backbone.0.conv.weight": 0, "blocks.0.attn.qkv.weight": 1,
             "blocks.7.mlp.fc2.bias": 8, "norm.weight": 8},
        ),
        (
            "mini_clip",
            {"trunk.cls_token": 0, "trunk.blocks.0.norm1.weight": 1, "trunk.blocks.7.norm1.weight": 8,
             "trunk.norm.weight": 8, "head.proj.weight": 9},
        ),
        (
            "tiny_clip",
            {"class_embedding": 0, "conv1.weight": 0, "ln_pre.weight": 0,
             "transformer.resblocks.0.attn.in_proj_weight": 1, "transformer.resblocks.2.mlp.c_fc.bias": 3,
             "ln_post.weight": 3, "proj": 4},
        ),
        ("resnet", {"conv1.0.weight": 0, "bn1.weight": 0, "layer1.0.conv1.weight": 1}),
    ],
)  # fmt: skip
def test_depths(backbones: dict[str, Backbone], name: str, expected: dict[str, int]) -> None:
    depths = backbones[name].depths()
    assert depths.keys() == dict(backbones[name].encoder.named_parameters()).keys()
    assert {key: depths.get(key) for key in expected} == expected
    assert set(depths.values()) == set(range(max(depths.values()) + 1))


def test_parameters_by_layer(backbones: dict[str, Backbone]) -> None:
    """Group by the names of layer tokens; in a ResNet, whose blocks are not its layers, by depth."""
    for name, stem, first, top in (
        ("mini", "pos_embed", "blocks.0.attn.qkv.weight", None),
        ("mini_clip", "trunk.cls_token", "trunk.blocks.0.norm1.weight", "head.proj.weight"),
        ("tiny_clip", "conv1.weight", "transformer.resblocks.0.attn.in_proj_weight", "proj"),
    ):
        layers = backbones[name].parameter_layers()
        assert layers[stem] == "stem"
        assert layers[first] == backbones[name].layers[0]
        assert top is None or layers[top] == "top"
        assert set(backbones[name].layers) <= set(layers.values())
    layers = backbones["resnet"].parameter_layers()
    assert (layers["conv1.0.weight"], layers["layer1.0.conv1.weight"]) == ("stem", "depth-01")
    model = tune(backbones["mini"], 3, FullConfig(), 0)
    found = model.parameters_by_layer()
    first, *_, last = found
    assert (first, last) == ("stem", "head")
    assert sum(map(len, found.values())) == len(list(model.parameters()))


@pytest.mark.parametrize("name", ["mini", "mini_clip", "tiny_clip", "resnet"])
def test_rates_fall_from_the_head_down(backbones: dict[str, Backbone], name: str) -> None:
    model = tune(backbones[name], 3, FullConfig(layer_decay=0.5), 0)
    groups = group_parameters(model, FullConfig(layer_decay=0.5), 0.05)
    scale = {id(part): group["lr_scale"] for group in groups for part in group["params"]}
    assert all(group["weight_decay"] == 0.05 for group in groups)
    depths = backbones[name].depths()
    above = max(depths.values()) + 1
    assert len(scale) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for key, part in model.named_parameters():
        depth = depths.get(key.removeprefix("backbone.encoder."), above)
        assert scale[id(part)] == 0.5 ** (above - depth)
    assert {scale[id(part)] for part in model.head.parameters()} == {1.0}


def test_without_layer_decay_all_is_one_group(backbones: dict[str, Backbone]) -> None:
    for method in (FullConfig(), LinearProbeConfig()):
        model = tune(backbones["mini"], 3, method, 0)
        (group,) = group_parameters(model, method, 0.05)
        assert group.keys() == {"params"}
        assert all(part.requires_grad for part in group["params"])


def test_a_step_moves_lower_blocks_less(backbones: dict[str, Backbone]) -> None:
    method = FullConfig(layer_decay=0.5)
    model = tune(backbones["mini"], 3, method, 0)
    groups = group_parameters(model, method, 0.0)
    optimizer = torch.optim.AdamW([{**group, "lr": 1e-3 * group["lr_scale"]} for group in groups])
    weights = {depth: model.backbone.encoder.blocks[depth].mlp.fc1.weight for depth in (0, 7)}
    before = {depth: part.detach().clone() for depth, part in weights.items()}
    with torch.no_grad():
        model.head.weight.normal_()
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    # Adam's first step equals the learning rate for every weight
    moved = {depth: (part - before[depth]).abs().median().item() for depth, part in weights.items()}
    assert moved[7] == pytest.approx(5e-4, rel=0.01)
    assert moved[0] == pytest.approx(1e-3 * 0.5**8, rel=0.01)
