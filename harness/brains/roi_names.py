"""What a region of interest may be called: its name becomes part of the names of results."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.storage import InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")
_WHOLE_BRAIN = "all"  # how results name it


def check_roi_names(names: Sequence[str], source: object) -> None:
    """Refuse names that results cannot have, and one for two regions; `source` is named in the error."""
    for name in names:
        if not _NAME.fullmatch(name) or name == _WHOLE_BRAIN:
            raise InputError(
                f"{source}: found a region named {name!r:.80}, accepted: letters, digits, '_', '.' and '-', "
                f"at most 60, but not {_WHOLE_BRAIN!r}"
            )
    for name in set(names):
        if list(names).count(name) > 1:
            raise InputError(f"{source}: found two regions named {name!r}, accepted: each name once")
