"""Tasks by name: to fine-tune on, or as probes of what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.errors import unknown_name

if TYPE_CHECKING:
    from tasks.task import Task
else:
    # importing datasets takes seconds, and who only draws scenes needs no task
    Task = Any

NAMES = ("digits", "shapes", "textures", "counts")


def load_task(
    name: str, n_train: int | None = None, n_test: int | None = None, seed: int = 0, image_size: int = 64
) -> Task:
    """Load a task by name; sizes of None mean all there is.

    Raises
    ------
    InputError
        For a name that does not exist, or more images than there are.
    """
    if name not in NAMES:
        raise unknown_name("task", name, NAMES)
    if name == "digits":
        from tasks import digits

        return digits.build(n_train, n_test, seed, image_size)
    from tasks import shape_tasks

    return shape_tasks.build(name, n_train, n_test, seed, image_size)
