"""Hierarchy alignment: do higher areas read from deeper layers?

Pure functions of expected depth per voxel (`rewiring.expected_depth`) and ROI rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import linregress, spearmanr

from harness.brains import Roi

ROUNDING = 1e-6
"""Depths closer than this count as equal: selectors are float32."""


@dataclass(frozen=True)
class Hierarchy:
    """Hierarchy alignment of one mapping.

    Attributes
    ----------
    hierarchy : float in [−1, 1]
        Spearman correlation between a voxel's ROI rank and its expected depth: 1 if depth rises with rank.
        The brain hierarchy score of Nonaka et al. (2021) uses the most predictive layer instead of expected
        depth. 0 if undefined: all depths equal, or fewer than two ranks.
    slope, intercept_low, intercept_high : float
        Least-squares line of expected depth (y) on ROI rank scaled to [0, 1] (x), one point per voxel: slope,
        b0 = fit(0) and b1 = fit(1) = b0 + slope. A larger slope, smaller b0 and larger b1 are more
        brain-like. The definition is ours: the papers that report the three do not give theirs. With fewer
        than two ranks the slope is 0 and b0 = b1 is the mean depth (0 without voxels).
    """

    hierarchy: float
    slope: float
    intercept_low: float
    intercept_high: float


def voxel_ranks(rois: Sequence[Roi], n_voxels: int) -> Float[np.ndarray, " n_voxels"]:
    """Rank of each voxel's ROI: the mean over its ranked ROIs, NaN if it has none."""
    total, count = np.zeros(n_voxels), np.zeros(n_voxels)
    for roi in rois:
        if roi.rank is not None:
            total[roi.voxels] += roi.rank
            count[roi.voxels] += 1
    return np.divide(total, count, out=np.full(n_voxels, np.nan), where=count > 0)


def hierarchy_alignment(
    depth: Float[np.ndarray, " n_voxels"],
    ranks: Float[np.ndarray, " n_voxels"],
    mask: Bool[np.ndarray, " n_voxels"] | None = None,
) -> Hierarchy:
    """Measure how well a mapping's depths follow the visual hierarchy.

    Parameters
    ----------
    depth : float array [n_voxels], in [0, 1]
    ranks : float array [n_voxels]
        From `voxel_ranks`; voxels of rank NaN are skipped. Ranks are scaled to [0, 1] before masking, so b0
        and b1 refer to the same areas whatever the mask.
    mask : bool array [n_voxels], optional
        Voxels to use, such as ``noise_ceiling > 0.3``. Default: all.
    """
    ranked = np.isfinite(ranks)
    taken = ranked if mask is None else ranked & mask
    if not taken.any():
        return Hierarchy(0.0, 0.0, 0.0, 0.0)
    y = np.asarray(depth[taken], dtype=np.float64)
    if np.ptp(ranks[taken]) == 0:
        return Hierarchy(0.0, 0.0, float(y.mean()), float(y.mean()))
    x = (ranks[taken] - ranks[ranked].min()) / np.ptp(ranks[ranked])
    line = linregress(x, y)
    spearman = 0.0 if np.ptp(y) < ROUNDING else float(spearmanr(x, y).statistic)
    return Hierarchy(
        hierarchy=spearman,
        slope=float(line.slope),
        intercept_low=float(line.intercept),
        intercept_high=float(line.intercept + line.slope),
    )
