"""When parameters are trained, and at what learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]

from harness.config import (
    FinetuneConfig,
    MethodConfig,
)
from harness.finetuning.methods.records import METHODS
from harness.finetuning.methods.stages import TrainingStage
from harness.finetuning.methods.tuned import TunedModel


def plan_stages(method: MethodConfig, lr: float, n_steps: int) -> list[TrainingStage]:
    """Plan the stages of one task: a single one unless the method has more.

    Parameters
    ----------
    method : MethodConfig
    lr : float
        ``finetune.lr``, which stages with a learning rate of their own are relative to.
    n_steps : int
        Of all stages together.
    """
    stages: list[TrainingStage] = METHODS[method.name].load("stages")(method, lr, n_steps)
    return stages


def chain_stages(method: MethodConfig, lr: float, n_steps: Sequence[int]) -> list[TrainingStage]:
    """Plan the stages of all tasks of a run, one after the other; `n_steps` has each task's steps."""
    chained: list[TrainingStage] = []
    for place, n_own in enumerate(n_steps):
        before = chained[-1].stop if chained else 0
        chained += [
            replace(stage, start=before + stage.start, stop=before + stage.stop, place=place)
            for stage in plan_stages(method, lr, n_own)
        ]
    return chained


def group_parameters(model: TunedModel, method: MethodConfig, weight_decay: float) -> list[dict[str, Any]]:
    """Group the trained parameters for a torch optimizer.

    With `method.layer_decay`, each group has an ``lr_scale`` of layer_decay^depth, where depth counts down
    from the head (0) through the blocks to the stem (Bao et al. 2022, as in timm).
    """
    layer_decay = getattr(method, "layer_decay", 1.0)
    if layer_decay < 1:
        groups: list[dict[str, Any]] = param_groups_layer_decay(
            model, weight_decay, weight_decay_exclude_1d=False, layer_decay=layer_decay
        )
        return groups
    return [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]


def learning_rate(settings: FinetuneConfig, step: int, n_steps: int) -> float:
    """Return a step's learning rate: linear warm-up to `lr`, then cosine to zero."""
    warmup = round(settings.warmup_fraction * n_steps)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(n_steps - warmup, 1)))
