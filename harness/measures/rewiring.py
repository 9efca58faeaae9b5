"""Rewiring: how far the selectors of two mappings of one brain are apart, voxel by voxel.

Pure functions on two mappings. `before` is usually step 0 and `after` a later snapshot; a sign is that of
after − before. What counts as rewiring is decided against refits of step 0, in `significance`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import subspace_angles
from scipy.special import rel_entr
from scipy.stats import entropy
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from harness.brains import Roi
from harness.measures.channels import (
    count_distinct,
    leading_directions,
    unit_rows,
)
from harness.storage import InputError


@runtime_checkable
class Selectors(Protocol):
    """What is compared of a mapping; `harness.mappings.mapping.Mapping` has it all."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, input first."""

    @property
    def layer(self) -> Float[np.ndarray, "n_voxels n_layers"]:
        """One distribution over layers per voxel."""

    @property
    def space(self) -> Float[np.ndarray, "n_voxels 2"] | None:
        """Where in the image a voxel reads, each axis in [−1, 1]; None if the mapping does not say."""

    @property
    def scale(self) -> Float[np.ndarray, " n_voxels"] | None:
        """0 reads the local tokens only, 1 the global token only; None if the mapping does not say."""

    @property
    def r2(self) -> Float[np.ndarray, " n_voxels"]:
        """Share of the held-out variance explained, at most 1."""


def expected_depth(layer: Float[np.ndarray, "n_voxels n_layers"]) -> Float[np.ndarray, " n_voxels"]:
    """Mean of the depth l/(L−1) under the layer distribution: 0 first layer, 1 last; 0 if there is one."""
    return np.asarray(layer, dtype=np.float64) @ np.linspace(0.0, 1.0, layer.shape[1])


def confidence(layer: Float[np.ndarray, "n_voxels n_layers"]) -> Float[np.ndarray, " n_voxels"]:
    """1 − H/log L: 0 for a uniform distribution, 1 for a single layer (also if there is only one)."""
    n_layers = layer.shape[1]
    if n_layers == 1:
        return np.ones(layer.shape[0])
    return np.clip(1.0 - entropy(np.asarray(layer, dtype=np.float64), axis=1) / np.log(n_layers), 0.0, 1.0)


def wasserstein(
    before: Float[np.ndarray, "n_voxels n_layers"], after: Float[np.ndarray, "n_voxels n_layers"]
) -> Float[np.ndarray, " n_voxels"]:
    """Wasserstein-1 distance of layer distributions on depth l/(L−1), in [0, 1]; 0 if there is one layer.

    On ordered bins that is Σ|CDF difference|/(L−1). It is at least |shift of the expected depth|, and
    equal to it where all mass moves one way.
    """
    cdf_difference = np.cumsum(np.subtract(after, before, dtype=np.float64), axis=1)[:, :-1]
    return np.abs(cdf_difference).sum(axis=1) / max(before.shape[1] - 1, 1)


def jensen_shannon(
    before: Float[np.ndarray, "n_voxels n_layers"], after: Float[np.ndarray, "n_voxels n_layers"]
) -> Float[np.ndarray, " n_voxels"]:
    """Jensen–Shannon divergence to base 2, in [0, 1]; blind to how far apart the layers are.

    It is `scipy.spatial.distance.jensenshannon` squared, without that function's NaN for distributions
    that differ by rounding only (the root of a sum a hair below zero).
    """
    p, q = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    middle = (p + q) / 2
    divergence = (rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=1) / (2 * np.log(2))
    return np.clip(divergence, 0.0, 1.0)


def rewiring_measures(before: Selectors, after: Selectors) -> dict[str, Float[np.ndarray, " n_voxels"]]:
    """Every measure of rewiring that is one number per voxel, float64, by name.

    Measures of a selector that neither mapping has are absent.

    wasserstein, jensen_shannon in [0, 1]; depth_shift (+: to deeper layers) in [−1, 1]; top_layer_changed
    0 or 1 (the first of equals is the top); confidence_change and scale_change (+: more global) in
    [−1, 1]; space_displacement in half-widths of the image, [0, 2√2]; r2_change (+: better predicted).

    Raises
    ------
    InputError
        If the mappings are not of the same layers and the same number of voxels, or have not the same
        selectors.
    """
    if before.layers != after.layers:
        raise InputError(f"mappings to compare must share layers: found {before.layers} and {after.layers}")
    n_before, n_after = len(before.layer), len(after.layer)
    if n_before != n_after:
        raise InputError(f"mappings to compare must share voxels: found {n_before} and {n_after}")
    measures = {
        "wasserstein": wasserstein(before.layer, after.layer),
        "depth_shift": expected_depth(after.layer) - expected_depth(before.layer),
        "jensen_shannon": jensen_shannon(before.layer, after.layer),
        "top_layer_changed": (before.layer.argmax(axis=1) != after.layer.argmax(axis=1)).astype(np.float64),
        "confidence_change": confidence(after.layer) - confidence(before.layer),
    }
    shift = _difference("space", before.space, after.space)
    if shift is not None:
        measures["space_displacement"] = np.linalg.norm(shift, axis=1)
    change = _difference("scale", before.scale, after.scale)
    if change is not None:
        measures["scale_change"] = change
    measures["r2_change"] = np.subtract(after.r2, before.r2, dtype=np.float64)
    return measures


