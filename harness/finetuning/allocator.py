"""Memory that one training step frees is kept for the next one."""

from __future__ import annotations

import ctypes
import os

# glibc's malloc.h
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_LARGEST_KEPT = 32 * 2**20  # bytes of an array, the most that mallopt takes


def keep_freed_memory() -> bool:
    """Tell the C library to keep freed arrays of up to 32 MiB; whether it could be told.

    It gives the upper end of its heap back to the system as soon as a step's arrays are freed, and the next
    step waits for the system to clear the same pages again: a tenth of a FactorTopy step's time on a CPU.
    Larger arrays are still given back at once. A process never holds more than it has once needed.

    Where malloc is not glibc's, or is tuned from the environment (``MALLOC_TRIM_THRESHOLD_`` and others),
    nothing is done.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_TRIM_THRESHOLD, -1))
