"""Drift: how far representations and weights have moved since step 0, layer by layer.

Forgetting says what a backbone can no longer do, rewiring what the brain reads elsewhere. Drift is what moved
inside, whether the brain reads it or not. Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from harness.storage import InputError

Features = Float[np.ndarray, "n_images n_channels"]


def representation_drift(
    before: Mapping[str, Features], after: Mapping[str, Features]
) -> dict[str, dict[str, float]]:
    """Compare every layer's features of the same images with those of step 0.

    Parameters
    ----------
    before, after : dicts of layer to float array [n_images, n_channels]
        At step 0 and now; at least 4 images.

    Returns
    -------
    dict of layer to ``{"cka", "cka_unbiased", "distance"}``
        `cka` and `cka_unbiased` are `linear_cka`: 1 if only rotation, shift or scale has changed.
        `distance` is `feature_drift` over the variance at step 0 (summed over channels): 0 if unchanged,
        2 for unrelated features of the same mean and variance, absent for features constant at step 0.
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
    """Measure how far the weights of each layer have moved.

    Parameters
    ----------
    before, after : dicts of name to float array
        At step 0 and now.
    layers : dict of name to layer

    Returns
    -------
    dict of layer to ``{"weight_distance", "weight_distance_relative"}``
        ‖θ − θ₀‖₂ and ‖θ − θ₀‖₂ / ‖θ₀‖₂; the latter is absent if all weights were 0.

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
            raise InputError(f"weight distance: {name}: found {there}, expected {before[name].shape}")
        one = before[name].astype(np.float64)
        moved[layer] = moved.get(layer, 0.0) + float(np.square(after[name] - one).sum())
        size[layer] = size.get(layer, 0.0) + float(np.square(one).sum())
    found = {layer: {"weight_distance": float(np.sqrt(square))} for layer, square in moved.items()}
    for layer, square in size.items():
        if square > 0:
            found[layer]["weight_distance_relative"] = float(np.sqrt(moved[layer] / square))
    return found


def feature_drift(
    before: Float[np.ndarray, "n_images n_channels"], after: Float[np.ndarray, "n_images n_channels"]
) -> float:
    """Mean over images of the squared distance Σ_d (f − f′)², ≥ 0 (ContinualEvaluation)."""
    return float(np.square(np.subtract(after, before, dtype=np.float64)).sum(axis=1).mean())


def linear_cka(
    x: Float[np.ndarray, "n_images n_channels_x"],
    y: Float[np.ndarray, "n_images n_channels_y"],
    unbiased: bool = False,
) -> float:
    """Linear centred kernel alignment of two sets of features of the same images (Kornblith et al. 2019).

    ‖ỸᵀX̃‖²_F / (‖X̃ᵀX̃‖_F ‖ỸᵀỸ‖_F) with centred columns: 1 if equal up to rotation, shift and scale. The
    biased estimator, in [0, 1], is high even for unrelated features if images are fewer than channels. The
    unbiased one uses the HSIC estimator of Song et al. (2012, eq. 5), needs 4 images and can fall slightly
    below 0. Constant features, or an unbiased self-similarity of 0 or less, give 0.
    """
    if unbiased and len(x) < 4:
        raise InputError(f"unbiased linear CKA: found {len(x)} images, expected at least 4")
    gram_x, gram_y = (_gram(features, unbiased) for features in (x, y))
    self_x, self_y = _hsic(gram_x, gram_x, unbiased), _hsic(gram_y, gram_y, unbiased)
    if min(self_x, self_y) <= 0:
        return 0.0
    return _hsic(gram_x, gram_y, unbiased) / float(np.sqrt(self_x) * np.sqrt(self_y))


def _gram(features: np.ndarray, unbiased: bool) -> np.ndarray:
    """Inner products of the centred features of all pairs of images; no diagonal if unbiased."""
    wide = np.asarray(features, dtype=np.float64)
    centred = wide - wide.mean(axis=0)
    # centring leaves rounding errors in constant columns
    centred[:, np.abs(centred).max(axis=0) <= 1e-12 * np.abs(wide).max(axis=0)] = 0.0
    gram = centred @ centred.T
    if unbiased:
        np.fill_diagonal(gram, 0.0)
    return gram


def _hsic(gram_x: np.ndarray, gram_y: np.ndarray, unbiased: bool) -> float:
    """HSIC, up to a factor that depends on the number of images only."""
    products = float((gram_x * gram_y).sum())
    if not unbiased:
        return products
    n = len(gram_x)
    totals = float(gram_x.sum() * gram_y.sum()) / ((n - 1) * (n - 2))
    return products + totals - 2 * float(gram_x.sum(axis=0) @ gram_y.sum(axis=0)) / (n - 2)
