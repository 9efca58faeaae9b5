"""The base of all settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

LONGEST_NAME = 60
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=LONGEST_NAME)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


LATER: JsonDict = {"later": True}
"""Marks a setting that came after runs had names: at its default, it is no part of a run's hash."""


class Section(BaseModel):
    """Base of all settings: frozen, without unknown keys, silent conversions or NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def leave_later_out(section: Section, dumped: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dumped section without the settings marked as `LATER` that are at their default."""
    kept = {}
    for name, value in dumped.items():
        field, own = type(section).model_fields[name], getattr(section, name)
        if field.json_schema_extra == LATER and own == field.default:
            continue
        if isinstance(own, Section):
            value = leave_later_out(own, value)
        elif isinstance(own, list | tuple):
            value = [
                leave_later_out(part, inner) if isinstance(part, Section) else inner
                for part, inner in zip(own, value, strict=True)
            ]
        kept[name] = value
    return kept
