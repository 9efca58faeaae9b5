"""Processes and devices of a run."""

from __future__ import annotations

import os
from datetime import timedelta

import joblib
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from harness.config import FinetuneConfig
from harness.finetuning.allocator import keep_freed_memory
from harness.storage import InputError


def use_all_cores() -> None:
    """Give torch this process's share of the cores that a job scheduler or container lets it use.

    `accelerate launch` sets one thread per process when it starts several.
    """
    torch.set_num_threads(max(1, joblib.cpu_count() // int(os.environ.get("WORLD_SIZE", "1"))))


def build_accelerator(settings: FinetuneConfig) -> Accelerator:
    """Build this process's accelerator; an `InputError` for a precision that its device lacks.

    It also makes the process keep freed memory (`harness.finetuning.allocator`).
    """
    keep_freed_memory()
    cuda = torch.cuda.is_available()
    if settings.precision == "fp16" and not cuda:
        raise InputError("finetune.precision: found 'fp16' without a GPU, expected 'no' or 'bf16'")
    return Accelerator(
        cpu=not cuda,
        mixed_precision=settings.precision,
        gradient_accumulation_steps=settings.accumulation,
        # processes wait for each other while one fits mappings
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=12))],
    )
