"""What is minimised: the task's loss; methods that add a penalty extend this."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness.backbones import Backbone
from harness.finetuning.methods.tuned import TunedModel

if TYPE_CHECKING:
    from tasks import Task
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
        return {"task_loss": self.task.loss(self.model(images).float(), labels)}


def copy_frozen(backbone: Backbone, device: torch.device | str) -> Backbone:
    """A copy of the pretrained backbone in evaluation mode, without gradients or texts."""
    copied = copy.deepcopy(backbone, {id(backbone.text): None})
    return copied.requires_grad_(False).eval().to(device)


def copy_start(backbone: Backbone, model: TunedModel, device: torch.device | str) -> dict[str, Tensor]:
    """Copy the pretrained values of the encoder's weights that are trained, by name."""
    pretrained, trained = backbone.encoder.named_parameters(), model.trained_weights()
    return {name: weight.detach().clone().to(device) for name, weight in pretrained if name in trained}


def copy_teacher(backbone: Backbone, model: TunedModel, device: torch.device | str) -> Backbone:
    """The pretrained backbone, to be asked what its student is asked, both within `same_rounding`.

    Where student and teacher have equal weights, their answers shall have equal bits: Adam would make whole
    steps of what rounding leaves of a gradient of zero. Torch rounds otherwise for weights without gradient.
    """
    teacher, trained = copy_frozen(backbone, device), model.trained_weights()
    for name, parameter in teacher.encoder.named_parameters():
        parameter.requires_grad_(name in trained)
    return teacher


@contextmanager
def same_rounding() -> Iterator[None]:
    """Without the faster attention that torch takes where nothing has gradients, in evaluation mode."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
