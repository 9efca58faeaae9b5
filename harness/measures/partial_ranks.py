"""Spearman correlation with a third measure held constant, tested by permuted residuals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from harness.measures.rank_tests import (
    MOST_EXACT,
    all_orders,
    count_permutations,
    draw_permutations,
)

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
        Drawn where there are more than `MOST_EXACT` permutations, as with nine cases; then p = (1 + number as
        extreme) / (1 + n_permutations).
    seed : int
    """
    n_cases = len(x)
    line = np.column_stack([np.ones(n_cases), rankdata(given)])
    residual = np.eye(n_cases) - line @ np.linalg.pinv(line)
    first, second = residual @ rankdata(x), residual @ rankdata(y)
    if min(first @ first, second @ second) < _ROUNDING:
        return PartialRank(0.0, 1.0)
    alike = ["case"] * n_cases
    exact = count_permutations(alike) <= MOST_EXACT
    orders = all_orders(n_cases) if exact else draw_permutations(alike, n_permutations, seed)
    permuted = second[orders] @ residual
    size = np.sqrt((first @ first) * (permuted * permuted).sum(axis=1))
    null = np.divide(permuted @ first, size, out=np.zeros(len(orders)), where=size > _ROUNDING)
    rho = float(first @ second / np.sqrt((first @ first) * (second @ second)))
    as_extreme, added = int((abs(null) >= abs(rho) - _ROUNDING).sum()), 0 if exact else 1
    return PartialRank(rho, (as_extreme + added) / (len(orders) + added))
