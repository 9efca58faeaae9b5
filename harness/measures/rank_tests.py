"""Spearman correlation over backbones, tested by permutation within classes; its critical value and power.

Backbones of one size class are exchangeable if H says nothing of F. Ranks are taken over all backbones, and
H's are permuted within classes only, so that a class that is high on both explains nothing. Pure functions of
small arrays.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

MOST_EXACT = 50_000
"""Up to so many permutations, all are computed: 8 backbones of one class, or 7 + 3."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class RankTest:
    """Test of a monotone relation between two measures of backbones.

    Attributes
    ----------
    rho : float in [−1, 1]
        Spearman correlation over all backbones; 0 if one of the two is constant.
    within : float in [−1, 1]
        The same with classes partialled out: correlation of ranks after their class's mean rank is taken
        off. With one class it is `rho`.
    p : float in (0, 1]
        Two-sided: share of permutations within classes whose `within` is at least as far from 0.
    critical : float or None
        Smallest size of `within` that would have p ≤ alpha; None if no permutation has.
    n_backbones, n_classes : int
    n_permutations : int
        How many the p value rests on.
    exact : bool
        Whether these are all permutations.
    """

    rho: float
    within: float
    p: float
    critical: float | None
    n_backbones: int
    n_classes: int
    n_permutations: int
    exact: bool


def rank_test(
    x: Float[np.ndarray, " n_backbones"],
    y: Float[np.ndarray, " n_backbones"],
    classes: Sequence[str],
    alpha: float = 0.05,
    n_permutations: int = 10_000,
    seed: int = 0,
) -> RankTest:
    """Test whether x and y rise or fall together, x permuted within classes.

    Where the classes allow at most `MOST_EXACT` permutations, all are computed and the test is exact.
    Otherwise `n_permutations` are drawn, and p = (1 + number as extreme) / (1 + n_permutations), which keeps
    the level (Phipson & Smyth 2010).

    Parameters
    ----------
    x, y : float array [n_backbones]
    classes : sequence of str
        Class of each backbone.
    alpha : float
        For the critical value.
    n_permutations : int
    seed : int
    """
    n_backbones, found = len(x), np.asarray(classes)
    first = _centre(rankdata(x), found)
    second = _centre(rankdata(y), found)
    scale = math.sqrt(float(first @ first) * float(second @ second))
    n_classes = len(set(classes))
    if scale < _ROUNDING:
        return RankTest(_spearman(x, y), 0.0, 1.0, None, n_backbones, n_classes, 0, True)
    exact = count_permutations(classes) <= MOST_EXACT
    if exact:
        # classes are permuted independently of each other: their sums add up in every combination
        sums = np.zeros(1)
        for name in dict.fromkeys(classes):
            inside = found == name
            orders = all_orders(int(inside.sum()))
            sums = np.add.outer(sums, first[inside][orders] @ second[inside]).ravel()
    else:
        sums = first[draw_permutations(classes, n_permutations, seed)] @ second
    null = np.abs(sums) / scale
    within = float(first @ second) / scale
    added = 0 if exact else 1
    as_extreme = int((null >= abs(within) - _ROUNDING).sum())
    return RankTest(
        rho=_spearman(x, y),
        within=within,
        p=(as_extreme + added) / (len(null) + added),
        critical=_critical_value(null, alpha, added),
        n_backbones=n_backbones,
        n_classes=n_classes,
        n_permutations=len(null),
        exact=exact,
    )


def count_permutations(classes: Sequence[str]) -> int:
    """Number of permutations within classes: the product of the factorials of the class sizes."""
    return math.prod(math.factorial(list(classes).count(name)) for name in set(classes))


