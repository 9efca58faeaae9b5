"""Batches of a task's images, loaded as planned."""

from __future__ import annotations

from collections.abc import Iterator

import datasets
import joblib
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.backbones import Preprocessing
from harness.config import FinetuneConfig
from harness.finetuning.batch_plans import BatchPlan

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
