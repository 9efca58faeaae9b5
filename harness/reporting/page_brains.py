"""Brains as pages need them: without responses, and their regions in order over several brains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.brains import (
    Brain,
    group_areas,
)


def leave_rows_out(brain: Brain) -> Brain:
    """Keep what maps need of a brain: neither stimuli nor responses."""
    return replace(
        brain,
        stimuli=(),
        responses=np.empty((0, brain.n_voxels), np.float32),
        stimulus_ids=np.empty(0, np.int64),
        n_repeats=None,
        session=None,
        shared=None,
    )


def order_places(brains: Sequence[Brain]) -> list[str]:
    """Names of all ROIs in order of the hierarchy, unranked ones last.

    A region ranked in several brains has the lowest of its ranks, whatever the order of the brains.
    """
    ranks: dict[str, float] = {}
    for roi in (roi for brain in brains for roi in brain.rois):
        ranks[roi.name] = min(ranks.get(roi.name, np.inf), np.inf if roi.rank is None else roi.rank)
    return sorted(ranks, key=ranks.__getitem__)


def name_areas(brains: Sequence[Brain]) -> dict[str, list[str]]:
    """Names of the regions in each group of areas, in order of the hierarchy, over all brains."""
    groups: dict[str, set[str]] = {}
    for brain in brains:
        for group, rois in group_areas(brain.rois).items():
            groups.setdefault(group, set()).update(roi.name for roi in rois)
    order = order_places(brains)
    return {group: sorted(names, key=order.index) for group, names in groups.items()}
