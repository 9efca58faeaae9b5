"""Which images of a task a step sees, as a function of the seed and the step.

Plans of studies count steps by this, so nothing here needs torch, which takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
from jaxtyping import Int

from harness.config import (
    Config,
    FinetuneConfig,
    tasks_in_order,
)
from harness.storage import InputError


@dataclass(frozen=True)
class BatchPlan:
    """The images of a process's micro-batches from any step on, as a function of the seed.

    Every epoch is a permutation seeded by (seed, epoch), or (seed, epoch, place) for later tasks of a
    sequence, without its last incomplete batch. A step's batch does not depend on the number of processes or
    on accumulation. Steps count from the start of the task.
    """

    n_images: int
    batch_size: int
    accumulation: int
    process: int
    n_processes: int
    seed: int
    n_steps: int
    start: int = 0
    place: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self.n_images // self.batch_size

    def batch(self, step: int) -> Int[np.ndarray, " batch_size"]:
        """Return the indices of all images of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        key = (self.seed, epoch, self.place) if self.place else (self.seed, epoch)
        return _permute(key, self.n_images)[place * self.batch_size : (place + 1) * self.batch_size]

    def __len__(self) -> int:
        return (self.n_steps - self.start) * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.n_steps):
            own = self.batch(step)[self.process :: self.n_processes]
            yield from (part.tolist() for part in np.split(own, self.accumulation))


@lru_cache(maxsize=1)  # the current epoch
def _permute(key: tuple[int, ...], n_images: int) -> Int[np.ndarray, " n_images"]:
    return np.random.default_rng(key).permutation(n_images)


def plan_batches(config: Config, n_images: int, process: int, n_processes: int, place: int = 0) -> BatchPlan:
    """Plan all steps of one task, and check that batches can be filled and divided.

    `place` is the task's index in its sequence, from 0.
    """
    settings = config.finetune
    if settings.batch_size > n_images:
        raise InputError(
            f"finetune.batch_size: found {settings.batch_size}, expected at most {n_images}, "
            f"the training images of task {tasks_in_order(config.task)[place].name!r}"
        )
    check_division(settings, n_processes)
    n_steps = settings.epochs * (n_images // settings.batch_size)
    return BatchPlan(
        n_images,
        settings.batch_size,
        settings.accumulation,
        process,
        n_processes,
        config.seed,
        min(n_steps, settings.max_steps or n_steps),
        place=place,
    )


def check_division(settings: FinetuneConfig, n_processes: int) -> None:
    """Raise an `InputError` if a batch cannot be divided among processes and their parts of a step."""
    shares = n_processes * settings.accumulation
    if settings.batch_size % shares:
        raise InputError(
            f"finetune.batch_size: found {settings.batch_size}, expected a multiple of {shares}, "
            f"{n_processes} process(es) times accumulation {settings.accumulation}"
        )


def plan_sequence(
    config: Config, sizes: Sequence[int], process: int = 0, n_processes: int = 1
) -> list[BatchPlan]:
    """Plan every task of a run; `sizes` has each task's number of training images."""
    return [plan_batches(config, size, process, n_processes, place) for place, size in enumerate(sizes)]


def last_steps(plans: Sequence[BatchPlan]) -> list[int]:
    """Return the steps done at the end of each task; steps count on from task to task."""
    return list(accumulate(plan.n_steps for plan in plans))
