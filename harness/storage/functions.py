"""A user's own functions, imported from the working directory or an installed package."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from harness.storage.errors import (
    InputError,
    unknown_name,
)

Result = TypeVar("Result")


def import_function(setting: str, reference: str) -> Callable[..., Any]:
    """Import a function by reference.

    The working directory goes to the end of the path, so its modules shadow nothing.

    Parameters
    ----------
    setting : str
        Named in errors, such as ``brain.function``.
    reference : str
        ``package.module:function``.

    Raises
    ------
    InputError
        If the reference is malformed, the module cannot be imported, or it has no such function.

    Examples
    --------
    >>> import_function("brain.function", "json:loads")("[1]")
    [1]
    """
    module_name, colon, name = reference.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module_name.split("."), name)):
        raise InputError(f"{setting}: found {reference!r}, expected package.module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
        importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(f"{setting}: {module_name} cannot be imported ({_describe(error)})") from error
        raise InputError(
            f"{setting}: found no module {error.name}, expected one in {here} or an installed package"
        ) from None
    except Exception as error:
        raise InputError(f"{setting}: {module_name} cannot be imported ({_describe(error)})") from error
    function = getattr(module, name, None)
    if function is None:
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise InputError(f"{setting}: {unknown_name(f'function of {module_name}', name, functions)}")
    if not callable(function):
        raise InputError(f"{setting}: {reference} is of type {type(function).__name__}, expected a function")
    return function


def call_function(
    setting: str, reference: str, arguments: Mapping[str, Any], expected: type[Result]
) -> Result:
    """Import a function, call it by keyword, and check the type of what it returns.

    Parameters
    ----------
    setting : str
        The section of settings, such as ``brain``; errors name its ``function`` or ``arguments``.
    reference : str
        ``package.module:function``.
    arguments : mapping
    expected : type

    Raises
    ------
    InputError
        As `import_function`; if the arguments do not fit, the function raises, or it returns another type.
    """
    function = import_function(f"{setting}.function", reference)
    try:
        signature = inspect.signature(function)
        signature.bind(**arguments)
    except TypeError as error:
        raise InputError(
            f"{setting}.arguments: found {', '.join(arguments) or 'none'}, "
            f"expected those of {reference}{signature} ({error})"
        ) from None
    except ValueError:
        pass  # a builtin without a signature
    kind = expected.__name__
    try:
        found = function(**arguments)
    except InputError as error:
        raise InputError(f"{setting}.function: {reference}: {error}") from error
    except Exception as error:
        raise InputError(
            f"{setting}.function: {reference} raised {_describe(error)}; expected: it returns a {kind}"
        ) from error
    if not isinstance(found, expected):
        raise InputError(
            f"{setting}.function: {reference} returned a {type(found).__name__}, expected a {kind}"
        )
    return found


def _describe(error: Exception) -> str:
    """An error in one line, with the last line of code that is neither ours nor the import system's."""
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith("<")
    ]
    libraries = ("site-packages", "importlib")
    own = [frame for frame in frames if not any(part in frame.filename for part in libraries)]
    place = f", {Path(own[-1].filename).name} line {own[-1].lineno}" if own else ""
    return text + place
