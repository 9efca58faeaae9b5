"""Regions of interest of the Natural Scenes Dataset: labels of voxels, with the names of their tables.

Atlases overlap: a voxel can be in V4, in a stream and in a place area at once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int

from harness.brains.algonauts.rois import (
    LABELS,
    rank_rois,
)
from harness.brains.brain import Roi
from harness.brains.cortex import REGIONS
from harness.brains.nsd.folder import read_names
from harness.brains.nsd.space import Space
from harness.brains.roi_names import check_roi_names
from harness.storage import (
    InputError,
    unknown_name,
)

log = logging.getLogger(__name__)

ATLASES = tuple(LABELS)
MMP = "HCP_MMP1"


def read_rois(
    space: Space, usable: Bool[np.ndarray, " n_places"], atlases: Sequence[str] | None
) -> tuple[Roi, ...]:
    """ROIs of atlases, one per label above 0 that a voxel has, in the order of atlases and labels.

    Of areas with an upper and a lower part (V1v, V1d) there is also the whole (V1), with its rank.
    A name that two atlases use is the first one's; the second's is given as ``atlas-name``.

    Parameters
    ----------
    space : Space
    usable : bool array [n_places]
        Which of the mask's places are voxels.
    atlases : sequence of str or None
        None: those of `ATLASES` that are there.

    Raises
    ------
    InputError
        If an atlas is missing or broken, or a label has no name.
    """
    rois: dict[str, Roi] = {}
    absent = []
    for atlas in ATLASES if atlases is None else atlases:
        labels = space.read_labels(atlas)
        if labels is None and atlases is None:
            absent.append(atlas)
            continue
        if labels is None:
            raise InputError(f"brain.atlases: {space.folder.root}: {unknown_name('atlas', atlas, ATLASES)}")
        labels = labels[usable]
        names, source = _name_labels(space, atlas)
        found: dict[str, Int[np.ndarray, " _"]] = {}
        for label in np.unique(labels[labels > 0]):
            voxels = np.flatnonzero(labels == label)
            if int(label) not in names:
                raise InputError(
                    f"{source}: found no name for label {label} of {atlas}, which {len(voxels)} voxels have; "
                    f"there is {', '.join(f'{number} {name}' for number, name in sorted(names.items()))}"
                )
            found[names[int(label)]] = voxels
        check_roi_names(list(found), source)
        for roi in _rank(atlas, found):
            name = f"{atlas}-{roi.name}" if roi.name in rois else roi.name
            rois[name] = replace(roi, name=name)
    if absent:
        log.warning(
            "warning: %s: found no atlas %s: their ROIs are missing", space.folder.root, ", ".join(absent)
        )
    return tuple(rois.values())


def _name_labels(space: Space, atlas: str) -> tuple[dict[int, str], str]:
    """Names of an atlas' labels, and where they stand."""
    paths = space.folder.names(atlas)
    found = read_names(paths)
    if found is not None:
        return found[1], str(found[0])
    if atlas in LABELS:
        log.warning("warning: %s: no such file; the data set's own names are used", paths[0])
        return dict(enumerate(LABELS[atlas], 1)), "the data set's own names"
    raise InputError(f"{paths[0]}: no such file, so the labels of {atlas} have no names")


def _rank(atlas: str, found: dict[str, Int[np.ndarray, " _"]]) -> list[Roi]:
    """Wholes before their parts, with ranks as in Algonauts 2023; areas of MMP 1.0 with their region's."""
    if atlas != MMP:
        return rank_rois(atlas, found)
    ranks = {area: region.rank for region in REGIONS for area in region.areas}
    return [Roi(name, voxels, ranks.get(name)) for name, voxels in found.items()]
