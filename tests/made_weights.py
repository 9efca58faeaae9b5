"""Weights of test networks, named and nested in files as libraries and authors publish them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

State = dict[str, Tensor]


def perturb(module: nn.Module, seed: int = 4) -> None:
    """Perturb every parameter slightly, including those initialised to zero or a constant."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)


def as_mae(state: State) -> Any:
    return {"model": state}


def as_moco_v3(state: State) -> Any:
    """Convert as main_moco.py does: encoder, momentum encoder and predictor under one wrapper."""
    projector = {"head.0.weight": torch.ones(8, 64), "head.1.running_mean": torch.ones(8)}
    content = {f"module.base_encoder.{name}": part for name, part in {**state, **projector}.items()}
    content |= {f"module.momentum_encoder.{name}": part + 1 for name, part in state.items()}
    content["module.predictor.0.weight"] = torch.ones(8, 8)
    return {"epoch": 300, "arch": "vit_base", "state_dict": content, "scaler": {"scale": 1.0}}


def as_ijepa(state: State) -> Any:
    """Add predictor, target encoder and the state for resuming training."""
    encoder = {f"module.{name}": part for name, part in state.items()}
    target = {name: part + 1 for name, part in encoder.items()}
    rest = {"predictor": {"module.predictor_norm.weight": torch.ones(8)}, "opt": {"state": {}}, "epoch": 300}
    return {"encoder": encoder, "target_encoder": target, **rest}


def as_dinov2(state: State) -> Any:
    return {**state, "mask_token": torch.zeros_like(state["cls_token"][0])}


def as_dinov2_reg(state: State, place: Tensor | None = None) -> Any:
    """Add a position embedding of the class token (zero by default) and a mask token."""
    place = torch.zeros_like(state["cls_token"]) if place is None else place
    theirs = {name: part for name, part in state.items() if name not in ("reg_token", "pos_embed")}
    theirs |= {"register_tokens": state["reg_token"], "mask_token": torch.zeros_like(place[0])}
    theirs["pos_embed"] = torch.cat([place, state["pos_embed"]], dim=1)
    return theirs


def as_dinov3(state: State) -> Any:
    """Add zero biases of queries, keys and values, a mask of these biases, and periods of positions."""
    names = {"reg_token": "storage_tokens"}
    theirs = {
        names.get(name, re.sub(r"gamma_(\d)", r"ls\1.gamma", name)): part for name, part in state.items()
    }
    for name in [name for name in theirs if name.endswith("attn.qkv.weight")]:
        for extra in ("bias", "bias_mask"):
            theirs[name.replace("weight", extra)] = torch.zeros(len(theirs[name]))
    theirs["mask_token"] = torch.zeros_like(theirs["cls_token"][0])
    return {**theirs, "rope_embed.periods": torch.ones(4)}


def as_sam(state: State) -> Any:
    theirs = {f"image_encoder.{name.replace('mlp.fc', 'mlp.lin')}": part for name, part in state.items()}
    return {**theirs, "mask_decoder.iou_token.weight": torch.ones(1, 4)}


def as_convnext(state: State) -> Any:
    """Replace 1 x 1 convolutions by fully connected layers, and add a classifier."""
    theirs = {}
    for name, part in state.items():
        name = re.sub(r"^stem\.", "downsample_layers.0.", name)
        name = re.sub(r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1.", name)
        name = re.sub(r"^stages\.(\d+)\.blocks\.", r"stages.\1.", name)
        name = name.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        theirs[name.removeprefix("head.")] = part
    return {"model": theirs | {"head.weight": torch.ones(3, 32), "head.bias": torch.ones(3)}}


def as_dinov3_convnext(state: State) -> Any:
    """Convert as for ConvNeXt, without a classifier and with the last norm twice."""
    theirs = {
        name: part for name, part in as_convnext(state)["model"].items() if not name.startswith("head.")
    }
    return theirs | {f"norms.3.{part}": theirs[f"norm.{part}"] for part in ("weight", "bias")}


def as_open_clip(state: State) -> Any:
    """Convert as open_clip's training script does."""
    content = {f"module.{name}": part for name, part in state.items()}
    return {"epoch": 3, "name": "run", "state_dict": content, "optimizer": {}}


def write_weights(path: Path, state: State, publish: Callable[[State], Any] | None = None) -> Path:
    """Write weights as safetensors, or in torch's own format; return the file."""
    if publish is None:
        path = path.with_suffix(".safetensors")
        save_file({name: part.clone() for name, part in state.items()}, path)
    else:
        path = path.with_suffix(".pth")
        torch.save(publish(dict(state)), path)
    return path
