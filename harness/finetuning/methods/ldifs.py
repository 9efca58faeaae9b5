"""LDIFS: tokens are drawn to those of the pretrained backbone (Mukhoti et al., TMLR 2024).

    loss = cross-entropy + 10 · mean over layers of ‖φ(x; θ) − φ(x; θ₀)‖²        φ of unit length

The authors take the input of the first block and the outputs of blocks 3, 6, 9 and 12 of a ViT-B, all tokens
of them. Here layers are the backbone's own, which begin with the first block's output: by default the four at
each quarter of the depth. A token is of unit length over its channels; the authors' code takes the axis of
tokens instead, so that each channel is of unit length over an image (``axis=tokens``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from harness.backbones import Backbone
from harness.config import LdifsConfig
from harness.finetuning.methods.objective import (
    Objective,
    Terms,
    copy_teacher,
    same_rounding,
)
from harness.finetuning.methods.tuned import TunedModel
from harness.storage import InputError
from tasks import Task


def feature_distance(
    student: Sequence[Float[Tensor, "n_images _ _"]],
    teacher: Sequence[Float[Tensor, "n_images _ _"]],
    axis: Literal["channels", "tokens"] = "channels",
) -> Float[Tensor, ""]:
    """Mean over layers of the squared distance of unit-length vectors, in [0, 4].

    Parameters
    ----------
    student, teacher : sequence of float tensors [n_images, n_tokens, n_channels]
        Layer by layer.
    axis : {"channels", "tokens"}
        Vectors run along this axis; their distances are averaged over the other one and over images.
    """
    along = {"channels": 2, "tokens": 1}[axis]
    distances = []
    for tokens, kept in zip(student, teacher, strict=True):
        difference = functional.normalize(tokens.float(), dim=along) - functional.normalize(
            kept.float(), dim=along
        )
        distances.append(difference.square().sum(dim=along).mean())
    return torch.stack(distances).mean()


def choose_layers(chosen: tuple[int, ...] | None, n_layers: int) -> list[int]:
    """The layers wanted, or those at each quarter of the depth; an `InputError` for one that is not there."""
    if chosen is None:
        return sorted({-(-n_layers * quarter // 4) - 1 for quarter in range(1, 5)})
    if max(chosen) >= n_layers:
        raise InputError(f"method.layers: found {max(chosen)}, accepted: 0 to {n_layers - 1}")
    return sorted(set(chosen))


class Ldifs(Objective):
    """The task's loss and LDIFS."""

    def __init__(
        self,
        model: TunedModel,
        task: Task,
        backbone: Backbone,
        method: LdifsConfig,
        device: torch.device | str,
    ) -> None:
        super().__init__(model, task)
        self._layers = choose_layers(method.layers, len(backbone.layers))
        self._teacher = (copy_teacher(backbone, model, device),)  # in a tuple: no part of what is trained
        self._method = method

    def forward(self, images: Float[Tensor, "n_images 3 height width"], labels: Tensor) -> Terms:
        """The task's loss, and the weighted distance from the pretrained tokens of the same images."""
        with same_rounding():
            features, tokens = self.model.backbone.features_and_tokens(images)
            with torch.no_grad():
                _, kept = self._teacher[0].features_and_tokens(images)
        distance = feature_distance(self._sequences(*tokens), self._sequences(*kept), self._method.axis)
        return {
            "task_loss": self.task.loss(self.model.classify(features).float(), labels),
            "penalty": self._method.weight * distance,
        }

    def _sequences(self, local: list[Tensor], global_: list[Tensor]) -> list[Tensor]:
        """Global and local tokens of the chosen layers [n_images, n_tokens, n_channels]."""
        return [
            torch.cat([global_[layer][:, None], local[layer].flatten(2).mT], dim=1) for layer in self._layers
        ]
