from .data import (
    FitData,
    FitOptions,
    Member,
)
from .factortopy.anchor import (
    MOST_PICTURES,
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
from .frozen import (
    FrozenMapping,
    randomise_mapping,
    shuffle_selectors,
)
from .frozen_reading import (
    FrozenReading,
    pool_layers,
)
from .layer_evidence import (
    MIN_R2,
    PENALTIES,
    Evidence,
    PooledTokens,
    Region,
    choose_penalties,
    measure_evidence,
    pool_tokens,
    stacked_weights,
    standardise,
)
from .layer_ridge import (
    TooFewStimuliError,
)
from .mapping import (
    Mapping,
    load_mapping,
    save_mapping,
)
from .reference_ridge import (
    fit_reference_ridge,
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
    "MIN_R2",
    "MOST_PICTURES",
    "PENALTIES",
    "Evidence",
    "FitData",
    "FitOptions",
    "FrozenMapping",
    "FrozenReading",
    "Mapping",
    "Member",
    "PooledTokens",
    "Region",
    "Split",
    "TooFewStimuliError",
    "choose_penalties",
    "compare_with_published",
    "fit_mapping",
    "fit_reference_ridge",
    "format_differences",
    "load_mapping",
    "load_split",
    "measure_evidence",
    "pool_layers",
    "pool_tokens",
    "prepare_tokens",
    "randomise_mapping",
    "read_reference",
    "save_mapping",
    "save_split",
    "shuffle_selectors",
    "split_brain",
    "stacked_weights",
    "standardise",
]
