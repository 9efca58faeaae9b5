"""Early, middle and high areas: the ranked regions of a brain in three groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.brains.brain import Roi

AREA_GROUPS = ("early_areas", "middle_areas", "high_areas")
"""Their names in metrics; no region may have them."""


def group_areas(rois: Sequence[Roi]) -> dict[str, tuple[Roi, ...]]:
    """Divide ranked regions at the tertiles of the brain's distinct ranks.

    With ranks 1 to 6, as in the simulated subject, early areas are V1 and V2, middle areas V3 and V4, and
    high areas all others. Tertiles are of distinct ranks, not of regions, so no group is empty because one
    rank has many regions.

    Parameters
    ----------
    rois : sequence of Roi
        Unranked ones are in no group.

    Returns
    -------
    dict of group to tuple of Roi
        All three groups, or none if there are fewer than three ranks.
    """
    ranked = [(roi, roi.rank) for roi in rois if roi.rank is not None]
    distinct = np.unique([rank for _, rank in ranked])
    if len(distinct) < len(AREA_GROUPS):
        return {}
    n_ranks = len(distinct)
    # whole thirds of the ranks; what is left over falls to the outer groups, or one rank to the middle
    group = [len(AREA_GROUPS) * (2 * place + 1) // (2 * n_ranks) for place in range(n_ranks)]
    group_of = dict(zip(distinct.tolist(), group, strict=True))
    return {
        name: tuple(roi for roi, rank in ranked if group_of[rank] == index)
        for index, name in enumerate(AREA_GROUPS)
    }
