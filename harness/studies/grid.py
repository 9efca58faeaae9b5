"""The grid of a study: every combination of its axes as a configuration."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from harness.config import (
    GROUPS,
    Config,
    OptionFiles,
    group_options,
    load_config,
    locate_option,
    parse_override,
    write_override,
)
from harness.storage import (
    InputError,
    unknown_name,
)


def expand_grid(overrides: list[str]) -> Iterator[tuple[list[str], Config]]:
    """Yield every combination of the study's grid: its overrides and the configuration they resolve to.

    An axis set on the command line is not varied; settings that the grid ties to that value still apply.
    Other settings on the command line override the grid.

    Raises
    ------
    InputError
        If a combination is not a valid configuration, or `study.leave_out` names an unknown value
        or all values.
    """
    files = OptionFiles()
    study = load_config(overrides, files).study
    given = dict(parse_override(text) for text in overrides)
    axes = [
        _choices(axis, values, given) for axis, values in _left_in(study.grid, study.leave_out, given).items()
    ]
    for parts in itertools.product(*axes):
        combination = [*overrides, *itertools.chain.from_iterable(parts)]
        try:
            yield combination, load_config(combination, files)
        except InputError as error:
            raise InputError(f"{error}{_advice(overrides, parts)}") from None


def _advice(overrides: list[str], parts: Iterable[list[str]]) -> str:
    """Name the value of the grid that cannot be resolved, and how to skip it."""
    for part in filter(None, parts):
        try:
            load_config([*overrides, *part])
        except InputError:
            name, value = parse_override(part[0])
            named = name in GROUPS and value in group_options(name)
            file = f"; see {locate_option(name, value)}" if named else ""
            return f"{file}; to skip it: study.leave_out=[{value}]"
    return ""


def _as_text(value: Any) -> str:
    """Write a value as messages and `study.leave_out` have it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _on(axis: str, value: Any) -> Any:
    """Return the part of a value that lies on its axis; a mapping sets other settings with it."""
    return value[axis] if isinstance(value, dict) else value


def _left_in(grid: dict[str, list[Any]], leave_out: list[Any], given: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the grid without the values to leave out."""
    unwanted = {_as_text(value) for value in leave_out}
    known = {_as_text(_on(axis, value)) for axis, values in grid.items() for value in values}
    for text in sorted(unwanted - known):
        raise unknown_name("value of the grid in study.leave_out", text, known)
    left = {
        axis: [value for value in values if _as_text(_on(axis, value)) not in unwanted]
        for axis, values in grid.items()
    }
    for axis, values in left.items():
        if not values and axis not in given:
            raise InputError(
                f"study.leave_out: found all values of {axis}, expected fewer, or {axis}=… set directly"
            )
    return left


def _choices(axis: str, values: list[Any], given: dict[str, Any]) -> list[list[str]]:
    """Return the overrides of every value of an axis, without those that the command line sets."""
    if axis in given:
        values = [value for value in values if _on(axis, value) == given[axis]][:1] or [{}]
    together = [value if isinstance(value, dict) else {axis: value} for value in values]
    return [
        [write_override(name, value) for name, value in settings.items() if name not in given]
        for settings in together
    ]
