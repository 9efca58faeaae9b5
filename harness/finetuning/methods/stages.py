"""Training stages: steps that have an optimizer, a warm-up and a cosine of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainingStage:
    """Steps from `start` to before `stop` with an optimizer of their own.

    Attributes
    ----------
    start, stop : int
    lr_factor : float
        Multiplies ``finetune.lr``, which warms up and decays within the stage.
    head_only : bool
        Whether only the head is trained, whatever the method trains.
    place : int
        Index of the task in the run's sequence, from 0.
    """

    start: int
    stop: int
    lr_factor: float = 1.0
    head_only: bool = False
    place: int = 0

    @property
    def n_steps(self) -> int:
        """Number of optimizer steps."""
        return self.stop - self.start


def one_stage(method: Any, lr: float, n_steps: int) -> list[TrainingStage]:
    """Train in a single stage, as most methods do."""
    return [TrainingStage(0, n_steps)]
