"""How fast a region's layer distribution moves, and when: pure functions of distributions by step.

They compare the mean distributions of a region's voxels, not voxels one by one: noise of single voxels, which
has no direction, cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from harness.measures.rewiring import wasserstein

PER_STEPS = 100  # velocities are shares of the depth per this many optimizer steps
HALF = 0.5

Layers = Float[np.ndarray, "n_voxels n_layers"]


def region_velocity(
    layers: Mapping[int, Layers], voxels: Int[np.ndarray, " n_roi_voxels"] | slice
) -> dict[int, float]:
    """Compute how far a region's layer distribution moves per 100 optimizer steps, up to each step but 0.

    W1 of the mean distributions at one snapshot and the one before, on depth l/(L−1), over the steps between.

    Parameters
    ----------
    layers : dict of step to float array [n_voxels, n_layers]
        Layer distributions; at least two steps.
    voxels : int array or slice
        The region's voxels.
    """
    steps = sorted(layers)
    means = _means([layers[step] for step in steps], voxels)
    moved = wasserstein(means[:-1], means[1:])
    return {
        after: float(distance / (after - before) * PER_STEPS)
        for before, after, distance in zip(steps[:-1], steps[1:], moved, strict=True)
    }


def change_steps(
    layers: Mapping[int, Layers],
    refits: Sequence[Layers],
    voxels: Int[np.ndarray, " n_roi_voxels"] | slice,
) -> dict[int, float]:
    """Find the step at which a region's layer distribution changes, as far as each snapshot can say.

    That is where its distance from step 0 first reaches half of the largest distance so far, interpolated
    between snapshots. Steps up to which no snapshot is farther from step 0 than the farthest refit are
    absent: nothing is known to have changed.

    Parameters
    ----------
    layers : dict of step to float array [n_voxels, n_layers]
        Layer distributions, including step 0's.
    refits : sequence of float arrays [n_voxels, n_layers]
        Further fits of step 0, at least one.
    voxels : int array or slice
        The region's voxels.
    """
    steps = np.array(sorted(layers))
    start = _means([layers[0]], voxels)

    def from_start(others: Sequence[Layers]) -> Float[np.ndarray, " n_fits"]:
        return wasserstein(start.repeat(len(others), axis=0), _means(others, voxels))

    floor = from_start(refits).max()
    distances = from_start([layers[step] for step in steps])
    found = {}
    for last in range(1, len(steps)):
        largest = distances[: last + 1].max()
        if largest <= floor:
            continue
        # step 0 is at distance 0, so there is a snapshot before
        after = int(np.argmax(distances >= HALF * largest))
        before = after - 1
        share = (HALF * largest - distances[before]) / (distances[after] - distances[before])
        found[int(steps[last])] = float(steps[before] + share * (steps[after] - steps[before]))
    return found


def _means(
    layers: Sequence[Layers], voxels: Int[np.ndarray, " n_roi_voxels"] | slice
) -> Float[np.ndarray, "n_fits n_layers"]:
    return np.stack([np.asarray(each[voxels], dtype=np.float64).mean(axis=0) for each in layers])
