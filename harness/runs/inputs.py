"""What a run is made from, loaded and checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.backbones import (
    Backbone,
    load_backbone,
)
from harness.config import (
    Config,
    load_config,
    tasks_in_order,
)
from harness.runs.subjects import (
    Brains,
    list_subjects,
)
from tasks import (
    Task,
    load_task,
)


@dataclass(frozen=True)
class Inputs:
    """What a run is made from.

    Attributes
    ----------
    tasks : tuple of Task
        Those that are fine-tuned on, in order.
    probes : tuple of Task
        Others, on which retention is measured.
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
    """Load what a configuration names; subjects' files lie in `folder`. Brains are loaded when asked for.

    Raises
    ------
    InputError
        If something is not there or not as it should be.
    """
    return Inputs(
        tasks=tuple(load_task(**one.model_dump()) for one in tasks_in_order(config.task)),
        probes=load_probes(config),
        backbone=load_backbone(config.backbone),
        brains=Brains(list_subjects(config.brain, folder)),
    )


def load_probes(config: Config) -> tuple[Task, ...]:
    """The probes of a run; a task that is fine-tuned on is none: what changes there is learning.

    A name is that of a file in ``configs/task``. Where that says nothing of sizes, they are those of
    `probes`, or all that a task has.
    """
    found = []
    trained = {task.name for task in tasks_in_order(config.task)}
    for name in config.probes.tasks:
        if name in trained:
            continue
        settings = load_config([f"task={name}"]).task.model_dump()
        settings["n_test"] = settings["n_test"] or config.probes.n_test
        if settings["n_per_class"] is None:
            settings["n_train"] = settings["n_train"] or config.probes.n_train
        found.append(load_task(**(settings | {"name": name, "seed": config.seed}), at_most=True))
    return tuple(found)
