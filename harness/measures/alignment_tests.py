"""Does depth rise with rank by more than a smooth map does by chance? Tests of hierarchy alignment.

The statistic is Spearman's ρ between the ranks of regions and their mean expected depth. Three null
hypotheses:

- permutation: regions are exchangeable. They are not: neighbours read alike and have neighbouring ranks;
- Moran: the map is one of those with its own spatial autocorrelation (`MoranSurrogates`);
- smooth: the map is a draw from a Gaussian process fitted to it (`SmoothProcess`).

The reported p is the larger of the last two, which holds its level where each alone may not:
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
        The p to report: the larger of `p_moran` and `p_smooth`.
    p_permutation, p_moran, p_smooth : float
        Against permuted ranks, Moran surrogates, and the smooth process.
    slope_p : float
        Of the voxels' least-squares slope, as a share of their spread: the larger of two, likewise.
    n_rois : int
        Regions that count.
    """

    hierarchy: float
    p: float
    p_permutation: float
    p_moran: float
    p_smooth: float
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
        self._centred = total / count - (total / count).mean()

    def correlate(self, depth: Float[np.ndarray, " n_voxels"]) -> float | None:
        """Spearman's ρ over regions; None with too few regions or ranks, or if all depths are equal."""
        means = self._average(depth)
        return None if means is None else float(_spearman(means[None], self.ranks)[0])

    def _average(self, depth: Float[np.ndarray, " n_voxels"]) -> Float[np.ndarray, " n_rois"] | None:
        if not self.defined:
            return None
        means = np.array([depth[voxels].mean(dtype=np.float64) for voxels in self._voxels_of])
        return None if np.ptp(means) < ROUNDING else means

    def test(
        self,
        depth: Float[np.ndarray, " n_voxels"],
        seed: int,
        n_surrogates: int = N_SURROGATES,
        n_permutations: int = N_PERMUTATIONS,
    ) -> RegionAlignment | None:
        """Test one map of expected depths; None where `correlate` is."""
        means = self._average(depth)
        if means is None:
            return None
        chosen = np.asarray(depth[self._chosen], dtype=np.float64)
        n_chosen, n_rois = len(chosen), len(means)
        # means over regions, the product with the voxels' ranks, and the mean of all voxels
        weights = np.vstack([self._means, self._centred, np.full(n_chosen, 1 / n_chosen)])
        smoothness = self._process.lengthen(self._process.fit(chosen))
        drawn, squares = self._process.draw(smoothness, weights, n_surrogates, seed)
        moran = self._moran.draw(chosen, weights, n_surrogates, seed)
        # slopes as shares of a map's spread, which is that of the map itself in Moran surrogates
        spread = np.linalg.norm(chosen - chosen.mean())
        slopes = (moran[:, -2] / spread, drawn[:, -2] / np.sqrt(squares - n_chosen * drawn[:, -1] ** 2))
        # surrogates are of the thinned map, which has means of its own
        thinned = float(_spearman((self._means @ chosen)[None], self.ranks)[0])
        p_moran, p_smooth = (
            _share_beyond(thinned, _spearman(each[:, :n_rois], self.ranks)) for each in (moran, drawn)
        )
        return RegionAlignment(
            hierarchy=float(_spearman(means[None], self.ranks)[0]),
            p=max(p_moran, p_smooth),
            p_permutation=permute_ranks(means, self.ranks, seed, n_permutations),
            p_moran=p_moran,
            p_smooth=p_smooth,
            slope_p=max(_share_beyond(float(self._centred @ chosen / spread), each) for each in slopes),
            n_rois=n_rois,
        )


def whole_areas(rois: Sequence[Roi]) -> list[Roi]:
    """Ranked regions that lie in no larger region of the same rank."""
    ranked = [roi for roi in rois if roi.rank is not None]
    return [
        roi
        for roi in ranked
        if not any(
            other.rank == roi.rank
            and len(other.voxels) > len(roi.voxels)
            and np.isin(roi.voxels, other.voxels).all()
            for other in ranked
        )
    ]


def permute_ranks(
    means: Float[np.ndarray, " n_rois"],
    ranks: Float[np.ndarray, " n_rois"],
    seed: int,
    n_permutations: int = N_PERMUTATIONS,
) -> float:
    """Two-sided p of Spearman's ρ over permutations of ranks: exact up to eight regions.

    With more regions, `n_permutations` random permutations and the observed one.
    """
    exhaustive = factorial(len(ranks)) <= MOST_ORDERS
    x, y = rankdata(ranks), rankdata(means)

    def correlate(permuted: np.ndarray, axis: int = -1) -> np.ndarray:
        rows = np.moveaxis(permuted, axis, -1)
        return np.abs(_pearson(rows.reshape(-1, len(y)), y)).reshape(rows.shape[:-1])

    return float(
        permutation_test(
            (x,),
            correlate,
            permutation_type="pairings",
            vectorized=True,
            n_resamples=MOST_ORDERS if exhaustive else n_permutations,
            alternative="greater",
            rng=np.random.default_rng(seed),
        ).pvalue
    )


def _spearman(
    means: Float[np.ndarray, "n n_rois"], ranks: Float[np.ndarray, " n_rois"]
) -> Float[np.ndarray, " n"]:
    """Spearman's ρ of every row of means with the ranks."""
    return _pearson(rankdata(means, axis=-1), rankdata(ranks))


def _pearson(
    rows: Float[np.ndarray, "n n_rois"], values: Float[np.ndarray, " n_rois"]
) -> Float[np.ndarray, " n"]:
    rows, values = rows - rows.mean(axis=-1, keepdims=True), values - values.mean()
    found = rows @ values / (np.linalg.norm(rows, axis=-1) * np.linalg.norm(values))
    return found.round(12)  # rounding errors must not tell equal correlations apart


def _share_beyond(found: float, surrogates: np.ndarray) -> float:
    return float((1 + (np.abs(surrogates) >= abs(found)).sum()) / (1 + len(surrogates)))
