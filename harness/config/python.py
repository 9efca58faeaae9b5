"""Settings shared by everything that a user's own function returns."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field

from harness.config.base import Section


class PythonSection(Section):
    """A function and its arguments (`docs/extending.md`)."""

    function: str = Field(
        min_length=1,
        description="package.module:function, from the working directory or an installed package",
    )
    arguments: dict[str, Any] = Field({}, description="keyword arguments of the function")

    def __hash__(self) -> int:
        """Hash of all settings: pydantic's own cannot hash a dictionary."""
        return hash(self.model_dump_json())


def name_by_function(values: Any) -> Any:
    """Settings with a name: ``recordings.load`` for ``my_lab.recordings:load``, where none is set."""
    if not isinstance(values, dict) or values.get("name"):
        return values
    module, _, function = str(values.get("function", "python:function")).partition(":")
    name = re.sub(r"[^A-Za-z0-9_.-]", "", f"{module.rpartition('.')[2]}.{function}").lstrip("._-")
    return {**values, "name": name[:60]}
