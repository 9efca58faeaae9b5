"""LwF: an old head shall answer the new images as before (Li and Hoiem, ECCV 2016).

    loss = cross-entropy + α · KL(softmax(z₀/T) ‖ softmax(z/T))        z: the old head's logits, T = 2

z₀ are those of the pretrained backbone. The old head is that of `old_head`; it does not
change, while Li and Hoiem's, which came with its network, is trained on.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from harness.backbones import Backbone
from harness.config import LwfConfig
from harness.finetuning.methods.objective import (
    Objective,
    Terms,
    copy_teacher,
    same_rounding,
)
from harness.finetuning.methods.old_head import build_old_head
from harness.finetuning.methods.tuned import TunedModel
from tasks import Task


def distillation(
    now: Float[Tensor, "n_images n_classes"], before: Float[Tensor, "n_images n_classes"], temperature: float
) -> Float[Tensor, ""]:
    """Mean over images of KL(before ‖ now) of logits over a temperature, in nats; 0 where nothing changed.

    In double precision: Adam would make whole steps of what rounding leaves of a gradient of zero.
    """
    divergence = functional.kl_div(
        functional.log_softmax(now.double() / temperature, dim=1),
        functional.log_softmax(before.double() / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence.float()


class Lwf(Objective):
    """The task's loss and LwF."""

    def __init__(
        self,
        model: TunedModel,
        task: Task,
        backbone: Backbone,
        method: LwfConfig,
        proxy: Task,
        device: torch.device | str,
    ) -> None:
        super().__init__(model, task)
        self._teacher = (copy_teacher(backbone, model, device),)  # in a tuple: no part of what is trained
        self._old_head = build_old_head(self._teacher[0], backbone.text, proxy, device)
        self._method = method

    def forward(self, images: Float[Tensor, "n_images 3 height width"], labels: Tensor) -> Terms:
        """The task's loss, and the weighted divergence of the old head's answers to the same images."""
        with same_rounding():
            features = self.model.backbone(images)
            with torch.no_grad():
                before = self._old_head(self._teacher[0](images))
        divergence = distillation(self._old_head(features), before, self._method.temperature)
        return {
            "task_loss": self.task.loss(self.model.classify(features).float(), labels),
            "penalty": self._method.weight * divergence,
        }
