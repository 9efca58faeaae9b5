"""Sizes, durations and addresses as text."""

from __future__ import annotations

import re

UNKNOWN = "?"
BYTE_UNITS = ("B", "kB", "MB", "GB", "TB")
# unit, its seconds, decimals shown; each is used below its limit in seconds, the last above all limits
TIME_UNITS = (("s", 1, 0), ("min", 60, 0), ("h", 3600, 1), ("d", 86_400, 1))
TIME_LIMITS = (100, 5940, 172_800)


def hide_passwords(text: str) -> str:
    """Return a text as messages show it: without passwords and tokens in addresses, and tokens of the hub."""
    text = re.sub(r"(://[^/@\s]*?):[^/@\s]*@", r"\1:***@", text)
    text = re.sub(r"://[^/@:\s]+@", "://***@", text)  # a token in place of a name
    return re.sub(r"\bhf_\w{8,}", "hf_***", text)


def format_bytes(n_bytes: int | float | None) -> str:
    """Format a number of bytes in powers of 1,000, as in ``1.5 GB``; None is ``?``."""
    if n_bytes is None:
        return UNKNOWN
    value, units = float(n_bytes), list(BYTE_UNITS)
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        del units[0]
    return f"{value:.{1 if value < 9.95 else 0}f} {units[0]}"


def format_seconds(seconds: int | float | None) -> str:
    """Format a duration, as in ``40 s``, ``12 min``, ``3.5 h`` or ``2.1 d``; None is ``?``."""
    if seconds is None:
        return UNKNOWN
    place = sum(seconds >= limit for limit in TIME_LIMITS)
    unit, size, digits = TIME_UNITS[place]
    return f"{seconds / size:.{digits}f} {unit}"
