from .factortopy.conformance import (
    compare,
    read_reference,
    report,
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
    "Mapping",
    "Split",
    "compare",
    "fit_mapping",
    "load_mapping",
    "load_split",
    "prepare_tokens",
    "read_reference",
    "report",
    "save_mapping",
    "save_split",
    "split_brain",
]
