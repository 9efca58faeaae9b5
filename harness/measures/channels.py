"""Which bottleneck channels voxels read: clusters of voxels, and the leading directions of a region.

Pure functions on the channel weights w of one fit. Each fit has its own bottleneck, so channel d of one is
not channel d of another, and neither are a cluster's number or a direction's colour: what is found here holds
within a fit. Fits are compared by `rewiring.compare_channels`, which no basis of channels changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans

N_CLUSTERS = 20
N_CENTROIDS = 1000  # of k-means, before Ward's method
PASSES = 20  # of k-means at most: its centroids are joined anyway
RANK_TOLERANCE = 1e-6  # singular values below this share of the largest are rounding


@dataclass(frozen=True)
class Directions:
    """Singular vectors of a region's channel weights [n_roi_voxels, n_channels], the leading ones first.

    Attributes
    ----------
    channels : float array [rank, n_channels]
        Right singular vectors, of length 1: what is read. A sign is such that the region's mean weight along
        the direction is not negative: the more of it an image has, the higher the region's mean response.
        Where that mean is 0, the largest entry is positive.
    voxels : float array [n_roi_voxels, rank]
        Left singular vectors: who reads it, with which sign.
    share : float array [rank], 0 to 1
        Of the weights' sum of squares.
    """

    channels: Float[np.ndarray, "rank n_channels"]
    voxels: Float[np.ndarray, "n_roi_voxels rank"]
    share: Float[np.ndarray, " rank"]


def unit_rows(weights: Float[np.ndarray, "n_voxels n_channels"]) -> Float[np.ndarray, "n_voxels n_channels"]:
    """Weights scaled to length 1 per voxel, in float64; weights of 0 stay so.

    As responses are standardised, the length of w says how well a voxel is predicted, which differs by its
    noise; the direction says what it reads.
    """
    rows = np.asarray(weights, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def count_distinct(rows: Float[np.ndarray, "n_voxels n_channels"]) -> int:
    """Number of rows that differ by more than rounding: no more clusters than that can be asked for."""
    return len(np.unique(rows.round(6), axis=0))


def leading_directions(
    weights: Float[np.ndarray, "n_roi_voxels n_channels"], n_directions: int = 3
) -> Directions:
    """Directions in which a region's weights are largest, as many as asked for or as the weights' rank.

    The weights are neither centred, since what all voxels of a region read is the first thing to know, nor
    scaled: a voxel that is predicted better says more of what its region reads.

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
    """Clusters of voxels that read alike: k-means to many centroids, which Ward's method then joins.

    As in Yang, Gee and Shi, "Brain Decodes Deep Nets" (CVPR 2024), but on weights of length 1 (`unit_rows`):
    otherwise clusters would tell well predicted voxels from others. Voxels of weight 0 are a cluster of
    their own, or with the nearest.

    Parameters
    ----------
    weights : float array [n_voxels, n_channels]
    n_clusters : int
        There are fewer if fewer voxels differ.
    seed : int
        Of k-means. Up to `N_CENTROIDS` voxels nothing is drawn, as each is a centroid.

    Returns
    -------
    int array [n_voxels], 0 to n_clusters − 1
        Neighbouring numbers are clusters that read alike: they stand in the order of the leaves of a Ward
        tree of the clusters' means, turned so that neighbours are as near as can be (Bar-Joseph et al. 2001)
        and the larger of the two ends is cluster 0. The same weights and seed give the same numbers.
    """
    unit = unit_rows(weights)
    n_distinct = count_distinct(unit)
    centroids, nearest = unit, np.arange(len(unit))
    if len(unit) > N_CENTROIDS:
        # k-means++ would take most of the time, and so many centroids lie everywhere anyway
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
    """Number clusters so that neighbours are alike."""
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
    """The same clusters, numbered so that as many voxels as can be have the number they have in `reference`.

    For colours of two fits side by side: clusters of fits have nothing in common but voxels. How much they
    agree, and whether less than refits do, is for `rewiring.compare_channels` to say. Clusters that
    find no partner are numbered on.
    """
    n_reference, n_clusters = int(reference.max()) + 1, int(clusters.max()) + 1
    shared = np.zeros((max(n_reference, n_clusters), n_clusters), dtype=np.int64)
    np.add.at(shared, (reference, clusters), 1)
    numbers, partners = linear_sum_assignment(shared, maximize=True)
    return numbers[np.argsort(partners)][clusters]
