"""Heads that start elsewhere than at zero: from class texts, or from a linear probe (Mukhoti et al. 2024).

Both are made from the pretrained backbone at step 0, in a sequence for every task. A zero-shot head takes
features of unit length, as CLIP does, in training too. A linear probe takes the features as they are; it is
fitted on features divided by their mean length, and the division is then part of its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness.backbones import Backbone
from harness.config import MethodConfig
from harness.finetuning.methods.objective import copy_frozen
from harness.finetuning.methods.old_head import (
    BATCH,
    fit_probe,
)
from harness.finetuning.methods.tuned import TunedModel
from harness.storage import InputError
from harness.tokens import extract_features

if TYPE_CHECKING:
    from tasks import Task
else:
    # datasets takes seconds to import
    Task = Any


def start_heads(
    model: TunedModel,
    method: MethodConfig,
    backbone: Backbone,
    tasks: Sequence[Task],
    device: torch.device | str,
) -> None:
    """Set all heads as ``method.head`` says; nothing for heads of zeros.

    Parameters
    ----------
    model : TunedModel
        With a head for every task.
    method : MethodConfig
    backbone : Backbone
        As pretrained.
    tasks : sequence of Task
        In order.
    device : torch.device or str
        Computes the features that a linear probe is fitted on.

    Raises
    ------
    InputError
        For zero-shot heads without a text tower or prompt templates.
    """
    kind = getattr(method, "head", "zero")
    if kind == "zero":
        return
    frozen = copy_frozen(backbone, device) if kind == "linear_probe" else backbone
    for head, task in zip(model.heads, tasks, strict=True):
        made = make_zero_shot(backbone, task) if kind == "zero_shot" else make_probe(frozen, task, device)
        with torch.no_grad():
            head.weight.copy_(made[0])
            head.bias.copy_(made[1])


def make_zero_shot(
    backbone: Backbone, task: Task
) -> tuple[Float[Tensor, "n_classes n_channels"], Float[Tensor, " n_classes"]]:
    """Make a head from a task's class names and templates, times the logit scale; its bias is 0."""
    if backbone.text is None:
        raise InputError(
            "method.head: found zero_shot with a backbone without a text tower, expected a contrastive one, "
            "such as backbone=mini_clip (with backbone.text=true)"
        )
    if not task.templates:
        raise InputError(f"method.head: found zero_shot with task {task.name}, which has no prompt templates")
    weight = backbone.text.logit_scale * backbone.text.embed_classes(task.class_names, task.templates)
    return weight, torch.zeros(len(weight))


def make_probe(
    backbone: Backbone, task: Task, device: torch.device | str
) -> tuple[Float[Tensor, "n_classes n_channels"], Float[Tensor, " n_classes"]]:
    """Fit a linear probe on a frozen backbone's features of a task's training images."""
    labels = torch.tensor(task.train["label"][:], device=device)
    features = extract_features(backbone, task.train["image"], BATCH, device).to(device)
    length = features.norm(dim=1).mean()
    weight, bias = fit_probe(features / length, labels.long(), task.n_classes)
    return weight / length, bias
