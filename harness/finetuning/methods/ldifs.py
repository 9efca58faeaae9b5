"""LDIFS: tokens are pulled towards those of the pretrained backbone (Mukhoti et al., TMLR 2024).

    loss = cross-entropy + 10 · mean over layers of ‖φ(x; θ) − φ(x; θ₀)‖²        φ of unit length

The authors take all tokens of the first block's input and of the outputs of blocks 3, 6, 9 and 12 of a ViT-B.
Here the layers are the backbone's own, which begin with the first block's output; the default is the four
layers at each quarter of the depth. A token has unit length over its channels. The authors' code normalises
along the token axis instead: each channel has unit length over an image (``axis=tokens``).
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
    Context,
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
    """Compute the squared distance of unit-length vectors, mean over layers, in [0, 4].

    Parameters
    ----------
    student, teacher : sequence of float tensors [n_images, n_tokens, n_channels]
        Layer by layer.
    axis : {"channels", "tokens"}
        Axis along which vectors run; distances are averaged over the other axis and over images.
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
    """Return the chosen layers, by default those at each quarter of the depth; check that they exist."""
    if chosen is None:
        return sorted({-(-n_layers * quarter // 4) - 1 for quarter in range(1, 5)})
    if max(chosen) >= n_layers:
        raise InputError(f"method.layers: found {max(chosen)}, expected 0 to {n_layers - 1}")
    return sorted(set(chosen))


class Ldifs(Objective):
    """The task's loss and the LDIFS penalty."""

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
        self._teacher = (copy_teacher(backbone, model, device),)  # in a tuple: not a submodule
        self._method = method

    def forward(self, images: Float[Tensor, "n_images 3 height width"], labels: Tensor) -> Terms:
        """Compute the task's loss and the weighted distance to the pretrained tokens of the same images."""
        with same_rounding():
            features, tokens = self.model.backbone.features_and_tokens(images)
            with torch.no_grad():
                _, kept = self._teacher[0].features_and_tokens(images)
        distance = feature_distance(self._sequences(*tokens), self._sequences(*kept), self._method.axis)
        return {
            "task_loss": self.task_loss(self.model.classify(features), labels),
            "penalty": self._method.weight * distance,
        }

    def _sequences(self, local: list[Tensor], global_: list[Tensor]) -> list[Tensor]:
        """Concatenate global and local tokens of the chosen layers: [n_images, n_tokens, n_channels]."""
        return [
            torch.cat([global_[layer][:, None], local[layer].flatten(2).mT], dim=1) for layer in self._layers
        ]


def build(model: TunedModel, task: Task, context: Context) -> Ldifs:
    """Build the objective from a run's settings."""
    assert isinstance(context.method, LdifsConfig)
    return Ldifs(model, task, context.backbone, context.method, context.device)
