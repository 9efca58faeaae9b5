from .extraction import (
    LayerMeans,
    LayerTokens,
    extract_features,
    extract_layer_means,
    extract_tokens,
    iterate_tokens,
)
from .frame import (
    StandardTokens,
    TokenFrame,
    check_finite,
    one_array,
    standardize_tokens,
)
from .store import (
    store_tokens,
)

__all__ = [
    "LayerMeans",
    "LayerTokens",
    "StandardTokens",
    "TokenFrame",
    "check_finite",
    "extract_features",
    "extract_layer_means",
    "extract_tokens",
    "iterate_tokens",
    "one_array",
    "standardize_tokens",
    "store_tokens",
]
