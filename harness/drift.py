"""How far representations and weights have moved since step 0, layer by layer: pure functions.

Forgetting says what a backbone can no longer do, rewiring what the brain reads elsewhere; drift is what
moved inside, whoever reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from harness.errors import InputError
from harness.forgetting import feature_drift, linear_cka

Features = Float[np.ndarray, "n_images n_channels"]


def representation_drift(
    before: Sequence[Features], after: Sequence[Features], layers: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Similarity and distance of every layer's features of the same images, by layer.

    Parameters
    ----------
    before, after : sequences of float arrays [n_images, n_channels], one per layer
        At step 0, and now; at least 4 images.
    layers : sequence of str

    Returns
    -------
    dict of layer to ``{"cka", "cka_unbiased", "distance"}``
        `cka` and `cka_unbiased` as `harness.forgetting.linear_cka`: 1 if nothing but a rotation, shift or
        scale has changed. `distance` is `harness.forgetting.feature_drift` over the variance of the features
        at step 0 (summed over channels): 0 if nothing has changed, 2 for unrelated features of the same
        mean and variance; features that do not vary at step 0 have none.
    """
    found: dict[str, dict[str, float]] = {}
    for layer, one, other in zip(layers, before, after, strict=True):
        found[layer] = {
            "cka": linear_cka(one, other),
            "cka_unbiased": linear_cka(one, other, unbiased=True),
        }
        variance = float(one.astype(np.float64).var(axis=0).sum())
        if variance > 0:
            found[layer]["distance"] = feature_drift(one, other) / variance
    return found


def weight_distance(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], groups: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, float]]:
    """How far each group of weights has moved, by group.

    Parameters
    ----------
    before, after : dicts of name to float array
        At step 0, and now.
    groups : dict of layer to names of its weights

    Returns
    -------
    dict of layer to ``{"weight_distance", "weight_distance_relative"}``
        ‖θ − θ₀‖₂ and ‖θ − θ₀‖₂ / ‖θ₀‖₂, the latter absent where all weights were 0.

    Raises
    ------
    InputError
        If a weight is missing or has another shape.
    """
    found: dict[str, dict[str, float]] = {}
    for layer, names in groups.items():
        moved = size = 0.0
        for name in names:
            if name not in after or after[name].shape != before[name].shape:
                found_shape = after[name].shape if name in after else "none"
                raise InputError(
                    f"weight distance: {name}: found {found_shape}, accepted: {before[name].shape}"
                )
            one = before[name].astype(np.float64)
            moved += float(np.square(after[name] - one).sum())
            size += float(np.square(one).sum())
        found[layer] = {"weight_distance": float(np.sqrt(moved))}
        if size > 0:
            found[layer]["weight_distance_relative"] = float(np.sqrt(moved / size))
    return found


def gradient_shares(squares: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Gradient norm of every layer and its share, from the sums of squared gradients.

    Parameters
    ----------
    squares : dict of layer to ‖g_l‖²

    Returns
    -------
    dict of layer to ``{"grad_norm", "grad_share"}``
        ‖g_l‖ and ‖g_l‖² / Σ_k ‖g_k‖², shares that add up to 1; absent where there is no gradient at all.
    """
    total = sum(squares.values())
    found = {layer: {"grad_norm": float(np.sqrt(square))} for layer, square in squares.items()}
    if total > 0:
        for layer, square in squares.items():
            found[layer]["grad_share"] = square / total
    return found
