"""Regions of interest of the Natural Scenes Dataset, from label maps and tables of names.

Atlases overlap: a voxel can be in V4, in a stream and in a place-selective area at once.
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
    """Read the ROIs of atlases: one per positive label of any voxel, in the order of atlases and labels.

    Areas in two parts (V1v, V1d) are also listed as a whole (V1), with its rank. If two atlases use the same
    name, the second one's becomes ``atlas-name``.

    Parameters
    ----------
    space : Space
    usable : bool array [n_places]
        Which points of the mask are voxels.
    atlases : sequence of str or None
        None: all of `ATLASES` that exist.

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
                    f"{source}: found no name for label {label} of {atlas} ({len(voxels)} voxels), only "
                    f"{', '.join(f'{number} {name}' for number, name in sorted(names.items()))}"
                )
            found[names[int(label)]] = voxels
        check_roi_names(list(found), source)
        for roi in _rank(atlas, found):
            name = f"{atlas}-{roi.name}" if roi.name in rois else roi.name
            rois[name] = replace(roi, name=name)
    if absent:
        log.warning(
            "warning: %s: found no atlas %s; their ROIs are missing", space.folder.root, ", ".join(absent)
        )
    return tuple(rois.values())


def _name_labels(space: Space, atlas: str) -> tuple[dict[int, str], str]:
    """Label names of an atlas, and their source."""
    paths = space.folder.names(atlas)
    found = read_names(paths)
    if found is not None:
        return found[1], str(found[0])
    if atlas in LABELS:
        log.warning("warning: %s: no such file; using the published label names", paths[0])
        return dict(enumerate(LABELS[atlas], 1)), "the published label names"
    raise InputError(f"{paths[0]}: no such file; expected names for the labels of {atlas}")


def _rank(atlas: str, found: dict[str, Int[np.ndarray, " _"]]) -> list[Roi]:
    """ROIs with ranks: as in Algonauts 2023, wholes before their parts; MMP 1.0 areas as their region."""
    if atlas != MMP:
        return rank_rois(atlas, found)
    ranks = {area: region.rank for region in REGIONS for area in region.areas}
    return [Roi(name, voxels, ranks.get(name)) for name, voxels in found.items()]
