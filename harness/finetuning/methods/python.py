"""A method of your own, without a fork: ``method=python method.function=my_lab.methods:build``."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import method as settings
from harness.finetuning.methods.objective import (
    Context,
    Objective,
)
from harness.finetuning.methods.tuned import TunedModel
from harness.storage import (
    InputError,
    content_hash,
    import_function,
)

if TYPE_CHECKING:
    from tasks import Task
else:
    Task = Any

SETTING = "method.function"


def build(model: TunedModel, task: Task, context: Context) -> Objective:
    """Call the user's function for the objective.

    The function is called as ``function(model, task, backbone, device, **arguments)`` and returns an
    `Objective`: `model` is the `TunedModel` with all weights open to training, `backbone` the pretrained one.

    Raises
    ------
    InputError
        If the function cannot be imported, raises, or returns anything else.
    """
    method = context.method
    assert isinstance(method, settings.PythonMethodConfig)
    function = import_function(SETTING, method.function)
    try:
        objective = function(model, task, context.backbone, context.device, **method.arguments)
    except InputError:
        raise
    except Exception as error:
        detail = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise InputError(
            f"{SETTING}: {method.function} raised {detail}; expected an Objective from "
            f"(model, task, backbone, device{''.join(f', {name}' for name in method.arguments)})"
        ) from error
    if not isinstance(objective, Objective):
        raise InputError(
            f"{SETTING}: {method.function} returned {type(objective).__name__}, "
            "expected a harness.finetuning.Objective"
        )
    return objective


def fingerprint(method: settings.PythonMethodConfig) -> dict[str, str]:
    """Hash the source of the module that defines the function."""
    function = import_function(SETTING, method.function)
    module = sys.modules[function.__module__]
    try:
        return {"method function": content_hash(inspect.getsource(module))}
    except (OSError, TypeError):  # a compiled or built-in module
        path = getattr(module, "__file__", None)
        return {"method function": content_hash(Path(path).read_bytes() if path else method.function)}
