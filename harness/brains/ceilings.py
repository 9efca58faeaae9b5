"""Noise ceilings: the share of a voxel's variance that a perfect model could explain.

Allen et al. 2022, Nature Neuroscience 25:116: a response is signal plus noise, independent across trials. In
the average of n trials, signal has the share σ_signal² / (σ_signal² + σ_noise² / n) of the variance. If rows
average different numbers of trials, 1/n is averaged over rows: (A/3 + B/2 + C) / (A + B + C) for A, B and C
images shown 3, 2 and 1 times.
"""

from __future__ import annotations

import logging

import numpy as np
from jaxtyping import Float, Int

from harness.brains.repeats import (
    Averaged,
    Rows,
)

log = logging.getLogger(__name__)

ENOUGH = 30
"""Fewest degrees of freedom (trials minus images) for a usable noise variance."""


def ceiling_from_ncsnr(
    ncsnr: Float[np.ndarray, " n_voxels"], n_repeats: Int[np.ndarray, " n_images"]
) -> Float[np.ndarray, " n_voxels"]:
    """Noise ceiling from the data set's ncsnr: σ_signal / σ_noise of single trials.

    Parameters
    ----------
    ncsnr : float array [n_voxels], 0 or more; non-finite or negative values count as 0
    n_repeats : int array [n_images]
        Trials that each row averages.

    Returns
    -------
    float32 array [n_voxels], 0 to 1
    """
    power = np.square(np.where(np.isfinite(ncsnr), np.maximum(ncsnr, 0), 0), dtype=np.float64)
    return (power / (power + np.mean(1 / n_repeats))).astype(np.float32)


def ceiling_from_variances(
    noise: Float[np.ndarray, " n_voxels"],
    total: Float[np.ndarray, " n_voxels"],
    n_repeats: Int[np.ndarray, " n_images"],
) -> Float[np.ndarray, " n_voxels"]:
    """Noise ceiling from variances of single trials: σ_signal² is total minus noise variance, at least 0.

    Parameters
    ----------
    noise : float array [n_voxels]
        Variance over repeats of an image.
    total : float array [n_voxels], above 0
        Variance over all trials.
    n_repeats : int array [n_images]
        Trials that each row averages.

    Returns
    -------
    float32 array [n_voxels], 0 to 1
    """
    signal = np.maximum(total - noise, 0)
    return (signal / np.maximum(signal + noise * np.mean(1 / n_repeats), 1e-30)).astype(np.float32)


def estimate_ceiling(averaged: Averaged, rows: Rows, source: object) -> Float[np.ndarray, " n_voxels"] | None:
    """Estimate the noise ceiling from repeats; with too few, log a warning and return None.

    Parameters
    ----------
    averaged : Averaged
    rows : Rows
    source : path
        Named in the log.
    """
    if averaged.n_degrees < ENOUGH:
        log.warning(
            "warning: %s: too few repeats for a noise ceiling: found %d more trials than images, expected %d "
            "or more",
            source,
            averaged.n_degrees,
            ENOUGH,
        )
        return None
    return ceiling_from_variances(averaged.noise_variance, averaged.total_variance, rows.n_repeats)