def _difference(
    selector: str,
    before: Float[np.ndarray, "n_voxels ..."] | None,
    after: Float[np.ndarray, "n_voxels ..."] | None,
) -> Float[np.ndarray, "n_voxels ..."] | None:
    if before is not None and after is not None:
        return np.subtract(after, before, dtype=np.float64)
    if before is None and after is None:
        return None
    has, has_not = ("first", "second") if after is None else ("second", "first")
    raise InputError(f"mappings to compare must share selectors: the {has} has {selector}, the {has_not} not")


def summarise_rois(
    measures: Mapping[str, Float[np.ndarray, " n_voxels"]],
    rois: Sequence[Roi],
    noise_ceiling: Float[np.ndarray, " n_voxels"] | None,
) -> dict[str, dict[str, float]]:
    """Mean of each measure over the voxels of each ROI, and over "all".

    Parameters
    ----------
    measures : dict of float array [n_voxels]
    rois : sequence of Roi
    noise_ceiling : float array [n_voxels] in [0, 1], or None if unknown

    Returns
    -------
    dict of place to dict of measure to float
        ``<measure>`` is the plain mean and ``<measure>_weighted`` the mean weighted by noise ceiling. The
        latter is left out where the ceiling is unknown or 0 in all voxels of the place.

    Raises
    ------
    InputError
        If an ROI has no voxels.
    """
    places: dict[str, Int[np.ndarray, " n_roi_voxels"] | slice] = {"all": slice(None)}
    places |= {roi.name: roi.voxels for roi in rois}
    summary: dict[str, dict[str, float]] = {}
    for place, voxels in places.items():
        summary[place] = row = {}
        for name, values in measures.items():
            if values[voxels].size == 0:
                raise InputError(f"ROI {place!r} has no voxels: accepted are ROIs of at least one voxel")
            row[name] = float(values[voxels].mean())
            if noise_ceiling is not None and noise_ceiling[voxels].any():
                row[f"{name}_weighted"] = float(np.average(values[voxels], weights=noise_ceiling[voxels]))
    return summary


@dataclass(frozen=True)
class RoiChannels:
    """How the voxels of one ROI differ in the channels they read, in terms of voxels only.

    Each fit has its own bottleneck, so channel d of one is not channel d of another: with any invertible M,
    weights wM and bottlenecks M⁻¹B predict the same. So weights are not compared as such, but what they say
    of voxels: which of them read alike (clusters), and the patterns over voxels in which weights vary
    (directions). Both are the same after any rotation, permutation, change of sign or common scaling of the
    channels. Unequal scaling does alter them; as every fit of the noise floor has its own bottleneck, the
    floor contains that.

    Attributes
    ----------
    clusters : int array [n_roi_voxels]
        Label of each voxel by k-means on its weights, scaled to length 1.
    directions : float array [n_roi_voxels, rank]
        Leading left singular vectors of the weights [n_roi_voxels, n_channels]; as many as asked for, or as
        the weights' rank if that is less.
    """

    clusters: Int[np.ndarray, " n_roi_voxels"]
    directions: Float[np.ndarray, "n_roi_voxels rank"]


def describe_channels(
    weights: Float[np.ndarray, "n_roi_voxels n_channels"],
    seed: int,
    n_clusters: int = 4,
    n_directions: int = 3,
) -> RoiChannels:
    """Clusters and leading directions of an ROI's channel weights, to be compared between mappings.

    Parameters
    ----------
    weights : float array [n_roi_voxels, n_channels]
        Rows of a mapping's weights. Voxels of weight 0 form a direction of their own.
    seed : int
        Of k-means (10 starts).
    n_clusters, n_directions : int
        Upper bounds: an ROI has no more clusters than distinct rows, no more directions than rank.
    """
    unit = unit_rows(weights)
    k_means = KMeans(n_clusters=min(n_clusters, count_distinct(unit)), n_init=10, random_state=seed)
    return RoiChannels(
        clusters=k_means.fit_predict(unit).astype(np.int64),
        directions=leading_directions(weights, n_directions).voxels,
    )


def compare_channels(before: RoiChannels, after: RoiChannels) -> dict[str, float]:
    """Every measure of rewiring that is one number per ROI, by name.

    cluster_agreement : adjusted Rand index, 1 for equal clusters, about 0 by chance (can be below).
    principal_angle : mean principal angle in radians between the spans of the directions, 0 to π/2. It is
        0 by necessity in an ROI of no more voxels than directions. A span without any direction (weights
        all 0) is at π/2 to every other and at 0 to another such.
    """
    n_before, n_after = len(before.clusters), len(after.clusters)
    if n_before != n_after:
        raise InputError(f"ROIs to compare must share voxels: found {n_before} and {n_after}")
    if 0 in (before.directions.shape[1], after.directions.shape[1]):
        angle = 0.0 if before.directions.shape == after.directions.shape else np.pi / 2
    else:
        angle = float(subspace_angles(before.directions, after.directions).mean())
    return {
        "cluster_agreement": float(adjusted_rand_score(before.clusters, after.clusters)),
        "principal_angle": angle,
    }
