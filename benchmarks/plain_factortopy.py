"""FactorTopy's formula written directly with ``grid_sample``: the reference for our version."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.mappings.factortopy.model import FactorTopy
from harness.mappings.factortopy.selectors import SelectorTensors


def select_plainly(model: FactorTopy, encoding: Tensor) -> SelectorTensors:
    """Apply the selector networks to the full position encoding [n_voxels, 192]."""
    return SelectorTensors(
        space=model.space_selector(encoding).tanh(),
        layer=model.layer_selector(encoding).softmax(dim=-1),
        scale=model.scale_selector(encoding).squeeze(-1).sigmoid(),
    )


def predict_plainly(
    model: FactorTopy, local: Sequence[Tensor], global_: Sequence[Tensor], chosen: SelectorTensors
) -> Tensor:
    """Sample each voxel's token in every layer, mix over layers, then apply the weights.

    Parameters
    ----------
    model : FactorTopy
    local : sequence of float tensors [n_images, n_channels, height, width], one per layer
    global_ : sequence of float tensors [n_images, n_channels], one per layer
    chosen : SelectorTensors

    Returns
    -------
    float tensor [n_images, n_voxels]
    """
    scale = chosen.scale[:, None]
    mixed: Tensor | float = 0.0  # n_images, n_voxels, n_channels
    for layer, (tokens, whole) in enumerate(zip(local, global_, strict=True)):
        projected = F.conv2d(tokens, model.local_bottleneck[layer].weight[:, :, None, None])
        grid = chosen.space.view(1, -1, 1, 2).expand(len(tokens), -1, -1, -1)
        sampled = F.grid_sample(projected, grid, align_corners=False).squeeze(-1).transpose(1, 2)
        one = torch.lerp(sampled, model.global_bottleneck[layer](whole)[:, None, :], scale)
        mixed = mixed + chosen.layer[:, layer, None] * one
    return (mixed * model.weight).mean(dim=-1) + model.bias
