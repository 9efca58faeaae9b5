"""Load tasks to fine-tune on or to probe with: built-in ones by name, others by source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.config import (
    EmbeddedTaskConfig,
    HubTaskConfig,
    ImagefolderTaskConfig,
    ImagenetTaskConfig,
    MedmnistTaskConfig,
    PythonTaskConfig,
    TableTaskConfig,
    TaskConfig,
)
from harness.storage import (
    InputError,
    unknown_name,
)
from tasks.shift import find_shifts

if TYPE_CHECKING:
    from tasks.task import Task
else:
    # datasets takes seconds to import, and drawing scenes does not need it
    Task = Any

NAMES = ("digits", "shapes", "textures", "counts")
_SECTIONS = (
    EmbeddedTaskConfig,
    ImagefolderTaskConfig,
    TableTaskConfig,
    HubTaskConfig,
    MedmnistTaskConfig,
    ImagenetTaskConfig,
    PythonTaskConfig,
)
SOURCES: dict[str, type[TaskConfig]] = {
    section.model_fields["source"].default: section for section in _SECTIONS
}


def load_task(
    name: str,
    n_train: int | None = None,
    n_test: int | None = None,
    seed: int = 0,
    image_size: int | None = None,
    *,
    source: str = "embedded",
    at_most: bool = False,
    **settings: Any,
) -> Task:
    """Load a task; arguments are settings of `harness.config.TaskConfig`, with its defaults.

    Parameters
    ----------
    name : str
        Name of a built-in task; for other sources, its name in results.
    n_train, n_test : int or None
        Images of each split; None: all.
    seed : int
        Of the draw of images and of the split.
    image_size : int or None
        Built-in tasks only.
    source : str
        "embedded", "imagefolder", "table", "hub", "medmnist", "imagenet" or "python".
    at_most : bool
        Whether sizes above what is available take all, instead of an error.
    **settings
        Further settings of the source.

    Raises
    ------
    InputError
        For an unknown name, more images than there are, or missing or broken data.
    """
    if source not in SOURCES:
        raise unknown_name("source of tasks", source, SOURCES)
    if image_size is not None:
        settings["image_size"] = image_size
    config = SOURCES[source](name=name, n_train=n_train, n_test=n_test, seed=seed, **settings)
    if config.classes_per_stage is not None:
        raise InputError(
            f"task.classes_per_stage: found {config.classes_per_stage} with the single task {name}, expected "
            "in the configuration of a run, where it makes a sequence"
        )
    if config.part is not None:
        from tasks.class_stages import take_classes

        return take_classes(_build(_whole(config), at_most), name, config.part)
    task = _build(config, at_most)
    shifts, corruptions = find_shifts(task, config)
    if not shifts and not corruptions:
        return task
    # those of ImageNet's variants are there already
    return replace(task, shifts=(*task.shifts, *shifts), corruptions=corruptions)


def load_tasks(configs: Sequence[TaskConfig]) -> tuple[Task, ...]:
    """Load the tasks of a run in order; the whole of which several are stages is loaded once."""
    wholes: dict[str, Task] = {}
    found = []
    for config in configs:
        if config.part is None:
            found.append(load_task(**config.model_dump()))
            continue
        from tasks.class_stages import take_classes

        whole = _whole(config)
        key = whole.model_dump_json()
        if key not in wholes:
            wholes[key] = load_task(**whole.model_dump())
        found.append(take_classes(wholes[key], config.name, config.part))
    return tuple(found)


def _whole(stage: TaskConfig) -> TaskConfig:
    """Return the settings of the task that a stage is a part of."""
    assert stage.part is not None
    return stage.model_copy(update={"name": stage.part.of, "part": None})


def _build(config: TaskConfig, at_most: bool) -> Task:
    # imported here: nobody waits for the libraries of another source
    match config:
        case ImagefolderTaskConfig():
            from tasks import imagefolder

            return imagefolder.build(config, at_most)
        case TableTaskConfig():
            from tasks import table

            return table.build(config, at_most)
        case HubTaskConfig():
            from tasks import hub

            return hub.build(config, at_most)
        case MedmnistTaskConfig():
            from tasks import medmnist

            return medmnist.build(config, at_most)
        case ImagenetTaskConfig():
            from tasks import imagenet

            return imagenet.build(config, at_most)
        case PythonTaskConfig():
            from tasks import python_task

            return python_task.build(config, at_most)
    if config.name not in NAMES:
        raise unknown_name("task", config.name, NAMES)
    if config.name == "digits":
        from tasks import digits

        return digits.build(config, at_most)
    from tasks import shape_tasks

    return shape_tasks.build(config)
