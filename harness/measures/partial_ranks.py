"""Spearman correlation with a third measure held constant, tested by permuted residuals."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

MOST_EXACT = 8
"""Up to so many cases, all permutations are computed: 8! = 40,320."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class PartialRank:
    """Test of a monotone relation between two measures beyond what a third one explains.

    Attributes
    ----------
    rho : float in [−1, 1]
        Correlation of the ranks of both after a line on the third one's ranks is taken off; 0 if nothing is
        left of either.
    p : float in (0, 1]
        Two-sided; 1 if nothing is left of either.
    """

    rho: float
    p: float


def partial_rank_test(
    x: Float[np.ndarray, " n_cases"],
    y: Float[np.ndarray, " n_cases"],
    given: Float[np.ndarray, " n_cases"],
    n_permutations: int = 10_000,
    seed: int = 0,
) -> PartialRank:
    """Test whether x and y rise or fall together beyond what `given` explains of both.

    Permuting y itself would call any two measures related that both follow `given`. What the line on `given`
    leaves of the ranks of y is permuted instead, and the line is taken off again (Freedman & Lane 1983;
    Winkler et al. 2014). The test is approximate: residuals are not quite exchangeable.

    Parameters
    ----------
    x, y, given : float arrays [n_cases]
    n_permutations : int
        Drawn with more than `MOST_EXACT` cases; then p = (1 + number as extreme) / (1 + n_permutations).
    seed : int
    """
    n_cases = len(x)
    line = np.column_stack([np.ones(n_cases), rankdata(given)])
    residual = np.eye(n_cases) - line @ np.linalg.pinv(line)
    first, second = residual @ rankdata(x), residual @ rankdata(y)
    if min(first @ first, second @ second) < _ROUNDING:
        return PartialRank(0.0, 1.0)
    exact = n_cases <= MOST_EXACT
    orders = _all_orders(n_cases) if exact else _draw_orders(n_cases, n_permutations, seed)
    permuted = second[orders] @ residual
    size = np.sqrt((first @ first) * (permuted * permuted).sum(axis=1))
    null = np.divide(permuted @ first, size, out=np.zeros(len(orders)), where=size > _ROUNDING)
    rho = float(first @ second / np.sqrt((first @ first) * (second @ second)))
    as_extreme, added = int((abs(null) >= abs(rho) - _ROUNDING).sum()), 0 if exact else 1
    return PartialRank(rho, (as_extreme + added) / (len(orders) + added))


@lru_cache(maxsize=4)
def _all_orders(n: int) -> Int[np.ndarray, "n_orders n"]:
    return np.array(list(itertools.permutations(range(n))), dtype=np.int8)


def _draw_orders(n: int, n_permutations: int, seed: int) -> Int[np.ndarray, "n_permutations n"]:
    rng = np.random.default_rng(seed)
    return rng.permuted(np.broadcast_to(np.arange(n), (n_permutations, n)), axis=1)
