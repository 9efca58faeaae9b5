"""Load and check the inputs of a run before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.backbones import (
    Backbone,
    load_backbone,
)
from harness.config import (
    Config,
    probe_tasks,
    tasks_in_order,
)
from harness.runs.subjects import (
    Brains,
    list_subjects,
)
from tasks import (
    Task,
    choose_applicable,
    load_task,
    load_tasks,
)


@dataclass(frozen=True)
class Inputs:
    """Inputs of a run.

    Attributes
    ----------
    tasks : tuple of Task
        Tasks to fine-tune on, in order.
    probes : tuple of Task
        Other tasks, on which retention is measured.
    backbone : Backbone
        As pretrained.
    brains : Brains
        Of the run's subjects.
    """

    tasks: tuple[Task, ...]
    probes: tuple[Task, ...]
    backbone: Backbone
    brains: Brains


def load_inputs(config: Config, folder: Path) -> Inputs:
    """Load the inputs of a configuration; subjects' files lie in `folder`. Brains are loaded on demand.

    Raises
    ------
    InputError
        If an input is missing or broken.
    """
    return Inputs(
        tasks=load_tasks(tasks_in_order(config.task)),
        probes=load_probes(config),
        backbone=load_backbone(config.backbone),
        brains=Brains(list_subjects(config.brain, folder)),
    )


def load_probes(config: Config) -> tuple[Task, ...]:
    """Load the probe tasks of a run. A task that is fine-tuned on is none: its changes are learning.

    Where a task's own settings say nothing of sizes, those of `probes` hold, or all that the task has.
    """
    found = []
    for task in probe_tasks(config):
        settings = task.model_dump()
        settings["n_test"] = settings["n_test"] or config.probes.n_test
        if settings["n_per_class"] is None:
            settings["n_train"] = settings["n_train"] or config.probes.n_train
        shared = choose_applicable(config.probes.shifts, task)
        settings["shifts"] = tuple(dict.fromkeys([*task.shifts, *shared]))
        found.append(load_task(**(settings | {"seed": config.seed}), at_most=True))
    return tuple(found)
