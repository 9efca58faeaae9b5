"""How far representations and weights have moved since step 0, layer by layer: pure functions.

Forgetting says what a backbone can no longer do, rewiring what the brain reads elsewhere; drift is what
moved inside, whoever reads it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from harness.errors import InputError
from harness.forgetting import feature_drift, linear_cka

Features = Float[np.ndarray, "n_images n_channels"]


def representation_drift(
    before: Mapping[str, Features], after: Mapping[str, Features]
) -> dict[str, dict[str, float]]:
    """Similarity and distance of every layer's features of the same images, by layer.

    Parameters
    ----------
    before, after : dicts of layer to float array [n_images, n_channels]
        At step 0, and now; at least 4 images.

    Returns
    -------
    dict of layer to ``{"cka", "cka_unbiased", "distance"}``
        `cka` and `cka_unbiased` as `harness.forgetting.linear_cka`: 1 if nothing but a rotation, shift or
        scale has changed. `distance` is `harness.forgetting.feature_drift` over the variance of the features
        at step 0 (summed over channels): 0 if nothing has changed, 2 for unrelated features of the same
        mean and variance; features that do not vary at step 0 have none.
    """
    found: dict[str, dict[str, float]] = {}
    for layer, one in before.items():
        other = after[layer]
        found[layer] = {
            "cka": linear_cka(one, other),
            "cka_unbiased": linear_cka(one, other, unbiased=True),
        }
        variance = float(one.astype(np.float64).var(axis=0).sum())
        if variance > 0:
            found[layer]["distance"] = feature_drift(one, other) / variance
    return found


def weight_distance(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], layers: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """How far the weights of each layer have moved, by layer.

    Parameters
    ----------
    before, after : dicts of name to float array
        At step 0, and now.
    layers : dict of name to the layer it is of

    Returns
    -------
    dict of layer to ``{"weight_distance", "weight_distance_relative"}``
        ‖θ − θ₀‖₂ and ‖θ − θ₀‖₂ / ‖θ₀‖₂, the latter absent where all weights were 0.

    Raises
    ------
    InputError
        If a weight is missing or has another shape.
    """
    moved: dict[str, float] = {}
    size: dict[str, float] = {}
    for name, layer in layers.items():
        if name not in after or after[name].shape != before[name].shape:
            there = after[name].shape if name in after else "none"
            raise InputError(f"weight distance: {name}: found {there}, accepted: {before[name].shape}")
        one = before[name].astype(np.float64)
        moved[layer] = moved.get(layer, 0.0) + float(np.square(after[name] - one).sum())
        size[layer] = size.get(layer, 0.0) + float(np.square(one).sum())
    found = {layer: {"weight_distance": float(np.sqrt(square))} for layer, square in moved.items()}
    for layer, square in size.items():
        if square > 0:
            found[layer]["weight_distance_relative"] = float(np.sqrt(moved[layer] / square))
    return found
