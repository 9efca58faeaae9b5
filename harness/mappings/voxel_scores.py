"""Scores of predicted responses, per voxel."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float

AT_ONCE = 8192  # voxels


def score(
    prediction: Float[np.ndarray, "n_images n_voxels"], responses: Float[np.ndarray, "n_images n_voxels"]
) -> tuple[Float[np.ndarray, " n_voxels"], Float[np.ndarray, " n_voxels"]]:
    """Compute R² (1 - SSE/SST) and Pearson correlation per voxel, float32.

    R² is 0 for constant responses; the correlation is 0 if responses or predictions are constant. `AT_ONCE`
    voxels are scored at a time, because that takes several copies in double precision.
    """
    n_voxels = prediction.shape[1]
    # of equal width: numpy sums a single column in another order
    n_parts = max(-(-n_voxels // AT_ONCE), 1)
    edges = [n_voxels * part // n_parts for part in range(n_parts + 1)]
    parts = [_score(prediction[:, a:b], responses[:, a:b]) for a, b in pairwise(edges)]
    r2, correlation = zip(*parts, strict=True)
    return np.concatenate(r2), np.concatenate(correlation)


def _score(
    prediction: Float[np.ndarray, "n_images n_voxels"], responses: Float[np.ndarray, "n_images n_voxels"]
) -> tuple[Float[np.ndarray, " n_voxels"], Float[np.ndarray, " n_voxels"]]:
    found, truth = prediction.astype(np.float64), responses.astype(np.float64)
    varies = np.ptp(truth, axis=0) > 0
    error = np.square(truth - found).sum(axis=0)
    found_centred, truth_centred = found - found.mean(axis=0), truth - truth.mean(axis=0)
    total = np.square(truth_centred).sum(axis=0)
    norms = np.sqrt(np.square(found_centred).sum(axis=0) * total)
    products = (found_centred * truth_centred).sum(axis=0)
    defined = varies & (np.ptp(found, axis=0) > 0) & (norms > 0)
    r2 = 1 - np.divide(error, total, out=np.ones_like(total), where=varies & (total > 0))
    correlation = np.divide(products, norms, out=np.zeros_like(norms), where=defined)
    return r2.astype(np.float32), correlation.clip(-1, 1).astype(np.float32)
