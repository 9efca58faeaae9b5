"""Which bottleneck channels voxels read: clusters of voxels, and the leading directions of a region.

Pure functions of the channel weights w of one fit. Every fit has its own bottleneck, so channel numbers,
cluster numbers and the colours of directions mean something within one fit only. `rewiring.compare_channels`
compares fits, independently of the basis of channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

N_CLUSTERS = 20
N_CENTROIDS = 1000  # k-means, before Ward's method
PASSES = 20  # at most; k-means need not converge, as its centroids are merged anyway
RANK_TOLERANCE = 1e-6  # singular values below this share of the largest are rounding errors


@dataclass(frozen=True)
class Directions:
    """Singular vectors of a region's channel weights [n_roi_voxels, n_channels], the leading ones first.

    Attributes
    ----------
    channels : float array [rank, n_channels]
        Right singular vectors, of length 1: what is read. The sign makes the region's mean weight along the
        direction non-negative: the more of it an image has, the higher the region's mean response. If that
        mean is 0, the largest entry is positive.
    voxels : float array [n_roi_voxels, rank]
        Left singular vectors: which voxels read it, and with which sign.
    share : float array [rank], 0 to 1
        Share of the weights' sum of squares.
    """

    channels: Float[np.ndarray, "rank n_channels"]
    voxels: Float[np.ndarray, "n_roi_voxels rank"]
    share: Float[np.ndarray, " rank"]


def unit_rows(weights: Float[np.ndarray, "n_voxels n_channels"]) -> Float[np.ndarray, "n_voxels n_channels"]:
    """Scale weights to length 1 per voxel, in float64; zero weights stay zero.

    Responses are standardised, so the length of w says how well a voxel is predicted, which depends on its
    noise. The direction says what it reads.
    """
    rows = np.asarray(weights, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def count_distinct(rows: Float[np.ndarray, "n_voxels n_channels"]) -> int:
    """Count rows that differ by more than rounding: the largest possible number of clusters."""
    return len(np.unique(rows.round(6), axis=0))


def leading_directions(
    weights: Float[np.ndarray, "n_roi_voxels n_channels"], n_directions: int = 3
) -> Directions:
    """Find the directions in which a region's weights are largest; no more than the weights' rank.

    Weights are not centred: what all voxels of a region read is the first thing to know. They are not scaled:
    voxels that are predicted better say more about their region.

    Parameters
    ----------
    weights : float array [n_roi_voxels, n_channels]
    n_directions : int
    """
    rows = np.asarray(weights, dtype=np.float64)
    left, singular_values, right = np.linalg.svd(rows, full_matrices=False)
    tolerance = RANK_TOLERANCE * max(singular_values[0], np.finfo(float).tiny)
    rank = min(n_directions, int((singular_values > tolerance).sum()))
    left, values, right = left[:, :rank], singular_values[:rank], right[:rank]
    mean = left.sum(axis=0) / np.sqrt(len(rows))
    largest = np.take_along_axis(right, np.abs(right).argmax(axis=1)[:, None], axis=1)[:, 0]
    sign = np.sign(np.where(np.abs(mean) > RANK_TOLERANCE, mean, largest))
    total = (singular_values**2).sum()
    return Directions(right * sign[:, None], left * sign, values**2 / max(total, np.finfo(float).tiny))


def cluster_channels(
    weights: Float[np.ndarray, "n_voxels n_channels"], n_clusters: int, seed: int
) -> Int[np.ndarray, " n_voxels"]:
    """Cluster voxels that read alike: k-means to many centroids, then Ward's method on the centroids.

    As in Yang, Gee and Shi, "Brain Decodes Deep Nets" (CVPR 2024), but on weights of length 1 (`unit_rows`):
    otherwise clusters would separate well-predicted voxels from the rest. Zero weights form their own
    cluster or join the nearest.

    Parameters
    ----------
    weights : float array [n_voxels, n_channels]
    n_clusters : int
        Fewer if fewer voxels differ.
    seed : int
        Seed of k-means. Unused up to `N_CENTROIDS` voxels, as each is then a centroid.

    Returns
    -------
    int array [n_voxels], 0 to n_clusters − 1
        Neighbouring numbers read alike. Clusters are numbered in the optimal leaf order (Bar-Joseph et al.
        2001) of a Ward tree of their means; the larger of the two ends is cluster 0. The same weights and
        seed give the same numbers.
    """
    # scipy's and scikit-learn's parts take seconds to import
    from scipy.cluster.hierarchy import fcluster, linkage

    unit = unit_rows(weights)
    n_distinct = count_distinct(unit)
    centroids, nearest = unit, np.arange(len(unit))
    if len(unit) > N_CENTROIDS:
        from sklearn.cluster import KMeans

        # k-means++ would dominate the run time, and this many centroids cover the space anyway
        k_means = KMeans(
            min(N_CENTROIDS, n_distinct), init="random", n_init=1, max_iter=PASSES, random_state=seed
        ).fit(unit)
        centroids, nearest = k_means.cluster_centers_, k_means.labels_
    if min(n_clusters, n_distinct, len(centroids)) < 2:
        return np.zeros(len(unit), dtype=np.int64)
    joined = fcluster(linkage(centroids, "ward"), min(n_clusters, n_distinct), "maxclust")
    return _order_clusters(unit, joined[nearest])


def _order_clusters(
    unit: Float[np.ndarray, "n_voxels n_channels"], clusters: Int[np.ndarray, " n_voxels"]
) -> Int[np.ndarray, " n_voxels"]:
    """Number clusters so that neighbours read alike."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    found, clusters, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    if len(found) < 2:
        return np.zeros(len(unit), dtype=np.int64)
    means = np.stack([unit[clusters == index].mean(axis=0) for index in range(len(found))])
    order = leaves_list(linkage(means, "ward", optimal_ordering=True))
    if sizes[order[-1]] > sizes[order[0]]:
        order = order[::-1]
    return np.argsort(order)[clusters].astype(np.int64)


def match_clusters(
    reference: Int[np.ndarray, " n_voxels"], clusters: Int[np.ndarray, " n_voxels"]
) -> Int[np.ndarray, " n_voxels"]:
    """Renumber clusters so that as many voxels as possible have the number they have in `reference`.

    For colouring two fits side by side, whose clusters share nothing but voxels. How well they agree, and
    whether less than refits do, is measured by `rewiring.compare_channels`. Clusters without a partner get
    the next numbers.
    """
    from scipy.optimize import linear_sum_assignment

    n_reference, n_clusters = int(reference.max()) + 1, int(clusters.max()) + 1
    shared = np.zeros((max(n_reference, n_clusters), n_clusters), dtype=np.int64)
    np.add.at(shared, (reference, clusters), 1)
    numbers, partners = linear_sum_assignment(shared, maximize=True)
    return numbers[np.argsort(partners)][clusters]
