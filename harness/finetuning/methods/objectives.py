"""Build the objective of any method."""

from __future__ import annotations

from collections.abc import Sequence

from accelerate import Accelerator

from harness.backbones import Backbone
from harness.config import Config
from harness.finetuning.methods.objective import (
    Context,
    Objective,
    StartMappings,
)
from harness.finetuning.methods.records import (
    METHODS,
    check_tasks,
)
from harness.finetuning.methods.tuned import TunedModel
from harness.storage import InputError
from tasks import Task


def build_objective(
    config: Config,
    model: TunedModel,
    tasks: Sequence[Task],
    backbone: Backbone,
    accelerator: Accelerator,
    start: StartMappings | None = None,
) -> Objective:
    """Build the objective of the run's method.

    Parameters
    ----------
    config : Config
    model : TunedModel
    tasks : sequence of Task
        Tasks to fine-tune on, in order.
    backbone : Backbone
        As pretrained.
    accelerator : Accelerator
        Its device holds teachers and starting points.
    start : StartMappings, optional
        For methods that anchor at the brain.

    Raises
    ------
    InputError
        For settings that do not go together, layers that do not exist, or a proxy that cannot be loaded.
    """
    method = METHODS[config.method.name]
    check_tasks(config.method, [task.name for task in tasks])
    if config.finetune.accumulation > 1 and not method.accumulates:
        raise InputError(
            f"finetune.accumulation: found {config.finetune.accumulation}, expected 1: "
            f"method {method.name} contrasts the images of a whole batch"
        )
    if config.finetune.label_smoothing and method.needs_texts:
        raise InputError(
            f"finetune.label_smoothing: found {config.finetune.label_smoothing}, expected 0: method "
            f"{method.name} has no labels to smooth"
        )
    context = Context(
        backbone,
        config.method,
        config.seed,
        accelerator.device,
        accelerator.process_index,
        accelerator.num_processes,
        tasks,
        config.finetune.batch_size // (config.finetune.accumulation * accelerator.num_processes),
        start,
    )
    objective: Objective = method.load("objective")(model, tasks[0], context)
    objective.smoothing = config.finetune.label_smoothing
    return objective
