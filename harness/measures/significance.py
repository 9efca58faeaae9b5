"""The noise floor: how far apart two fits are if nothing has changed, and means over subjects.

The K mappings of step 0 (the first fit and its refits) and the mapping of a later snapshot are drawn in the
same way. If nothing has changed, the later one is exchangeable with the others. The floor describes that
spread. It gives no p value: one new fit against K others is called different too often, because distances
are skewed (``docs/validity_floor.md``). Pure functions of small arrays.
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
        raw minus the upper and the lower end of the range of one more refit: the interval of the excess.
    """

    raw: float
    null: float
    excess: float
    low: float
    high: float


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
    tail: Tail = "greater",
) -> Excess:
    """Hold one measure of a snapshot in one place against refits of step 0.

    The range of one more refit is mean ∓ t(.975, K − 1) · f · sd · √(1 + 1/K) of the K leave-one-out means:
    the prediction of one new draw from K. For distances it is taken of their logarithms, as distances are
    skewed; for agreements, of the logarithm of one minus the agreement.

    Leave-one-out means share pairs, so their spread differs from that of single fits; f corrects it. If a
    distance is a sum of one term per fit, d = a_i + a_j, then f = (K−1)/(K−2). If it is a signed difference,
    d = a_j − a_i, then f = (K−1)/K.

    If nothing has changed, the interval should hold 0 in 95 % of cases. On simulated distances with K = 4 to
    6 it does in 94 to 96 % for a skewness of the leave-one-out means up to 1.5, and in 92 to 94 % at 2 to 3.
    The misses are on one side: 0 lies below the interval in 2 to 5 % and, at high skewness, in 5 to 7 %,
    instead of 2.5 % (``docs/validity_floor.md``). It is a description, not a test.

    Parameters
    ----------
    from_step_0 : float array [n_fits]
        d(0j, t) of the snapshot's mapping t, j = 1 … K; raw is its mean.
    between : float array [n_fits, n_fits]
        d(0i, 0j) at [i, j]; the diagonal is ignored.
    tail : str
        "greater" for distances (at least 0), "less" for agreements (at most 1), "two-sided" for signed
        differences: `Metric.tail`.

    Returns
    -------
    Excess
        Always finite. If all refits agree exactly, the interval has no width. Where a leave-one-out mean has
        no logarithm (a distance of 0), the interval is taken of the distances themselves.

    Raises
    ------
    InputError
        If a value is not finite, or there are fewer than three mappings of step 0: with two, both
        leave-one-out means are the same pair, so the spread is 0 whatever the noise.
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
    # rounding errors of equal numbers are neither spread nor excess
    rounding = 1e-12 * max(np.abs(nulls).max(), np.abs(from_step_0).max())
    excess = 0.0 if abs(raw - null) <= rounding else raw - null
    if float(nulls.std(ddof=1)) <= rounding:
        return Excess(raw, null, excess, excess, excess)
    low, high = _range_of_one_more(nulls, tail)
    return Excess(raw, null, excess, excess - (high - null), excess - (low - null))


def _range_of_one_more(nulls: Float[np.ndarray, " n_fits"], tail: Tail) -> tuple[float, float]:
    """Where one more refit's mean distance from the others lies in 95 % of cases."""
    n_fits = len(nulls)
    distances = 1 - nulls if tail == "less" else nulls
    in_logs = tail != "two-sided" and bool((distances > 0).all())
    values = np.log(distances) if in_logs else nulls
    spread = float(values.std(ddof=1)) * np.sqrt(1 + 1 / n_fits)
    spread *= (n_fits - 1) / (n_fits if tail == "two-sided" else n_fits - 2)
    margin = float(stats.t.ppf(0.975, n_fits - 1)) * spread
    ends = (float(values.mean()) - margin, float(values.mean()) + margin)
    if not in_logs:
        return ends
    near, far = (float(np.exp(end)) for end in ends)
    return (1 - far, 1 - near) if tail == "less" else (near, far)


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

    Subjects are the random sample; the noise of each subject's value is part of their spread. With 3 to 8
    subjects whose values are right-skewed (+.3 to +3), a mean of 0 is called above 0 in 1 to 4 % of cases at
    a nominal 5 %, and below 0 in 6 to 14 %; the interval holds it in 90 to 95 %
    (``docs/validity_floor.md``). An excess is tested above 0, where the test is cautious.

    Parameters
    ----------
    values : float array [n_subjects], at least two
    alternative : str
        Side of 0 on which the mean is tested: "greater", "less" or "two-sided".

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


def _p_value(mean: float, error: float, dof: int, alternative: Tail) -> float:
    towards = {"greater": mean, "less": -mean, "two-sided": abs(mean)}[alternative]
    if error == 0:
        return 0.0 if towards > 0 else 1.0
    one_sided = float(stats.t.sf(towards / error, dof))
    return 2 * one_sided if alternative == "two-sided" else one_sided


def correct_over_rois(p: Float[np.ndarray, " n_rois"]) -> Float[np.ndarray, " n_rois"]:
    """Adjust p values for the number of ROIs (Benjamini–Hochberg): reject those up to the desired FDR."""
    return stats.false_discovery_control(p, method="bh")
