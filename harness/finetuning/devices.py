"""The device of a process."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from harness.config import FinetuneConfig
from harness.finetuning.allocator import keep_freed_memory
from harness.finetuning.launched import (
    LONGEST_WORK,
    join_launch,
    use_given_cores,
)
from harness.storage import InputError


def build_accelerator(settings: FinetuneConfig) -> Accelerator:
    """Build this process's accelerator, with its threads, once all processes of its launch are there.

    It also makes the process keep freed memory (`harness.finetuning.allocator`).

    Raises
    ------
    InputError
        For a precision that the device lacks, or a launch that is not complete.
    """
    cuda = torch.cuda.is_available()
    if settings.precision == "fp16" and not cuda:
        raise InputError("finetune.precision: found 'fp16' without a GPU, expected 'no' or 'bf16'")
    join_launch()
    use_given_cores()
    keep_freed_memory()
    return Accelerator(
        cpu=not cuda,
        mixed_precision=settings.precision,
        gradient_accumulation_steps=settings.accumulation,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WORK)],
    )
