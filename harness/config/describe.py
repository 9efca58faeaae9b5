"""Settings in words: name, default, description."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic.fields import FieldInfo

from harness.config.base import Section
from harness.config.run import Config


@dataclass(frozen=True)
class Setting:
    """A setting as help texts show it.

    Attributes
    ----------
    name : str
        Dotted, such as "finetune.lr".
    default : str or None
        As an override gives it; None: no default, or one that depends on the option.
    description : str
        Of what it sets, with unit and range where they are stated.
    """

    name: str
    default: str | None
    description: str


def describe_settings(prefix: str = "") -> list[Setting]:
    """Describe every setting whose dotted name starts with `prefix`, whichever options are chosen."""
    found: dict[str, Setting] = {}
    for setting in _walk(Config, ""):
        # options of a group share settings; the first one that describes it counts
        known = found.get(setting.name)
        if known is None or not known.description:
            found[setting.name] = setting
    return [setting for name, setting in found.items() if name.startswith(prefix)]


def _walk(section: type[Section], prefix: str) -> Iterator[Setting]:
    for name, field in section.model_fields.items():
        inner = [option for option in _options(field.annotation) if issubclass(option, Section)]
        for option in inner:
            yield from _walk(option, f"{prefix}{name}.")
        if not inner:
            yield Setting(prefix + name, _default(field), _description(field))


def _options(annotation: Any) -> list[type]:
    return [option for option in get_args(annotation) or (annotation,) if isinstance(option, type)]


def _default(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True)
    return value if isinstance(value, str) else json.dumps(value)


def _description(field: FieldInfo) -> str:
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    bounds = [
        f"{word} {getattr(rule, name)}"
        for rule in field.metadata
        for name, word in words.items()
        if hasattr(rule, name) and (name, getattr(rule, name)) != ("lt", 2**31)
    ]
    choices = get_args(field.annotation) if str(field.annotation).startswith("typing.Literal") else ()
    if choices:
        bounds = [" or ".join(map(str, choices))]
    return "; ".join(filter(None, [field.description or "", ", ".join(bounds)]))
