"""The noise floor: how far apart two fits are if nothing has changed, and tests against it.

The K mappings of step 0 (the first fit and its refits) and the mapping of a later snapshot are drawn in the
same way. If nothing has changed, the later one is exchangeable with the others. Pure functions of small
arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from harness.measures.metric import Tail
from harness.storage import InputError


@dataclass(frozen=True)
class Excess:
    """One measure in one place, against its noise floor.

    Attributes
    ----------
    raw : float
        Mean distance of the snapshot's mapping from the K mappings of step 0.
    null : float
        The same among mappings of step 0: mean of the leave-one-out means.
    excess : float
        raw − null.
    low, high : float
        Excess ∓ what one more refit would show in 95 % of cases. An interval without 0 is outside the floor.
    p : float
        p value of the t test for one new draw, in [0, 1].
    """

    raw: float
    null: float
    excess: float
    low: float
    high: float
    p: float


def leave_one_out(between: Float[np.ndarray, "n_fits n_fits"]) -> Float[np.ndarray, " n_fits"]:
    """Mean distance of each mapping of step 0 from the others: null_j = mean over i ≠ j of d(0i, 0j).

    Parameters
    ----------
    between : float array [n_fits, n_fits]
        d(0i, 0j) at [i, j], from i to j (the order matters for signed measures). The diagonal is ignored.
    """
    n_fits = between.shape[0]
    off_diagonal = np.where(np.eye(n_fits, dtype=bool), 0.0, between)
    return off_diagonal.sum(axis=0) / (n_fits - 1)


def noise_floor(
    from_step_0: Float[np.ndarray, " n_fits"],
    between: Float[np.ndarray, "n_fits n_fits"],
    alternative: Tail = "greater",
    corrected: bool = False,
) -> Excess:
    """Test one measure of a snapshot in one place against refits of step 0.

    T = (raw − mean null) / (sd null · √(1 + 1/K)) with K − 1 degrees of freedom, and the interval
    excess ∓ t(.975, K − 1) · sd null · √(1 + 1/K): the prediction of one new draw from K.

    Parameters
    ----------
    from_step_0 : float array [n_fits]
        d(0j, t) of the snapshot's mapping t, j = 1 … K; raw is its mean.
    between : float array [n_fits, n_fits]
        d(0i, 0j) at [i, j]; the diagonal is ignored.
    alternative : str
        "greater" for distances, "less" for agreements, "two-sided" for signed differences: `Metric.tail`.
    corrected : bool
        Leave-one-out means share pairs, so their spread differs from that of single fits. If a distance is a
        sum of one term per fit, d = a_i + a_j, the spread is (K−2)/(K−1) of what the test needs; if
        d = a_j − a_i, it is K/(K−1) of it. True divides by that factor ("two-sided": the second), which
        makes the test exact in both cases. False uses the formula above as it is. Without any change and at
        a nominal 5 %, "greater" rejected 7 to 11 % of distances with K = 5 (8 to 15 % with K = 3), and 3 to
        7 % corrected.

    Returns
    -------
    Excess
        Always finite. If all refits agree exactly there is no spread: p is 0 for an excess on the tested side
        and else 1 (the limit of the formula), and the interval has no width.

    Raises
    ------
    InputError
        If a value is not finite, or there are fewer than three mappings of step 0: with two, both
        leave-one-out means are the same pair, the spread is 0 whatever the noise, and half of all null
        effects are significant.
    """
    n_fits = len(from_step_0)
    if n_fits < 3:
        raise InputError(
            f"mapping.floor_refits: found {n_fits - 1}, expected at least 2: the noise floor needs them"
        )
    nulls = leave_one_out(between)
    if not (np.isfinite(from_step_0).all() and np.isfinite(nulls).all()):
        raise InputError("noise floor: found a measure that is not finite")
    raw, null = float(from_step_0.mean()), float(nulls.mean())
    excess, spread = raw - null, float(nulls.std(ddof=1)) * np.sqrt(1 + 1 / n_fits)
    if corrected:
        spread *= (n_fits - 1) / (n_fits if alternative == "two-sided" else n_fits - 2)
    # rounding errors of equal numbers are neither spread nor excess
    rounding = 1e-12 * max(np.abs(nulls).max(), np.abs(from_step_0).max())
    excess = 0.0 if abs(excess) <= rounding else excess
    spread = 0.0 if spread <= rounding else float(spread)
    margin = float(stats.t.ppf(0.975, n_fits - 1)) * spread
    p = _p_value(excess, spread, n_fits - 1, alternative)
    return Excess(raw, null, excess, excess - margin, excess + margin, p)


def _p_value(excess: float, spread: float, dof: int, alternative: str) -> float:
    towards = {"greater": excess, "less": -excess, "two-sided": abs(excess)}[alternative]
    if spread == 0:
        return 0.0 if towards > 0 else 1.0
    one_sided = float(stats.t.sf(towards / spread, dof))
    return 2 * one_sided if alternative == "two-sided" else one_sided


@dataclass(frozen=True)
class SubjectMean:
    """Mean of a measure over subjects, and what it says about the population.

    Attributes
    ----------
    mean : float
    low, high : float
        95 % interval of the mean.
    p : float
        p value of mean 0, in [0, 1].
    """

    mean: float
    low: float
    high: float
    p: float


def mean_over_subjects(
    values: Float[np.ndarray, " n_subjects"],
    alternative: Tail = "two-sided",
) -> SubjectMean:
    """Average one value per subject: mean ∓ t(.975, n − 1) · sd / √n, and a t test of the mean against 0.

    Subjects are the random sample; the noise of each subject's value is part of their spread.

    Parameters
    ----------
    values : float array [n_subjects], at least two
    alternative : str
        Side of 0 on which the mean is tested, as for `noise_floor`.

    Returns
    -------
    SubjectMean
        Always finite. If all subjects agree exactly the interval has no width, and p is 0 for a mean on the
        tested side and else 1.
    """
    n_subjects = len(values)
    assert n_subjects > 1
    mean, error = float(values.mean()), float(values.std(ddof=1)) / np.sqrt(n_subjects)
    # as above: rounding errors are neither spread nor mean
    rounding = 1e-12 * float(np.abs(values).max())
    mean = 0.0 if abs(mean) <= rounding else mean
    error = 0.0 if error <= rounding else error
    margin = float(stats.t.ppf(0.975, n_subjects - 1)) * error
    return SubjectMean(mean, mean - margin, mean + margin, _p_value(mean, error, n_subjects - 1, alternative))


def correct_over_rois(p: Float[np.ndarray, " n_rois"]) -> Float[np.ndarray, " n_rois"]:
    """Adjust p values for the number of ROIs (Benjamini–Hochberg): reject those up to the desired FDR."""
    return stats.false_discovery_control(p, method="bh")
