"""Does depth rise with rank by more than a smooth map does by chance? Tests of hierarchy alignment.

The statistic is Spearman's ρ between the ranks of regions and their mean expected depth. Three null
hypotheses, from the weakest to the one that is reported:

- permutation: regions are exchangeable. They are not: neighbours read alike and have neighbouring ranks;
- Moran: the map is one of those with its own spatial autocorrelation (`MoranSurrogates`);
- smooth: the map is a draw from the Gaussian process that fits it best (`SmoothProcess`).

`benchmarks/alignment_level.py` measures how often each calls a random smooth map hierarchical.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.stats import permutation_test, rankdata

from harness.brains import Roi
from harness.measures.alignment import ROUNDING
from harness.measures.predicted import MIN_VOXELS
from harness.measures.smooth_maps import (
    MoranSurrogates,
    SmoothProcess,
    spread_over,
)

MIN_ROIS = 4
"""Fewest ranked regions for a test: the smallest p of a permutation of three is one third."""

MOST_VOXELS = 500
"""Voxels that the spatial tests use; more are thinned out evenly within regions."""

N_SURROGATES = 999
N_PERMUTATIONS = 9_999
MOST_ORDERS = factorial(8)
"""Permutations are exhaustive up to eight regions."""


@dataclass(frozen=True)
class RegionAlignment:
    """Hierarchy alignment over regions, with p values; all p are two-sided and in (0, 1].

    Attributes
    ----------
    hierarchy : float in [−1, 1]
        Spearman's ρ of rank and mean expected depth, one point per region.
    p : float
        Against the smooth process: the p to report.
    p_permutation, p_moran : float
        Against permuted ranks, and against Moran surrogates.
    slope_p : float
        Of the voxels' least-squares slope, as a share of their spread, against the smooth process.
    n_rois : int
        Regions that count.
    """

    hierarchy: float
    p: float
    p_permutation: float
    p_moran: float
    slope_p: float
    n_rois: int


class AlignmentTest:
    """Test the depths of any fit of a brain against its hierarchy, over a fixed set of voxels.

    Making one decomposes matrices of all distances (up to a second with 500 voxels); a test then takes a few
    hundredths of a second.

    Parameters
    ----------
    rois : sequence of Roi
        A region counts if it is ranked, has at least `MIN_VOXELS` of the mask's voxels, and is no part of
        another region of the same rank (V1v of V1).
    coords : float array [n_voxels, 3], millimetres
    hemisphere : str array [n_voxels]
    mask : bool array [n_voxels]
        Voxels to use: the predicted ones.
    """

    def __init__(
        self,
        rois: Sequence[Roi],
        coords: Float[np.ndarray, "n_voxels 3"],
        hemisphere: Shaped[np.ndarray, " n_voxels"],
        mask: Bool[np.ndarray, " n_voxels"],
    ) -> None:
        counted = [(roi, roi.voxels[mask[roi.voxels]]) for roi in whole_areas(rois)]
        kept = [(roi, voxels) for roi, voxels in counted if len(voxels) >= MIN_VOXELS]
        self._voxels_of = [voxels for _, voxels in kept]
        self.ranks = np.array([roi.rank for roi, _ in kept], dtype=np.float64)
        self.defined = len(kept) >= MIN_ROIS and np.ptp(self.ranks) > 0
        if not self.defined:
            return
        self._chosen = spread_over(self._voxels_of, MOST_VOXELS)
        places = coords[self._chosen], hemisphere[self._chosen]
        self._moran, self._process = MoranSurrogates(*places), SmoothProcess(*places)
        place = {voxel: index for index, voxel in enumerate(self._chosen.tolist())}
        self._means = np.zeros((len(kept), len(self._chosen)))
        total, count = np.zeros(len(self._chosen)), np.zeros(len(self._chosen))
        for row, (rank, voxels) in enumerate(zip(self.ranks, self._voxels_of, strict=True)):
            own = [place[voxel] for voxel in voxels.tolist() if voxel in place]
            self._means[row, own] = 1 / len(own)
            total[own] += rank
            count[own] += 1
        self._voxel_ranks = total / count

    def test(self, depth: Float[np.ndarray, " n_voxels"], seed: int) -> RegionAlignment | None:
        """Test one map of expected depths; None with too few regions or ranks, or if all depths are equal."""
        if not self.defined:
            return None
        means = np.array([depth[voxels].mean(dtype=np.float64) for voxels in self._voxels_of])
        if np.ptp(means) < ROUNDING:
            return None
        chosen = np.asarray(depth[self._chosen], dtype=np.float64)
        drawn = self._process.draw(self._process.fit(chosen), N_SURROGATES, seed).T
        moran = self._moran.draw(chosen, N_SURROGATES, seed).T
        slope, slopes = (float(_pearson(chosen, self._voxel_ranks)), _pearson(drawn, self._voxel_ranks))
        # surrogates are of the thinned map, which has means of its own
        thinned = float(_spearman(self._means @ chosen, self.ranks))
        return RegionAlignment(
            hierarchy=float(_spearman(means, self.ranks)),
            p=_share_beyond(thinned, _spearman(drawn @ self._means.T, self.ranks)),
            p_permutation=permute_ranks(means, self.ranks, seed),
            p_moran=_share_beyond(thinned, _spearman(moran @ self._means.T, self.ranks)),
            slope_p=_share_beyond(slope, slopes),
            n_rois=len(means),
        )


def whole_areas(rois: Sequence[Roi]) -> list[Roi]:
    """Ranked regions that lie in no larger region of the same rank."""
    ranked = [roi for roi in rois if roi.rank is not None]
    return [
        roi
        for roi in ranked
        if not any(
            other.rank == roi.rank and len(other.voxels) > len(roi.voxels) and np.isin(roi.voxels, other.voxels).all()
            for other in ranked
        )
    ]


def permute_ranks(
    means: Float[np.ndarray, " n_rois"], ranks: Float[np.ndarray, " n_rois"], seed: int
) -> float:
    """Two-sided p of Spearman's ρ over permutations of ranks: exact up to eight regions.

    With more regions, `N_PERMUTATIONS` random permutations and the observed one.
    """
    exhaustive = factorial(len(ranks)) <= MOST_ORDERS
    x, y = rankdata(ranks), rankdata(means)

    def correlate(permuted: np.ndarray, axis: int = -1) -> np.ndarray:
        # rounding must not tell equal correlations apart
        return np.abs(np.round(_pearson(np.moveaxis(permuted, axis, -1), y), 12))

    return float(
        permutation_test(
            (x,),
            correlate,
            permutation_type="pairings",
            vectorized=True,
            n_resamples=MOST_ORDERS if exhaustive else N_PERMUTATIONS,
            alternative="greater",
            rng=np.random.default_rng(seed),
        ).pvalue
    )


def _spearman(means: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Spearman's ρ of every row of means with the ranks."""
    return np.round(_pearson(rankdata(means, axis=-1), rankdata(ranks)), 12)


def _pearson(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    rows, values = rows - rows.mean(axis=-1, keepdims=True), values - values.mean()
    return rows @ values / (np.linalg.norm(rows, axis=-1) * np.linalg.norm(values))


def _share_beyond(found: float, surrogates: np.ndarray) -> float:
    return float((1 + (np.abs(surrogates) >= abs(found)).sum()) / (1 + len(surrogates)))
