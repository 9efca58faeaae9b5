"""Tasks by name: to fine-tune on, or as probes of what is kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from harness.errors import unknown_name
from tasks import digits, shape_tasks
from tasks.task import Task

__all__ = ["BUILDERS", "Task", "load_task"]

BUILDERS: dict[str, Callable[..., Task]] = {
    "digits": digits.build,
    "shapes": partial(shape_tasks.build, "shapes"),
    "textures": partial(shape_tasks.build, "textures"),
    "counts": partial(shape_tasks.build, "counts"),
}


def load_task(
    name: str, n_train: int | None = None, n_test: int | None = None, seed: int = 0, image_size: int = 64
) -> Task:
    """Load a task by name; sizes of None mean all there is.

    Raises
    ------
    InputError
        For a name that does not exist, or more images than there are.
    """
    if name not in BUILDERS:
        raise unknown_name("task", name, BUILDERS)
    return BUILDERS[name](n_train=n_train, n_test=n_test, seed=seed, image_size=image_size)
