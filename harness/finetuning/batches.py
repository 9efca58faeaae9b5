"""Batches of a task's images, as a function of the seed and the step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import datasets
import joblib
import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from harness.backbones import Preprocessing
from harness.config import (
    Config,
    FinetuneConfig,
    tasks_in_order,
)
from harness.storage import InputError

MOST_WORKERS = 8


class TaskImages(Dataset):
    """A split's images, preprocessed for a backbone; items are (image [3, height, width], label)."""

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


def load_batches(
    split: datasets.Dataset,
    preprocessing: Preprocessing,
    plan: BatchPlan,
    settings: FinetuneConfig,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Load a plan's images and labels, micro-batch by micro-batch, on the device and in the memory format.

    With a GPU, worker processes prepare them, and they are copied while the previous step runs.
    """
    loader = DataLoader(
        TaskImages(split, preprocessing),
        batch_sampler=plan,
        num_workers=count_workers(settings.num_workers, device, plan.n_processes),
        pin_memory=device.type == "cuda",
        # workers draw nothing, but without its own generator the loader would advance torch's
        generator=torch.Generator(),
    )
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    for images, labels in loader:
        yield (
            images.to(device, non_blocking=True, memory_format=layout),
            labels.to(device, non_blocking=True),
        )


def count_workers(wanted: int | None, device: torch.device, n_processes: int) -> int:
    """Choose the number of image-loading workers for one of `n_processes`; `wanted` overrides if not None.

    With a GPU, the default is this process's share of the cores less one, and at most `MOST_WORKERS`. On a
    CPU it is 0, because workers would compete with training for cores.
    """
    if wanted is not None or device.type == "cpu":
        return wanted or 0
    return min(MOST_WORKERS, max(1, joblib.cpu_count() // n_processes - 1))
