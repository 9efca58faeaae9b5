"""What a penalty keeps at equal accuracy: two families of a penalty's weights, compared over seeds.

A family is a penalty at several weights λ. With its runs stands the one without a penalty (λ = 0), of the
same seed. In order of λ, they make a curve of task accuracy and Δ, straight between runs. The family's score
is the largest Δ on this curve where accuracy is no more than `TOLERANCE` below that at λ = 0: the least
forgetting at no real cost. λ = 0 belongs to every curve, so no family scores below Δ without a penalty. Pure
functions of small arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from harness.measures.sign_flips import flip_upwards, seed_interval

TOLERANCE = 0.01
"""Accuracy that a penalty may cost: 1 point."""


def kept_at_accuracy(
    accuracy: Float[np.ndarray, " n_weights"], change: Float[np.ndarray, " n_weights"], floor: float
) -> float:
    """Return the largest Δ along a curve where accuracy is at least `floor`; NaN where it never is.

    Parameters
    ----------
    accuracy, change : float arrays [n_weights]
        Runs in order of λ; accuracy from 0 to 1, Δ from −1 to 1. The curve is straight between them.
    floor : float
    """
    found = [float(delta) for score, delta in zip(accuracy, change, strict=True) if score >= floor]
    for place in range(len(accuracy) - 1):
        first, second = float(accuracy[place]), float(accuracy[place + 1])
        # where the segment crosses the floor
        if (first - floor) * (second - floor) < 0:
            share = (floor - first) / (second - first)
            found.append(float(change[place] + share * (change[place + 1] - change[place])))
    return max(found, default=float("nan"))


@dataclass(frozen=True)
class TradeOff:
    """Two families of a penalty, by what they keep at equal accuracy; differences are one − other.

    Attributes
    ----------
    one, other : float arrays [n_seeds]
        Scores of `kept_at_accuracy`.
    difference : float
        Mean over seeds.
    interval : tuple of float or None
        95 % interval over seeds (`seed_interval`); None for one seed.
    p_better, p_worse : float
        One-sided, by exact sign flips of the seeds: that the one keeps more, and that it keeps less.
    smallest : float
        The smallest one-sided p that so many seeds can reach: 1/2^n.
    """

    one: Float[np.ndarray, " n_seeds"]
    other: Float[np.ndarray, " n_seeds"]
    difference: float
    interval: tuple[float, float] | None
    p_better: float
    p_worse: float
    smallest: float

    @property
    def n_seeds(self) -> int:
        """Number of seeds."""
        return len(self.one)


def compare_trade_offs(
    one: Sequence[Float[np.ndarray, "n_weights 2"]], other: Sequence[Float[np.ndarray, "n_weights 2"]]
) -> TradeOff:
    """Compare two families at equal accuracy, seed by seed.

    Under the null, the two families of a seed may as well be exchanged, which the test does. They should have
    equally many weights: the best of more runs is better by chance.

    Parameters
    ----------
    one, other : sequences of float arrays [n_weights, 2], one per seed
        Accuracy and Δ of the runs in order of λ. The first is that without a penalty, the same in both.
    """
    scores = np.array(
        [
            [kept_at_accuracy(curve[:, 0], curve[:, 1], float(curve[0, 0]) - TOLERANCE) for curve in family]
            for family in (one, other)
        ]
    )
    d = scores[0] - scores[1]
    return TradeOff(
        scores[0],
        scores[1],
        float(d.mean()),
        seed_interval(d, ["all"] * len(d)),
        flip_upwards(d),
        flip_upwards(-d),
        2.0 ** -len(d),
    )