def draw_permutations(
    classes: Sequence[str], n_permutations: int, seed: int
) -> Int[np.ndarray, "n_permutations n_backbones"]:
    """Draw permutations within classes: indices [n_permutations, n_backbones], each row one permutation."""
    rng, found = np.random.default_rng(seed), np.asarray(classes)
    drawn = np.empty((n_permutations, len(found)), dtype=np.int64)
    for name in dict.fromkeys(classes):
        places = np.flatnonzero(found == name)
        drawn[:, places] = rng.permuted(np.broadcast_to(places, (n_permutations, len(places))), axis=1)
    return drawn


def power_of_rank_test(
    rho: float,
    classes: Sequence[str],
    alpha: float = 0.05,
    n_replicates: int = 1_000,
    n_permutations: int = 499,
    seed: int = 0,
    between: float = 0.0,
) -> float:
    """Share of samples in which `rank_test` finds a true correlation; with a `rho` of 0, its level.

    Samples are bivariate normal within every class, with a Spearman correlation of `rho` in the population
    (Pearson's is 2 sin(π ρ/6)).

    Parameters
    ----------
    rho : float in [−1, 1]
    classes : sequence of str
        Class of each backbone.
    alpha : float
    n_replicates, n_permutations : int
        Samples, and permutations in each, the same for all samples.
    seed : int
    between : float
        How much higher a class is than the one named before it, on both measures, in standard deviations:
        with a `rho` of 0, classes are all that relates the two.
    """
    rng, found = np.random.default_rng((seed, 1)), np.asarray(classes)
    normal = rng.standard_normal((2, n_replicates, len(found)))
    pearson = 2 * math.sin(math.pi * rho / 6)
    mixed = pearson * normal[0] + math.sqrt(1 - pearson**2) * normal[1]
    shift = between * np.array([list(dict.fromkeys(classes)).index(name) for name in classes])
    x = _centre(rankdata(normal[0] + shift, axis=1), found)
    y = _centre(rankdata(mixed + shift, axis=1), found)
    observed = np.abs((x * y).sum(axis=1))
    as_extreme = np.ones(n_replicates)
    for order in draw_permutations(classes, n_permutations, seed):
        as_extreme += np.abs((x[:, order] * y).sum(axis=1)) >= observed - _ROUNDING
    return float((as_extreme / (n_permutations + 1) <= alpha).mean())


def detectable_rho(
    classes: Sequence[str], alpha: float = 0.05, power: float = 0.8, step: float = 0.01, seed: int = 0
) -> float | None:
    """Smallest true Spearman correlation, in steps, that the test finds with the given power.

    None if it does not even find a correlation of 1 − `step`.
    """
    # power rises with rho: halve the interval
    low, high = 0, round((1 - step) / step)
    if power_of_rank_test(high * step, classes, alpha, seed=seed) < power:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = power_of_rank_test(middle * step, classes, alpha, seed=seed) >= power
        low, high = (low, middle) if enough else (middle, high)
    return round(high * step, 6)


@functools.lru_cache(maxsize=4)
def all_orders(n: int) -> Int[np.ndarray, "n_orders n"]:
    """All permutations of n, one per row."""
    return np.array(list(itertools.permutations(range(n))), dtype=np.int8)


def _centre(
    ranks: Float[np.ndarray, "*n_samples n_backbones"], classes: np.ndarray
) -> Float[np.ndarray, "*n_samples n_backbones"]:
    """Take each class's mean off its members."""
    centred = np.array(ranks, dtype=np.float64)
    for name in np.unique(classes):
        inside = classes == name
        centred[..., inside] -= centred[..., inside].mean(axis=-1, keepdims=True)
    return centred


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    one = np.zeros(len(x))
    first, second = _centre(rankdata(x), one), _centre(rankdata(y), one)
    scale = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / scale if scale > _ROUNDING else 0.0


def _critical_value(null: np.ndarray, alpha: float, added: int) -> float | None:
    """Smallest of the null's values whose p is at most alpha."""
    values, counts = np.unique(null.round(9), return_counts=True)
    p = (counts[::-1].cumsum()[::-1] + added) / (len(null) + added)
    allowed = values[p <= alpha]
    return float(allowed[0]) if allowed.size else None
