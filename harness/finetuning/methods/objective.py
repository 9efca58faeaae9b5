"""The objective to minimise: the task's loss, which methods with a penalty extend."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness.backbones import Backbone
from harness.config import method as settings
from harness.finetuning.methods.tuned import TunedModel
from harness.mappings import Mapping

if TYPE_CHECKING:
    from tasks import Task
else:
    # datasets takes seconds to import
    Task = Any

Terms = dict[str, Float[Tensor, ""]]


@dataclass(frozen=True)
class Anchor:
    """A subject's mapping of step 0.

    Attributes
    ----------
    mapping : Mapping
        With its learned parameters.
    ceiling : float array [n_voxels], 0 to 1
        Noise ceiling, 1 where it is unknown.
    token_size : int
        Edge of the grid of tokens that it was fitted on.
    """

    mapping: Mapping
    ceiling: Float[np.ndarray, " n_voxels"]
    token_size: int


@dataclass(frozen=True)
class StartMappings:
    """The brain's mappings of step 0, fitted before the first step.

    Attributes
    ----------
    anchors : tuple of Anchor
        One per subject.
    seen : frozenset of str
        Hashes of the pixels of the brain's stimuli and of test images: images that training must not use.
    """

    anchors: tuple[Anchor, ...]
    seen: frozenset[str]


@dataclass(frozen=True)
class Context:
    """What an objective is built from beside the model and the task.

    Attributes
    ----------
    backbone : Backbone
        As pretrained.
    method : MethodConfig
    seed : int
    device : torch.device or str
        For teachers and starting points.
    process, n_processes : int
    tasks : sequence of Task
        All tasks to fine-tune on, in order.
    batch : int
        Images of the task per backward pass of a process.
    start : StartMappings or None
        For methods that anchor at the brain (`Method.anchors`).
    """

    backbone: Backbone
    method: settings.MethodConfig
    seed: int
    device: torch.device | str
    process: int = 0
    n_processes: int = 1
    tasks: Sequence[Task] = ()
    batch: int = 1
    start: StartMappings | None = None


class Objective(nn.Module):
    """The task's loss alone. A step computes everything in `forward`, as data-parallel training requires.

    In a sequence, the loop sets `task` to the current one.

    Attributes
    ----------
    model : TunedModel
    task : Task
    smoothing : float
        Of labels, ``finetune.label_smoothing``.
    """

    smoothing = 0.0

    def __init__(self, model: TunedModel, task: Task) -> None:
        super().__init__()
        self.model = model
        self.task = task

    def forward(self, images: Float[Tensor, "n_images 3 height width"], labels: Tensor) -> Terms:
        """Compute the weighted terms of the loss by name; the loss is their sum."""
        return {"task_loss": self.task_loss(self.model(images), labels)}

    def task_loss(
        self, logits: Float[Tensor, "n_images n_classes"], labels: Tensor, task: Task | None = None
    ) -> Float[Tensor, ""]:
        """Compute the loss of a task, by default the current one, with the run's label smoothing."""
        found: Tensor = (task or self.task).loss(logits.float(), labels, self.smoothing)
        return found


def build(model: TunedModel, task: Task, context: Context) -> Objective:
    """Build the objective of methods without a penalty."""
    return Objective(model, task)


def copy_frozen(backbone: Backbone, device: torch.device | str) -> Backbone:
    """Copy the pretrained backbone, in evaluation mode, without gradients or text tower."""
    copied = copy.deepcopy(backbone, {id(backbone.text): None})
    return copied.requires_grad_(False).eval().to(device)


def copy_start(backbone: Backbone, model: TunedModel, device: torch.device | str) -> dict[str, Tensor]:
    """Copy the pretrained values of the encoder's weights that are trained, by name."""
    pretrained, trained = backbone.encoder.named_parameters(), model.trained_weights()
    return {name: weight.detach().clone().to(device) for name, weight in pretrained if name in trained}


def copy_teacher(backbone: Backbone, model: TunedModel, device: torch.device | str) -> Backbone:
    """Copy the pretrained backbone as a teacher; run teacher and student within `same_rounding`.

    While student and teacher have equal weights, their outputs must agree in every bit: Adam would turn
    rounding errors around a zero gradient into full steps. Torch rounds differently for weights without
    gradient, so the teacher's weights keep theirs.
    """
    teacher, trained = copy_frozen(backbone, device), model.trained_weights()
    for name, parameter in teacher.encoder.named_parameters():
        parameter.requires_grad_(name in trained)
    return teacher


@contextmanager
def same_rounding() -> Iterator[None]:
    """Disable torch's faster attention for gradient-free inference, which rounds differently."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
