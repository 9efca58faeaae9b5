"""Valid names of regions of interest; they become part of metric names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.brains.area_groups import AREA_GROUPS
from harness.storage import InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")
_RESERVED = ("all", *AREA_GROUPS)  # places in metrics that are no region


def check_roi_names(names: Sequence[str], source: object) -> None:
    """Refuse names that metrics cannot hold, and duplicates; the error names `source`."""
    for name in names:
        if not _NAME.fullmatch(name) or name in _RESERVED:
            raise InputError(
                f"{source}: found a region named {name!r:.80}, expected letters, digits, '_', '.' and '-', "
                f"at most 60, but not {' or '.join(map(repr, _RESERVED))}"
            )
    for name in set(names):
        if list(names).count(name) > 1:
            raise InputError(f"{source}: found two regions named {name!r}, expected unique names")
