"""What is minimised: the task's loss; methods that add a penalty extend this."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from harness.backbones import Backbone
from harness.methods.tuned import TunedModel

if TYPE_CHECKING:
    from tasks.task import Task
else:
    # importing datasets takes seconds
    Task = Any

Terms = dict[str, Float[Tensor, ""]]


class Objective(nn.Module):
    """The task's loss alone; all of a step goes through `forward`, as data-parallel training needs it."""

    def __init__(self, model: TunedModel, task: Task) -> None:
        super().__init__()
        self.model = model
        self.task = task

    def forward(self, images: Float[Tensor, "n_images 3 height width"], labels: Tensor) -> Terms:
        """Terms of the loss by name, each with its weight: the loss is their sum."""
        return {"task_loss": task_loss(self.task, self.model(images), labels)}


def task_loss(task: Task, logits: Float[Tensor, "n_images n_classes"], labels: Tensor) -> Float[Tensor, ""]:
    """The task's own loss where it has one, else cross-entropy."""
    loss = getattr(task, "loss", functional.cross_entropy)
    found: Tensor = loss(logits.float(), labels)
    return found


@contextmanager
def as_in_training() -> Iterator[None]:
    """Let a teacher take the code path that its student takes, so that equal weights give equal bits.

    Without gradients, torch's attention in evaluation mode would take a faster path that rounds otherwise, and
    Adam would make whole steps of the difference.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def copy_frozen(backbone: Backbone, device: torch.device | str) -> Backbone:
    """The pretrained backbone as a teacher: a copy in evaluation mode, without gradients or texts."""
    teacher = copy.deepcopy(backbone, {id(backbone.text): None})
    return teacher.requires_grad_(False).eval().to(device)
