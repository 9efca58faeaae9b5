from .data import (
    FitData,
    FitOptions,
    Member,
)
from .factortopy.conformance import (
    compare_with_published,
    format_differences,
    read_reference,
)
from .families import (
    ARRAYS,
    FAMILIES,
)
from .fit import (
    fit_mapping,
    prepare_tokens,
)
from .mapping import (
    Mapping,
    load_mapping,
    save_mapping,
)
from .splits import (
    Split,
    load_split,
    save_split,
    split_brain,
)

__all__ = [
    "ARRAYS",
    "FAMILIES",
    "FitData",
    "FitOptions",
    "Mapping",
    "Member",
    "Split",
    "compare_with_published",
    "fit_mapping",
    "format_differences",
    "load_mapping",
    "load_split",
    "prepare_tokens",
    "read_reference",
    "save_mapping",
    "save_split",
    "split_brain",
]
