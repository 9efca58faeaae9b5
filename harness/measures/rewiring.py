"""Rewiring: distances between the selectors of two mappings of one brain, voxel by voxel.

Pure functions of two mappings. `before` is usually step 0 and `after` a later snapshot; signs are those of
after − before. `significance` holds distances against refits of step 0; `predicted` says which voxels count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import subspace_angles
from scipy.special import entr, rel_entr
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
    """The parts of a mapping that are compared; `harness.mappings.Mapping` has them all."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, input first."""

    @property
    def layer(self) -> Float[np.ndarray, "n_voxels n_layers"]:
        """Distribution over layers, one per voxel."""

    @property
    def space(self) -> Float[np.ndarray, "n_voxels 2"] | None:
        """Where in the image a voxel reads, each axis in [−1, 1]; None if the mapping has no space."""

    @property
    def scale(self) -> Float[np.ndarray, " n_voxels"] | None:
        """0 reads local tokens only, 1 the global token only; None if the mapping has no scale."""

    @property
    def r2(self) -> Float[np.ndarray, " n_voxels"]:
        """Share of the held-out variance explained, at most 1."""


def expected_depth(layer: Float[np.ndarray, "n_voxels n_layers"]) -> Float[np.ndarray, " n_voxels"]:
    """Mean depth l/(L−1) under the layer distribution: 0 first layer, 1 last; 0 for a single layer."""
    return np.asarray(layer, dtype=np.float64) @ np.linspace(0.0, 1.0, layer.shape[1])


def confidence(layer: Float[np.ndarray, "n_voxels n_layers"]) -> Float[np.ndarray, " n_voxels"]:
    """1 − H/log L: 0 for a uniform distribution, 1 for a single layer (also if L = 1)."""
    n_layers = layer.shape[1]
    if n_layers == 1:
        return np.ones(layer.shape[0])
    share = np.asarray(layer, dtype=np.float64)
    # as scipy.stats.entropy has it, whose checks take longer than the sum
    found = entr(share / share.sum(axis=1, keepdims=True)).sum(axis=1)
    return np.clip(1.0 - found / np.log(n_layers), 0.0, 1.0)


def wasserstein(
    before: Float[np.ndarray, "n_voxels n_layers"], after: Float[np.ndarray, "n_voxels n_layers"]
) -> Float[np.ndarray, " n_voxels"]:
    """Wasserstein-1 distance of layer distributions on depth l/(L−1), in [0, 1]; 0 for a single layer.

    On ordered bins this is Σ|CDF difference|/(L−1). It is at least |shift of the expected depth|, with
    equality if all mass moves one way.
    """
    cdf_difference = np.cumsum(np.subtract(after, before, dtype=np.float64), axis=1)[:, :-1]
    return np.abs(cdf_difference).sum(axis=1) / max(before.shape[1] - 1, 1)


def jensen_shannon(
    before: Float[np.ndarray, "n_voxels n_layers"], after: Float[np.ndarray, "n_voxels n_layers"]
) -> Float[np.ndarray, " n_voxels"]:
    """Jensen–Shannon divergence, base 2, in [0, 1]; blind to how far apart layers are.

    The square of `scipy.spatial.distance.jensenshannon`, without that function's NaN for distributions that
    differ by rounding only (the root of a sum just below zero).
    """
    p, q = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    middle = (p + q) / 2
    divergence = (rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=1) / (2 * np.log(2))
    return np.clip(divergence, 0.0, 1.0)


def rewiring_measures(before: Selectors, after: Selectors) -> dict[str, Float[np.ndarray, " n_voxels"]]:
    """Compute every measure of rewiring that is one number per voxel, float64, by name.

    Measures of a selector that neither mapping has are absent. wasserstein, jensen_shannon in [0, 1];
    depth_shift (+: to deeper layers) in [−1, 1]; top_layer_changed 0 or 1 (the first of equal layers is the
    top); confidence_change and scale_change (+: more global) in [−1, 1]; space_displacement in half-widths of
    the image, [0, 2√2]; r2_change (+: better predicted).

    Raises
    ------
    InputError
        If the mappings differ in layers, number of voxels or selectors.
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
        ``<measure>`` is the plain mean, ``<measure>_weighted`` the mean weighted by noise ceiling. The
        latter is absent if the ceiling is unknown, or 0 in all voxels of the place.

    Raises
    ------
    InputError
        If an ROI has no voxels.
    """
    n_voxels = len(next(iter(measures.values())))
    places = {"all": np.arange(n_voxels)} | {roi.name: roi.voxels for roi in rois}
    return summarise_places(measures, places, noise_ceiling)


