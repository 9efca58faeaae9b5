"""Which parameters are trained when, and how fast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]

from harness.config import (
    AllWeightsConfig,
    FinetuneConfig,
    LpFtConfig,
    MethodConfig,
)
from harness.finetuning.methods.tuned import TunedModel


@dataclass(frozen=True)
class Stage:
    """Steps from `start` to before `stop` with an optimizer of their own.

    Attributes
    ----------
    start, stop : int
    lr_factor : float
        Of the learning rate, which warms up and falls within the stage.
    head_only : bool
        Whether only the head is trained, whatever the method trains.
    place : int
        Of its task in the run's sequence, counted from 0.
    """

    start: int
    stop: int
    lr_factor: float = 1.0
    head_only: bool = False
    place: int = 0

    @property
    def n_steps(self) -> int:
        """Optimizer steps in it."""
        return self.stop - self.start


def plan_stages(method: MethodConfig, lr: float, n_steps: int) -> list[Stage]:
    """The stages of a method: one, but for LP-FT (Kumar et al. 2022), whose probe comes first.

    Parameters
    ----------
    method : MethodConfig
    lr : float
        ``finetune.lr``, to which LP-FT's own rates are put in relation.
    n_steps : int
        Of all stages.
    """
    if not isinstance(method, LpFtConfig):
        return [Stage(0, n_steps)]
    n_probe = max(1, min(round(method.probe_share * n_steps), n_steps - 1))
    return [
        Stage(0, n_probe, method.probe_lr / lr, head_only=True),
        Stage(n_probe, n_steps, method.lr_factor),
    ]


def chain_stages(method: MethodConfig, lr: float, n_steps: Sequence[int]) -> list[Stage]:
    """The stages of all tasks of a run, one task after the other; `n_steps` are those of each task."""
    chained: list[Stage] = []
    for place, n_own in enumerate(n_steps):
        before = chained[-1].stop if chained else 0
        chained += [
            replace(stage, start=before + stage.start, stop=before + stage.stop, place=place)
            for stage in plan_stages(method, lr, n_own)
        ]
    return chained


def group_parameters(model: TunedModel, method: MethodConfig, weight_decay: float) -> list[dict[str, Any]]:
    """Trained parameters, as a torch optimizer takes them.

    With `method.layer_decay`, each group has an ``lr_scale``: layer_decay^(steps down from the head), where
    the head is on top, then come the blocks, and the stem is the lowest (Bao et al. 2022, as in timm).
    """
    if isinstance(method, AllWeightsConfig) and method.layer_decay < 1:
        groups: list[dict[str, Any]] = param_groups_layer_decay(
            model, weight_decay, weight_decay_exclude_1d=False, layer_decay=method.layer_decay
        )
        return groups
    return [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]


def learning_rate(settings: FinetuneConfig, step: int, n_steps: int) -> float:
    """Linear warm-up to `lr`, then cosine to zero."""
    warmup = round(settings.warmup_fraction * n_steps)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(n_steps - warmup, 1)))
