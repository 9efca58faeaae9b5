"""Paired differences: their exact test by sign flips, over a family of measures, and an interval over seeds.

If two conditions do not differ, the two values of a pair may as well be exchanged, so the sign of each
difference is a coin's. The test counts how many of all patterns of signs give as large a mean as the one
observed (Fisher 1935). Pure functions of small arrays; every draw is seeded.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

MOST_PAIRS = 16
"""Up to this many pairs, all patterns of signs are counted; beyond, 2^16 random ones."""
N_RESAMPLES = 4000
FLIPS_AT_A_TIME = 4096
ROUNDING = 1e-9


@dataclass(frozen=True)
class FlipTests:
    """Sign-flip tests of several measures of the same pairs.

    Attributes
    ----------
    p : float array [n_measures]
        Two-sided, of each measure alone.
    p_family : float array [n_measures]
        The same, corrected for all measures: share of patterns whose largest |Σ ± d| / √Σ d² over the
        measures is at least the measure's own (the maximum statistic: Westfall & Young 1993). The chance of
        any false rejection in the family is at most the level, however the measures depend on each other.
    smallest : float array [n_measures]
        The smallest p that so many pairs can reach: 2 / 2^n.
    n_pairs : int array [n_measures]
        Pairs that have the measure.
    """

    p: Float[np.ndarray, " n_measures"]
    p_family: Float[np.ndarray, " n_measures"]
    smallest: Float[np.ndarray, " n_measures"]
    n_pairs: np.ndarray


def flip_signs(differences: Float[np.ndarray, "n_pairs n_measures"], seed: int = 0) -> FlipTests:
    """Test mean differences of pairs against 0 by flipping signs, one sign per pair for all measures.

    Parameters
    ----------
    differences : float array [n_pairs, n_measures]
        NaN where a pair lacks a measure; a measure is tested on the pairs that have it.
    seed : int
        Of the patterns, where there are more pairs than `MOST_PAIRS`.

    Returns
    -------
    FlipTests
        Without any pair, or where all differences are 0, p is 1.
    """
    there = ~np.isnan(differences)
    filled = np.where(there, differences, 0.0)
    n_pairs, n_measures = filled.shape
    size = np.sqrt((filled**2).sum(axis=0))
    unit = np.divide(filled, size, out=np.zeros_like(filled), where=size > 0)
    observed = np.abs(unit.sum(axis=0)) - ROUNDING
    alone, family, n_flips = np.zeros(n_measures), np.zeros(n_measures), 0
    for signs in _patterns(n_pairs, seed):
        found = np.abs(signs @ unit)
        alone += (found >= observed).sum(axis=0)
        largest = found.max(axis=1, initial=0.0)
        family += len(signs) - np.searchsorted(np.sort(largest), observed, side="left")
        n_flips += len(signs)
    counts = there.sum(axis=0)
    smallest = np.minimum(2.0 ** (1 - np.minimum(counts, MOST_PAIRS)), 1.0)
    return FlipTests(alone / n_flips, family / n_flips, smallest, counts)


def flip_upwards(differences: Float[np.ndarray, " n_pairs"], seed: int = 0) -> float:
    """Test one-sided, by flipping signs, whether the mean difference of pairs is above 0.

    For a direction that was stated beforehand. The smallest p that n pairs can reach is 1/2^n.

    Parameters
    ----------
    differences : float array [n_pairs]
    seed : int
        Of the patterns, where there are more pairs than `MOST_PAIRS`.
    """
    size = float(np.sqrt((differences**2).sum()))
    if size == 0:
        return 1.0
    unit = differences / size
    # patterns begin with +; each has its opposite
    found = np.concatenate([signs @ unit for signs in _patterns(len(unit), seed)])
    both = np.concatenate([found, -found])
    return float((both >= unit.sum() - ROUNDING).mean())


def _patterns(n_pairs: int, seed: int) -> Iterator[Float[np.ndarray, "n_flips n_pairs"]]:
    """Patterns of signs, the observed one included; the first sign is +, as −d is as extreme as d."""
    n_flips = 2 ** (min(n_pairs, MOST_PAIRS + 1) - 1) if n_pairs else 1
    rng = np.random.default_rng(seed)
    for start in range(0, n_flips, FLIPS_AT_A_TIME):
        numbers = np.arange(start, min(start + FLIPS_AT_A_TIME, n_flips))
        if n_pairs <= MOST_PAIRS:
            bits = (numbers[:, None] >> np.arange(max(n_pairs - 1, 0))) & 1
            bits = np.concatenate([np.zeros((len(numbers), min(n_pairs, 1)), int), bits], axis=1)
        else:
            bits = rng.integers(2, size=(len(numbers), n_pairs))
            bits[numbers == 0] = 0
        yield 1.0 - 2.0 * bits


def seed_interval(
    differences: Float[np.ndarray, " n_pairs"],
    tasks: Sequence[Hashable],
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> tuple[float, float] | None:
    """95 % interval of the mean difference, by a bootstrap over seeds within tasks.

    It says what other seeds on these tasks would give, not what other tasks would. A bootstrap of S values
    understates their variance by (S − 1)/S and knows nothing of the few seeds it comes from, so deviations
    from the task's mean are scaled by √(S/(S − 1)), and the quantiles are moved out from the normal to the t
    distribution with Satterthwaite's degrees of freedom, as a t interval's are.

    Parameters
    ----------
    differences : float array [n_pairs]
        NaN is left out.
    tasks : sequence [n_pairs]
        Task of each pair.
    seed : int
        Of the resamples.
    n_resamples : int

    Returns
    -------
    tuple of float or None
        None where a task has a single seed, which has no spread.
    """
    there = ~np.isnan(differences)
    known = differences[there]
    groups: dict[Hashable, list[float]] = {}
    for task, value in zip(np.arange(len(differences))[there], known, strict=True):
        groups.setdefault(tasks[int(task)], []).append(float(value))
    if not groups or min(map(len, groups.values())) < 2:
        return None
    rng = np.random.default_rng(seed)
    moved, variances, freedom = np.zeros(n_resamples), [], []
    for values in map(np.array, groups.values()):
        n_seeds = len(values)
        deviations = np.sqrt(n_seeds / (n_seeds - 1)) * (values - values.mean())
        moved += deviations[rng.integers(n_seeds, size=(n_resamples, n_seeds))].sum(axis=1)
        variances.append(n_seeds * values.var(ddof=1))
        freedom.append(n_seeds - 1)
    mean, total = float(known.mean()), float(np.sum(variances))
    if total <= (ROUNDING * max(abs(mean), 1e-300)) ** 2:
        return mean, mean
    dof = total**2 / float(np.sum(np.square(variances) / np.array(freedom)))
    wider = float(stats.t.ppf(0.975, dof) / stats.norm.ppf(0.975))
    low, high = mean + wider * np.quantile(moved / len(known), [0.025, 0.975])
    return float(low), float(high)
