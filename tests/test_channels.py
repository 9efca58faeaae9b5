"""Clusters of voxels and directions of regions, against planted ones and numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group
from sklearn.metrics import adjusted_rand_score

from harness.measures.channels import (
    N_CENTROIDS,
    cluster_channels,
    leading_directions,
    match_clusters,
    unit_rows,
)

SIZES = (20, 60, 35, 45, 40)


def planted_weights(sizes: tuple[int, ...], seed: int, n_channels: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Draw shuffled voxels of several kinds; weights lie about their kind's direction and have any length."""
    rng = np.random.default_rng(seed)
    kind = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = np.eye(n_channels)[: len(sizes)]
    length = rng.uniform(0.1, 4, (len(kind), 1))
    return length * (centres[kind] + 0.08 * rng.normal(size=(len(kind), n_channels))), kind


@pytest.mark.parametrize("times", [1, 8])
def test_planted_clusters_are_recovered(times: int) -> None:
    weights, kind = planted_weights(tuple(times * size for size in SIZES), 0)
    assert (len(weights) > N_CENTROIDS) == (times == 8)  # with k-means, and without
    found = cluster_channels(weights, len(SIZES), seed=0)
    assert adjusted_rand_score(kind, found) == 1
    assert sorted(np.unique(found)) == list(range(len(SIZES)))


def test_the_basis_of_the_bottleneck_does_not_matter_nor_do_lengths() -> None:
    weights, _ = planted_weights(SIZES, 1)
    found = cluster_channels(weights, 5, seed=0)
    rotation = ortho_group.rvs(12, random_state=2)
    lengths = np.random.default_rng(3).uniform(0.1, 9, (len(weights), 1))
    np.testing.assert_array_equal(cluster_channels(lengths * (weights @ rotation), 5, seed=0), found)


def test_clusters_that_read_alike_have_neighbouring_numbers() -> None:
    # on a quarter circle, shuffled: the leaves of the tree can be put in that order
    angles = np.radians([50, 0, 90, 20, 70])
    kind = np.repeat(np.arange(5), [30, 30, 50, 30, 30])
    rows = np.stack([np.cos(angles[kind]), np.sin(angles[kind])], axis=1)
    found = cluster_channels(rows + 0.01 * np.random.default_rng(0).normal(size=rows.shape), 5, seed=0)
    number = [int(found[kind == index][0]) for index in range(5)]
    # 90° is the larger end, so it is the first
    assert number == [2, 4, 0, 3, 1]


def test_equal_weights_and_seeds_give_equal_clusters() -> None:
    weights, _ = planted_weights(tuple(6 * size for size in SIZES), 4)
    weights += np.random.default_rng(5).normal(size=weights.shape)
    copy, state = weights.copy(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = cluster_channels(weights, 8, seed=3), cluster_channels(weights, 8, seed=3)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(weights, copy)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    assert first.dtype == np.int64


def test_there_are_no_more_clusters_than_kinds_of_voxels() -> None:
    rows = np.repeat(np.eye(3), 500, axis=0)
    assert len(np.unique(cluster_channels(rows, 20, seed=0))) == 3
    assert not cluster_channels(np.ones((1, 4)), 20, seed=0).any()
    assert not cluster_channels(np.zeros((5, 4)), 20, seed=0).any()
    assert not cluster_channels(rows, 1, seed=0).any()
    # zero weights have no direction, but are kept
    silent = cluster_channels(np.concatenate([np.zeros((4, 3)), np.eye(3).repeat(4, axis=0)]), 4, seed=0)
    assert len(np.unique(silent[:4])) == 1
    assert silent[0] not in silent[4:]


def test_unit_rows_by_hand() -> None:
    np.testing.assert_allclose(unit_rows(np.array([[3, 4], [0, 0]], np.float32)), [[0.6, 0.8], [0, 0]])


def test_clusters_are_matched_by_their_voxels() -> None:
    reference = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(match_clusters(reference, np.array([2, 2, 2, 0, 0, 1, 1, 1])), reference)
    # where two clusters overlap the same one, the larger overlap wins; the other gets a new number
    np.testing.assert_array_equal(
        match_clusters(reference, np.array([0, 1, 1, 2, 2, 3, 3, 3])), [3, 0, 0, 1, 1, 2, 2, 2]
    )
    np.testing.assert_array_equal(
        match_clusters(reference, np.array([0, 0, 0, 0, 0, 1, 1, 1])), [0, 0, 0, 0, 0, 2, 2, 2]
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6))
def test_matching_renames_and_never_agrees_less(seed: int, n_before: int, n_after: int) -> None:
    rng = np.random.default_rng(seed)
    reference, clusters = (
        rng.permutation(np.concatenate([np.arange(n), rng.integers(0, n, 30 - n)]))
        for n in (n_before, n_after)
    )
    found = match_clusters(reference, clusters)
    assert len(set(zip(found.tolist(), clusters.tolist(), strict=True))) == n_after
    assert found.max() < max(n_before, n_after)
    assert (found == reference).sum() >= (clusters == reference).sum()


def test_directions_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(30, 8)).astype(np.float32) + 0.5
    found = leading_directions(weights, 3)
    left, values, right = np.linalg.svd(weights.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(found.share, values[:3] ** 2 / (values**2).sum(), atol=1e-12)
    for k in range(3):
        sign = np.sign((weights @ right[k]).sum())
        np.testing.assert_allclose(found.channels[k], sign * right[k], atol=1e-10)
        np.testing.assert_allclose(found.voxels[:, k], sign * left[:, k], atol=1e-10)


def test_directions_by_hand() -> None:
    # two voxels read channel 1 (against each other: 5 and −3), one reads −2 of channel 0, and none channel 2
    weights = np.array([[0, 5, 0], [0, -3, 0], [-2, 0, 0]], np.float64)
    found = leading_directions(weights)
    assert found.channels.shape == (2, 3)
    # signs: mean weight of channel 1 is positive, of channel 0 negative
    np.testing.assert_allclose(found.channels, [[0, 1, 0], [-1, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(found.share, [34 / 38, 4 / 38])
    np.testing.assert_allclose(found.voxels, [[5 / 34**0.5, 0], [-3 / 34**0.5, 0], [0, 1]], atol=1e-12)


def test_the_largest_entry_decides_a_sign_that_the_mean_does_not() -> None:
    weights = np.array([[1.0, -2.0], [-1.0, 2.0]])
    np.testing.assert_allclose(leading_directions(weights).channels, [[-1 / 5**0.5, 2 / 5**0.5]])
    assert leading_directions(np.zeros((3, 4))).channels.shape == (0, 4)
    assert leading_directions(weights, 1).share == pytest.approx([1])
