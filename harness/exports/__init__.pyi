from .formats import (
    FORMATS,
)
from .write import (
    write_export,
)

__all__ = [
    "FORMATS",
    "write_export",
]
