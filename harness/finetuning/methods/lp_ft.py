"""LP-FT: a linear probe first, then all weights, starting from it (Kumar et al. 2022)."""

from __future__ import annotations

from harness.config import method as settings
from harness.finetuning.methods.stages import TrainingStage


def plan_stages(method: settings.LpFtConfig, lr: float, n_steps: int) -> list[TrainingStage]:
    """Plan the probe's stage and that of all weights."""
    n_probe = max(1, min(round(method.probe_share * n_steps), n_steps - 1))
    return [
        TrainingStage(0, n_probe, method.probe_lr / lr, head_only=True),
        TrainingStage(n_probe, n_steps, method.lr_factor),
    ]