def summarise_places(
    measures: Mapping[str, Float[np.ndarray, " n_voxels"]],
    places: Mapping[str, Int[np.ndarray, " _"]],
    noise_ceiling: Float[np.ndarray, " n_voxels"] | None,
) -> dict[str, dict[str, float]]:
    """Mean of each measure over given voxels, by place; the rest as for `summarise_rois`.

    Parameters
    ----------
    measures : dict of float array [n_voxels]
    places : dict of int array
        Indices of the voxels of each place (`harness.measures.predicted.counted_places`).
    noise_ceiling : float array [n_voxels] in [0, 1], or None if unknown
    """
    summary: dict[str, dict[str, float]] = {}
    for place, voxels in places.items():
        summary[place] = row = {}
        for name, values in measures.items():
            if values[voxels].size == 0:
                raise InputError(f"ROI {place!r} has no voxels, expected at least one")
            row[name] = float(values[voxels].mean())
            if noise_ceiling is not None and noise_ceiling[voxels].any():
                row[f"{name}_weighted"] = float(np.average(values[voxels], weights=noise_ceiling[voxels]))
    return summary


@dataclass(frozen=True)
class RoiChannels:
    """How the voxels of one ROI differ in the channels they read, in terms of voxels only.

    Every fit has its own bottleneck, so channel d of one fit is not channel d of another: for any invertible
    M, weights wM and bottlenecks M⁻¹B predict the same. Therefore not the weights are compared but what they
    say about voxels: which read alike (clusters), and the patterns over voxels in which weights vary
    (directions). Neither changes with rotation, permutation, sign or common scale of the channels. Unequal
    scaling does change them; the noise floor includes that, as each of its fits has its own bottleneck.

    Attributes
    ----------
    clusters : int array [n_roi_voxels]
        Label of each voxel, by k-means on weights scaled to length 1.
    directions : float array [n_roi_voxels, rank]
        Leading left singular vectors of the weights [n_roi_voxels, n_channels]; no more than their rank.
    """

    clusters: Int[np.ndarray, " n_roi_voxels"]
    directions: Float[np.ndarray, "n_roi_voxels rank"]


def describe_channels(
    weights: Float[np.ndarray, "n_roi_voxels n_channels"],
    seed: int,
    n_clusters: int = 4,
    n_directions: int = 3,
) -> RoiChannels:
    """Describe an ROI's channel weights by clusters and leading directions, to compare mappings.

    Parameters
    ----------
    weights : float array [n_roi_voxels, n_channels]
        Rows of a mapping's weights. Zero weights form a direction of their own.
    seed : int
        Seed of k-means (10 starts).
    n_clusters, n_directions : int
        Upper bounds: no more clusters than distinct rows, no more directions than rank.
    """
    unit = unit_rows(weights)
    k_means = KMeans(n_clusters=min(n_clusters, count_distinct(unit)), n_init=10, random_state=seed)
    return RoiChannels(
        clusters=k_means.fit_predict(unit).astype(np.int64),
        directions=leading_directions(weights, n_directions).voxels,
    )


def compare_channels(before: RoiChannels, after: RoiChannels) -> dict[str, float]:
    """Compute every measure of rewiring that is one number per ROI, by name.

    cluster_agreement : adjusted Rand index, 1 for equal clusters, about 0 by chance, possibly below.
    principal_angle : mean principal angle in radians between the spans of the directions, 0 to π/2. It is
        always 0 in an ROI with no more voxels than directions. An empty span (all weights 0) is at π/2 to
        every other and at 0 to another empty one.
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
