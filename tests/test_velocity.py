"""Velocity and step of change against hand values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from harness.measures.velocity import change_steps, region_velocity


def at(depth: float, n_voxels: int = 4) -> np.ndarray:
    """Distributions over three layers with a mean depth between the first two."""
    return np.tile([1 - 2 * depth, 2 * depth, 0.0], (n_voxels, 1)).astype(np.float32)


def test_velocity_is_distance_over_steps() -> None:
    layers = {0: at(0.0), 10: at(0.1), 60: at(0.1), 160: at(0.3)}
    assert region_velocity(layers, slice(None)) == pytest.approx({10: 1.0, 60: 0.0, 160: 0.2}, abs=1e-6)


def test_velocity_is_that_of_the_region_mean() -> None:
    draw = np.random.default_rng(0)
    layers = {0: draw.dirichlet(np.ones(5), 30), 25: draw.dirichlet(np.ones(5), 30)}
    voxels = np.array([3, 4, 17])
    depth = np.linspace(0, 1, 5)
    one, other = (layers[step][voxels].mean(axis=0) for step in (0, 25))
    expected = wasserstein_distance(depth, depth, one, other) * 100 / 25
    assert region_velocity(layers, voxels)[25] == pytest.approx(expected)
    # two voxels that swap their layers leave the region where it was
    swapped = {0: np.eye(3)[[0, 2]], 5: np.eye(3)[[2, 0]]}
    assert region_velocity(swapped, slice(None)) == {5: 0.0}


def test_change_is_where_half_of_the_way_is_passed() -> None:
    layers = {0: at(0.0), 10: at(0.1), 20: at(0.1), 40: at(0.4), 80: at(0.3)}
    found = change_steps(layers, [at(0.01)], slice(None))
    # up to step 10 and 20, half of .1 is passed at step 5; from step 40 on, half of .4 a third of the way
    # from step 20 (.1) to step 40 (.4)
    assert found == pytest.approx({10: 5.0, 20: 5.0, 40: 20 + 20 / 3, 80: 20 + 20 / 3}, abs=1e-3)


def test_no_step_of_change_within_the_spread_of_refits() -> None:
    layers = {0: at(0.0), 10: at(0.1), 20: at(0.3)}
    assert list(change_steps(layers, [at(0.05), at(0.2)], slice(None))) == [20]
    assert change_steps(layers, [at(0.4)], slice(None)) == {}
    assert change_steps({0: at(0.1), 10: at(0.1)}, [at(0.1)], slice(None)) == {}


def test_only_the_voxels_of_the_region_count() -> None:
    later = np.concatenate([at(0.0, 2), at(0.4, 2)])
    layers = {0: at(0.0), 10: later}
    assert change_steps(layers, [at(0.0)], np.array([0, 1])) == {}
    assert change_steps(layers, [at(0.0)], np.array([2, 3])) == pytest.approx({10: 5.0})
