"""Which images of a task a step sees, and at what rate it learns: functions of the seed and the step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import datasets
import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from harness.backbones import Preprocessing
from harness.errors import InputError
from harness.sections import Config, FinetuneConfig


class TaskImages(Dataset):
    """Images of a split, preprocessed for one backbone; items are (image [3, height, width], label)."""

    def __init__(self, split: datasets.Dataset, preprocessing: Preprocessing) -> None:
        self._split = split
        self._preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "3 height width"], Shaped[Tensor, "*n_classes"]]:
        item = self._split[int(index)]
        return self._preprocessing([item["image"]])[0], torch.as_tensor(item["label"])


@dataclass(frozen=True)
class BatchPlan(Sampler):
    """Which images a process sees, micro-batch by micro-batch, from any step on: a function of the seed.

    Every epoch is a permutation from (seed, epoch), its last incomplete batch left out; of later tasks of a
    sequence, from (seed, epoch, place). A step's batch is the same whatever the number of processes and the
    accumulation. Steps are counted from the beginning of the task.
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
        """Indices of all images of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        key = (self.seed, epoch, self.place) if self.place else (self.seed, epoch)
        order = np.random.default_rng(key).permutation(self.n_images)
        return order[place * self.batch_size : (place + 1) * self.batch_size]

    def __len__(self) -> int:
        return (self.n_steps - self.start) * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.n_steps):
            own = self.batch(step)[self.process :: self.n_processes]
            yield from (part.tolist() for part in np.split(own, self.accumulation))


def plan_batches(config: Config, n_images: int, process: int, n_processes: int, place: int = 0) -> BatchPlan:
    """Check that the batch can be had and shared out, and plan all steps of one task.

    `place` is that of the task in its sequence, counted from 0.
    """
    settings = config.finetune
    if settings.batch_size > n_images:
        raise InputError(
            f"finetune.batch_size: found {settings.batch_size}, accepted: at most {n_images}, "
            "the training images"
        )
    shares = n_processes * settings.accumulation
    if settings.batch_size % shares:
        raise InputError(
            f"finetune.batch_size: found {settings.batch_size}, accepted: a multiple of {shares}, "
            f"{n_processes} process(es) times accumulation {settings.accumulation}"
        )
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


def plan_sequence(
    config: Config, sizes: Sequence[int], process: int = 0, n_processes: int = 1
) -> list[BatchPlan]:
    """The plan of every task of a run, of which `sizes` are the numbers of training images."""
    return [plan_batches(config, size, process, n_processes, place) for place, size in enumerate(sizes)]


def last_steps(plans: Sequence[BatchPlan]) -> list[int]:
    """Optimizer steps that are done when each task ends; they count on from task to task."""
    return list(accumulate(plan.n_steps for plan in plans))


def load_batches(
    split: datasets.Dataset,
    preprocessing: Preprocessing,
    plan: BatchPlan,
    num_workers: int,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels of a plan, micro-batch by micro-batch."""
    loader = DataLoader(
        TaskImages(split, preprocessing),
        batch_sampler=plan,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
        # workers draw nothing, but without a generator of its own the loader would move torch's
        generator=torch.Generator(),
    )
    return iter(loader)


def learning_rate(settings: FinetuneConfig, step: int, n_steps: int) -> float:
    """Linear warm-up to `lr`, then cosine to zero."""
    warmup = round(settings.warmup_fraction * n_steps)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(n_steps - warmup, 1)))
