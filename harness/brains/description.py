"""Describe what a brain holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.brains.brain import (
    Brain,
    Roi,
)

PARTS = {
    "noise_ceiling": "noise ceiling",
    "n_repeats": "repeats",
    "session": "sessions",
    "shared": "pictures that all subjects saw",
    "surface": "surface to draw on",
}
"""Optional parts of a brain, in words."""


def describe_brain(brain: Brain) -> list[tuple[str, str]]:
    """Return label and text of each line."""
    n_pictures = len(np.unique(brain.stimulus_ids))
    rows = (
        f"{brain.n_images:,} rows of {n_pictures:,} pictures, {' × '.join(map(str, brain.stimuli[0].size))}"
    )
    sides = ", ".join(f"{side} {int((brain.hemisphere == side).sum()):,}" for side in ("L", "R"))
    lines = [("stimuli", rows), ("voxels", f"{brain.n_voxels:,} ({sides})")]
    lines += [("repeats", _count(brain.n_repeats, "rows of {} presentations"))]
    if brain.session is not None:
        lines.append(("sessions", f"{len(np.unique(brain.session))}"))
    if brain.shared is not None:
        lines.append(("shared", f"{int(brain.shared.sum()):,} rows show pictures that all subjects saw"))
    if brain.noise_ceiling is not None:
        quartiles = ", ".join(f"{value:.2f}" for value in np.quantile(brain.noise_ceiling, (0.25, 0.5, 0.75)))
        low, high = brain.noise_ceiling.min(), brain.noise_ceiling.max()
        lines.append(("ceiling", f"quartiles {quartiles} ({low:.2f} to {high:.2f})"))
    missing = [words for part, words in PARTS.items() if getattr(brain, part) is None]
    lines.append(("unknown", ", ".join(missing) or "nothing"))
    lines += [("regions", "none")] * (not brain.rois)
    lines += [("regions" if place == 0 else "", text) for place, text in enumerate(_describe_rois(brain))]
    outside = np.setdiff1d(np.arange(brain.n_voxels), [voxel for roi in brain.rois for voxel in roi.voxels])
    return [*lines, ("", f"{len(outside):,} voxels are in no region")] if len(outside) else lines


def _count(values: np.ndarray | None, text: str) -> str:
    """Count each value, as ``900 rows of 3 presentations``."""
    if values is None:
        return "unknown"
    found = zip(*np.unique(values, return_counts=True), strict=True)
    return ", ".join(f"{count:,} {text.format(value)}" for value, count in sorted(found, reverse=True))


def _describe_rois(brain: Brain) -> Iterator[str]:
    width = max((len(roi.name) for roi in brain.rois), default=0)
    for roi in sorted(brain.rois, key=_rank):
        rank = "no rank" if roi.rank is None else f"rank {roi.rank:g}"
        text = f"{roi.name:{width}} {len(roi.voxels):6,} voxels, {rank}"
        if brain.noise_ceiling is not None:
            text += f", median ceiling {np.median(brain.noise_ceiling[roi.voxels]):.2f}"
        yield text


def _rank(roi: Roi) -> float:
    return np.inf if roi.rank is None else roi.rank
