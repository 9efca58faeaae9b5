"""L2-SP: weights are pulled towards their starting point (Li, Grandvalet and Davoine, ICML 2018).

    Ω = α/2 ‖w − w⁰‖² + β/2 ‖v‖²        w: the pretrained part, v: the new head

The baseline of LDIFS (Mukhoti et al., TMLR 2024) is α ‖w − w⁰‖², not halved and without the head's term, so
the same α is twice as strong.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from harness.backbones import Backbone
from harness.config import (
    L2SpConfig,
    L2SpLdifsConfig,
)
from harness.finetuning.methods.objective import (
    Context,
    Objective,
    Terms,
    copy_start,
)
from harness.finetuning.methods.tuned import TunedModel
from tasks import Task


def squared_distance(weights: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Float[Tensor, ""]:
    """Compute ‖w − w⁰‖² over all of `weights`; 0 at the start."""
    return torch.stack([(weight - start[name]).square().sum() for name, weight in weights.items()]).sum()


class L2Sp(Objective):
    """The task's loss and the L2-SP penalty, in either convention."""

    def __init__(
        self,
        model: TunedModel,
        task: Task,
        backbone: Backbone,
        method: L2SpConfig | L2SpLdifsConfig,
        device: torch.device | str,
    ) -> None:
        super().__init__(model, task)
        # not buffers: those are synchronised between processes at every step
        self._start = copy_start(backbone, model, device)
        self._method = method

    def forward(self, images: Float[Tensor, "n_images 3 height width"], labels: Tensor) -> Terms:
        """Compute the task's loss and the penalties on backbone and head."""
        terms = super().forward(images, labels)
        distance = squared_distance(self.model.trained_weights(), self._start)
        if isinstance(self._method, L2SpLdifsConfig):
            return terms | {"penalty": self._method.alpha * distance}
        head = torch.stack([weight.square().sum() for weight in self.model.current_head.parameters()]).sum()
        return terms | {
            "penalty": self._method.alpha / 2 * distance,
            "head_penalty": self._method.beta / 2 * head,
        }


def build(model: TunedModel, task: Task, context: Context) -> L2Sp:
    """Build the objective from a run's settings."""
    assert isinstance(context.method, L2SpConfig | L2SpLdifsConfig)
    return L2Sp(model, task, context.backbone, context.method, context.device)
