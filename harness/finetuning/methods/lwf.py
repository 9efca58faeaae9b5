"""LwF: an old head keeps its answers to the new images (Li and Hoiem, ECCV 2016).

    loss = cross-entropy + α · KL(softmax(z₀/T) ‖ softmax(z/T))        z: the old head's logits, T = 2

z₀ are the logits of the pretrained backbone. The old head is fixed (`old_head`); Li and Hoiem's came with
their network and is trained further.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from harness.backbones import Backbone
from harness.config import LwfConfig
from harness.finetuning.methods.objective import (
    Context,
    Objective,
    Terms,
    copy_teacher,
    same_rounding,
)
from harness.finetuning.methods.old_head import build_old_head
from harness.finetuning.methods.tuned import TunedModel
from tasks import (
    Task,
    load_task,
)


def distillation(
    now: Float[Tensor, "n_images n_classes"], before: Float[Tensor, "n_images n_classes"], temperature: float
) -> Float[Tensor, ""]:
    """Compute KL(before ‖ now) of logits over a temperature, mean over images, in nats; 0 at the start.

    In double precision, because Adam would turn rounding errors around a zero gradient into full steps.
    """
    divergence = functional.kl_div(
        functional.log_softmax(now.double() / temperature, dim=1),
        functional.log_softmax(before.double() / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence.float()


class Lwf(Objective):
    """The task's loss and the LwF penalty."""

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
        self._teacher = (copy_teacher(backbone, model, device),)  # in a tuple: not a submodule
        self._old_head = build_old_head(self._teacher[0], backbone.text, proxy, device)
        self._method = method

    def forward(self, images: Float[Tensor, "n_images 3 height width"], labels: Tensor) -> Terms:
        """Compute the task's loss and the weighted divergence of the old head's answers."""
        with same_rounding():
            features = self.model.backbone(images)
            with torch.no_grad():
                before = self._old_head(self._teacher[0](images))
        divergence = distillation(self._old_head(features), before, self._method.temperature)
        return {
            "task_loss": self.task_loss(self.model.classify(features), labels),
            "penalty": self._method.weight * divergence,
        }


def build(model: TunedModel, task: Task, context: Context) -> Lwf:
    """Build the objective from a run's settings; loads the proxy."""
    method = context.method
    assert isinstance(method, LwfConfig)
    proxy = load_task(method.proxy, method.n_proxy, 1, context.seed)
    return Lwf(model, task, context.backbone, method, proxy, context.device)
