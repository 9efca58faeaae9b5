"""Forgetting at equal learning: Δ where backbones have learned their own task equally far.

At an equal number of steps, a backbone that learns slowly has had less occasion to forget. These functions
read Δ off each run's trajectory of snapshots where its accuracy on its own task has covered a given share of
the way to an accuracy that all runs attain. Pure functions of small arrays; no value is extrapolated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from harness.storage import InputError

LEARNED_SHARES = (0.5, 0.75, 0.9)
"""Shares of the way from a run's first accuracy to the common best at which forgetting is compared."""


def common_best(accuracies: Sequence[Float[np.ndarray, "_"]]) -> float:
    """The lowest of the runs' best accuracies: a level that every run attains.

    Parameters
    ----------
    accuracies : sequence of float array [n_snapshots]
        Accuracy of a fresh probe on the run's own task, one array per run (backbone and seed), in order of
        steps. The numbers of snapshots may differ. Leave out runs that collapsed: their best is their start,
        and it would pull the level down for all.

    Raises
    ------
    InputError
        If there is no run, or an accuracy lies outside 0 to 1.
    """
    if not accuracies:
        raise InputError("equal learning: found no run, expected at least one")
    for accuracy in accuracies:
        _check_accuracy(accuracy)
    return min(float(accuracy.max()) for accuracy in accuracies)


def accuracy_to_reach(start: float, best: float, share: float) -> float:
    """Accuracy after a share of the way from `start` to `best`, (1 − share) start + share best.

    NaN where `start` is not below `best`: a run that starts where another one ends has no way to go.
    """
    if not 0 < share <= 1:
        raise InputError(f"equal learning: found a share of {share:g}, expected more than 0, at most 1")
    return (1 - share) * start + share * best if start < best else float("nan")


def value_at_accuracy(
    accuracy: Float[np.ndarray, " n_snapshots"], values: Float[np.ndarray, " n_snapshots"], level: float
) -> float:
    """Value at the point of a trajectory where accuracy first reaches a level.

    Linear between the last snapshot below the level and the first one that reaches it. NaN where no snapshot
    reaches it, or the first one is already above it: nothing is extrapolated.

    Parameters
    ----------
    accuracy, values : float array [n_snapshots]
        Accuracy on the run's own task, and what is read off (Δ, a distance, the step), in order of steps.
    level : float
        Accuracy to reach; NaN gives NaN.

    Raises
    ------
    InputError
        If an accuracy lies outside 0 to 1, or the numbers of snapshots differ.
    """
    _check_accuracy(accuracy)
    if len(values) != len(accuracy):
        raise InputError(
            f"equal learning: found {len(accuracy)} accuracies and {len(values)} values, expected as many"
        )
    if np.isnan(level) or accuracy[0] > level:
        return float("nan")
    reached = np.flatnonzero(accuracy >= level)
    if not reached.size:
        return float("nan")
    after = int(reached[0])
    if after == 0:
        return float(values[0])
    below, above = float(accuracy[after - 1]), float(accuracy[after])
    way = (level - below) / (above - below)
    return float((1 - way) * values[after - 1] + way * values[after])


def values_at_shares(
    accuracies: Sequence[Float[np.ndarray, "_"]],
    values: Sequence[Float[np.ndarray, "_"]],
    shares: Sequence[float] = LEARNED_SHARES,
    best: float | None = None,
) -> Float[np.ndarray, "n_runs n_shares"]:
    """F(a) of every run: its value where its accuracy has covered a share a of the way to the common best.

    Parameters
    ----------
    accuracies, values : sequence of float array [n_snapshots]
        One array per run (backbone and seed) of one task, as for `common_best` and `value_at_accuracy`. The
        first snapshot is the run's start.
    shares : sequence of float
        In (0, 1].
    best : float or None
        Accuracy at the end of the way; None takes `common_best` of these runs. Give it where values of some
        of the runs are read only, so that the level stays that of all.

    Returns
    -------
    float array [n_runs, n_shares]
        NaN where a run does not reach the accuracy, or starts at or above `best`.
    """
    if len(accuracies) != len(values):
        raise InputError(
            f"equal learning: found {len(accuracies)} runs' accuracies and {len(values)} runs' values, "
            "expected as many"
        )
    end = common_best(accuracies) if best is None else best
    return np.array(
        [
            [
                value_at_accuracy(accuracy, value, accuracy_to_reach(float(accuracy[0]), end, share))
                for share in shares
            ]
            for accuracy, value in zip(accuracies, values, strict=True)
        ]
    ).reshape(len(accuracies), len(shares))


def _check_accuracy(accuracy: np.ndarray) -> None:
    if not len(accuracy):
        raise InputError("equal learning: found no snapshot, expected at least one")
    wrong = accuracy[~((accuracy >= 0) & (accuracy <= 1))]
    if wrong.size:
        raise InputError(f"equal learning: found an accuracy of {wrong[0]}, expected fractions, 0 to 1")
