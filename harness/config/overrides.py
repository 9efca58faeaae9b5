"""Overrides of a configuration: names of settings, and values in Hydra's grammar or as plain text."""

from __future__ import annotations

import copy
import functools
import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from pydantic.fields import FieldInfo

from harness.config.base import Section
from harness.config.folders import (
    GROUPS,
    group_options,
)
from harness.config.run import Config
from harness.storage import (
    InputError,
    unknown_name,
)


class Override(NamedTuple):
    """A setting or group, and the value that it gets."""

    name: str
    value: Any


@functools.cache
def settings() -> frozenset[str]:
    """Return the dotted names of all sections and settings, whichever options are chosen."""
    return frozenset(name for name, _ in _walk(Config, ""))


def _walk(section: type[Section], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        yield prefix + name, field
        for option in get_args(field.annotation) or (field.annotation,):
            if isinstance(option, type) and issubclass(option, Section):
                yield from _walk(option, f"{prefix}{name}.")


@functools.cache
def text_settings() -> frozenset[str]:
    """Names of the settings that are text in every option: paths, names, columns."""
    found: dict[str, bool] = {}
    for name, field in _walk(Config, ""):
        found[name] = found.get(name, True) and _is_text(field.annotation)
    return frozenset(name for name, text in found.items() if text)


def _is_text(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _is_text(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return all(_is_text(part) for part in get_args(annotation) if part is not types.NoneType)
    return annotation is str


def parse_override(text: str) -> Override:
    """Parse one override; it sets a value of a setting or chooses an existing option.

    The value of a setting that is text, such as a path, is what follows ``=``, with every character. As in
    Hydra, ``null`` stands for none, ``[…]`` for a list, and ``${…}`` is an interpolation; quotes around it
    and backslashes before special characters are taken off.

    Raises
    ------
    InputError
        If the override is malformed, or there is no such setting or option.
    """
    name, option = override = _parse(text)
    if name.partition(".")[0] not in Config.model_fields:
        raise unknown_setting(name)
    several = name == "task" and isinstance(option, list)
    if name in GROUPS and not several and str(option) not in group_options(name):
        raise unknown_name(name, str(option), group_options(name))
    return override


def write_override(name: str, value: Any) -> str:
    """Write an override that `parse_override` reads as this value."""
    if isinstance(value, str):
        bare = f"{name}={value}"
        try:
            if _parse(bare).value == value:
                return bare
        except InputError:
            pass
    return f"{name}={_write(value)}"


def _write(value: Any) -> str:
    if isinstance(value, str):
        return QuotedString(text=value, quote=Quote.double).with_quotes()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_write, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _parse(text: str) -> Override:
    name, value = _parse_once(text)
    return Override(name, copy.deepcopy(value))


@functools.lru_cache(maxsize=1024)
def _parse_once(text: str) -> Override:
    """Parse; Hydra takes milliseconds, and the runs of a study share most of their overrides."""
    key, equals, value = text.partition("=")
    name = key.lstrip("+")
    is_text = bool(equals) and name in text_settings()
    # what is a list or a mapping in a place of text is a mistake, which is named later
    if is_text and value.lower() != "null" and value[:1] not in ("'", '"', "[", "{") and "\\" not in value:
        return Override(name, value)
    hint = "; for a sequence of tasks: task=[digits,textures]" if text.startswith("task=") else ""
    if "=" in value:
        hint = f"""; quote a value that contains =, twice in a shell: '{key}="{value}"'"""
    malformed = InputError(f"override {text!r}: expected key=value, such as finetune.lr=1e-4{hint}")
    # arguments of a user's function may be text, which only the function knows
    may_be_text = is_text or (equals and ".arguments." in name)
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        if may_be_text:
            return Override(name, value)
        raise malformed from None
    if may_be_text and override.is_sweep_override():
        return Override(name, value)
    group = override.key_or_group
    if not group or override.is_delete() or override.is_sweep_override() or override.package is not None:
        raise malformed
    found = override.value()
    return Override(group, value if is_text and isinstance(found, int | float) else found)


def unknown_setting(setting: str) -> InputError:
    """Build the error for a setting that does not exist, or not in the chosen option."""
    known = settings()
    parent, _, leaf = setting.rpartition(".")
    if setting in known:
        return InputError(f"{setting}: not a setting of the chosen {parent}")
    elsewhere = {name for name in known if name.endswith(f".{leaf}")}
    siblings = {name for name in known if name.rpartition(".")[0] == parent}
    return unknown_name("setting", setting, elsewhere or siblings or known)
