"""Geometry of regions and layers: representational similarity analysis (RSA) with its noise ceiling.

A region and a layer have the same geometry if the same pairs of images lie far apart in both (Kriegeskorte,
Mur & Bandettini 2008). Nothing is fitted. Distances and comparisons are rsatoolbox's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import spearmanr

from harness.mappings import Region, standardise

if TYPE_CHECKING:
    from rsatoolbox.rdm.rdms import RDMs
else:
    # rsatoolbox takes a second to import, and tests check annotations when they run
    RDMs = Any

COMPARED = "corr"
"""How rsatoolbox compares dissimilarities: Pearson correlation."""
FEWEST_REGIONS = 4
"""Regions without which layers and regions have no order to speak of."""


def measure_dissimilarities(patterns: Sequence[Float[np.ndarray, "n_images _"]]) -> RDMs:
    """Compute one representational dissimilarity matrix per pattern.

    d(i, j) = mean over channels of (x_i − x_j)², every channel at mean 0 and variance 1 over the images;
    constant channels count as 0.

    Parameters
    ----------
    patterns : sequence of float arrays [n_images, n_channels]
        Responses of a region's voxels, or a layer's pooled tokens, to the same images.
    """
    from rsatoolbox.data.dataset import Dataset
    from rsatoolbox.rdm.calc import calc_rdm_euclidean
    from rsatoolbox.rdm.rdms import concat

    return concat([calc_rdm_euclidean(Dataset(_standardise(each))) for each in patterns])


def compare_geometry(
    features: Sequence[Float[np.ndarray, "n_images _"]],
    responses: Float[np.ndarray, "n_images n_voxels"],
    regions: Sequence[Region],
) -> Float[np.ndarray, "n_regions n_layers"]:
    """Correlate the dissimilarities of every region with those of every layer, over pairs of images.

    Parameters
    ----------
    features : sequence of float arrays [n_images, n_features], one per layer
    responses : float array [n_images, n_voxels]
    regions : sequence of Region

    Returns
    -------
    float array [n_regions, n_layers], −1 to 1; NaN for a region or layer whose dissimilarities are all equal
    """
    from rsatoolbox.rdm.compare import compare

    brain = measure_dissimilarities([responses[:, region.voxels] for region in regions])
    network = measure_dissimilarities(features)
    rows, columns = (np.flatnonzero(np.ptp(each.dissimilarities, axis=1)) for each in (brain, network))
    found = np.full((len(regions), len(features)), np.nan)
    # rsatoolbox 0.3.2 mixes up the others' correlations if one is constant
    if len(rows) and len(columns):
        varying = compare(brain.subset("index", rows), network.subset("index", columns), method=COMPARED)
        found[np.ix_(rows, columns)] = varying
    return found


def geometry_ceilings(
    responses: Float[np.ndarray, "n_images n_voxels"],
    noise_ceiling: Float[np.ndarray, " n_voxels"],
    regions: Sequence[Region],
) -> Float[np.ndarray, " n_regions"]:
    """Correlation that a network with a region's true geometry would reach, from the voxels' noise ceilings.

    If voxel v has the noise ceiling c_v, and noise that is normal and independent of other voxels', its noise
    adds N = Σ_v 16 c_v (1 − c_v) + 8 (1 − c_v)² to the variance of Σ_v (y_iv − y_jv)² over pairs of images.
    The ceiling is √(1 − N / variance of the measured Σ). Noise that voxels share makes it too high.

    Parameters
    ----------
    responses : float array [n_images, n_voxels]
    noise_ceiling : float array [n_voxels]
        Share of the responses' variance that is signal, 0 to 1.
    regions : sequence of Region

    Returns
    -------
    float array [n_regions], 0 to 1; NaN where noise alone would make the dissimilarities vary as much
    """
    found = []
    for region in regions:
        patterns = _standardise(responses[:, region.voxels])
        signal = np.where(patterns.any(axis=0), noise_ceiling[region.voxels].astype(np.float64), 1.0)
        noise = (16 * signal * (1 - signal) + 8 * (1 - signal) ** 2).sum()
        measured = measure_dissimilarities([patterns]).dissimilarities[0] * patterns.shape[1]
        variance = measured.var()
        found.append(np.sqrt(1 - noise / variance) if variance > noise else np.nan)
    return np.array(found)


def subject_ceilings(
    subjects: Sequence[RDMs],
) -> tuple[Float[np.ndarray, ""], Float[np.ndarray, ""]]:
    """Bounds of the correlation that one network could reach with all subjects, one region of theirs.

    The lower bound compares each subject with the mean of the others, the upper with the mean of all (Nili et
    al. 2014; `rsatoolbox.inference.boot_noise_ceiling`).

    Parameters
    ----------
    subjects : sequence of RDMs, at least two
        Dissimilarities of the same images in one region of every subject.
    """
    from rsatoolbox.inference.noise_ceiling import boot_noise_ceiling
    from rsatoolbox.rdm.rdms import concat

    lower, upper = boot_noise_ceiling(concat(list(subjects)), method=COMPARED)
    return np.asarray(lower), np.asarray(upper)


def name_geometry(
    correlations: Float[np.ndarray, "n_regions n_layers"],
    ceilings: Float[np.ndarray, " n_regions"] | None,
    regions: Sequence[str],
    layers: Sequence[str],
) -> dict[str, float]:
    """Name a snapshot's correlations, the depth of every region's best layer, and the noise ceilings.

    Layers and regions without variance have no rows.

    Parameters
    ----------
    correlations : float array [n_regions, n_layers]
    ceilings : float array [n_regions] or None
    regions, layers : sequences of str
    """
    values: dict[str, float] = {}
    for place, found in zip(regions, correlations, strict=True):
        values |= {
            f"rsa/{place}/layer/{name}": float(r)
            for name, r in zip(layers, found, strict=True)
            if np.isfinite(r)
        }
        if np.isfinite(found).any():
            values[f"rsa/{place}/best_depth"] = int(np.nanargmax(found)) / max(len(layers) - 1, 1)
    if ceilings is not None:
        values |= {
            f"rsa/{place}/noise_ceiling": float(each)
            for place, each in zip(regions, ceilings, strict=True)
            if np.isfinite(each)
        }
    return values


def name_agreement(values: Mapping[str, float]) -> dict[str, float]:
    """Name how far RSA and selectors order layers alike, from a snapshot's rows.

    ``rsa/all/layers_agreement`` is the mean over regions of the Spearman correlation, over layers, of the
    correlations of RSA with the shares of the layer selector. ``rsa/all/regions_agreement`` is the Spearman
    correlation, over regions, of the depth of RSA's best layer with the expected depth of the selectors.
    Both use the same responses, so agreement is no independent confirmation. Absent with fewer than
    `FEWEST_REGIONS` regions; a constant row counts as 0.

    Parameters
    ----------
    values : mapping of name to float
        With ``rsa/…`` and ``selectors/…`` rows of one subject.
    """
    geometry, selectors = (_collect(values, stage) for stage in ("rsa", "selectors"))
    places = [place for place in geometry if geometry[place].keys() == selectors.get(place, {}).keys()]
    if len(places) < FEWEST_REGIONS:
        return {}
    alike = [
        _rank_correlation(list(geometry[p].values()), [selectors[p][k] for k in geometry[p]]) for p in places
    ]
    depths = (
        [values[f"rsa/{place}/best_depth"] for place in places],
        [values[f"selectors/{place}/expected_depth"] for place in places],
    )
    return {
        "rsa/all/layers_agreement": float(np.mean(alike)),
        "rsa/all/regions_agreement": _rank_correlation(*depths),
        "rsa/all/n_rois": float(len(places)),
    }


def _collect(values: Mapping[str, float], stage: str) -> dict[str, dict[str, float]]:
    """Values of every place's layers."""
    found: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        start, place, *measure = name.split("/", 3)
        if start == stage and measure[0] == "layer":
            found.setdefault(place, {})[measure[1]] = value
    return found


def _rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(spearmanr(x, y).statistic)


def _standardise(
    patterns: Float[np.ndarray, "n_images n_channels"],
) -> Float[np.ndarray, "n_images n_channels"]:
    """Give channels mean 0 and variance 1 over the images; constant ones become 0."""
    unit = standardise(torch.from_numpy(np.asarray(patterns, dtype=np.float64)))
    return unit.numpy() * patterns.shape[1] ** 0.5
