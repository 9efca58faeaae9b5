"""Build the objective of any method."""

from __future__ import annotations

from accelerate import Accelerator

from harness.backbones import Backbone
from harness.config import Config
from harness.finetuning.methods.objective import (
    Context,
    Objective,
)
from harness.finetuning.methods.records import METHODS
from harness.finetuning.methods.tuned import TunedModel
from harness.storage import InputError
from tasks import Task


def build_objective(
    config: Config, model: TunedModel, task: Task, backbone: Backbone, accelerator: Accelerator
) -> Objective:
    """Build the objective of the run's method.

    Parameters
    ----------
    config : Config
    model : TunedModel
    task : Task
        The first task to fine-tune on.
    backbone : Backbone
        As pretrained.
    accelerator : Accelerator
        Its device holds teachers and starting points.

    Raises
    ------
    InputError
        For settings that do not go together, layers that do not exist, or a proxy that cannot be loaded.
    """
    method = METHODS[config.method.name]
    if config.finetune.accumulation > 1 and not method.accumulates:
        raise InputError(
            f"finetune.accumulation: found {config.finetune.accumulation}, expected 1: "
            f"method {method.name} contrasts the images of a whole batch"
        )
    context = Context(
        backbone,
        config.method,
        config.seed,
        accelerator.device,
        accelerator.process_index,
        accelerator.num_processes,
    )
    objective: Objective = method.load("objective")(model, task, context)
    return objective
