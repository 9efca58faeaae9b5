"""Forgetting: differences of accuracies, and measures of accuracy matrices.

Accuracies are fractions in [0, 1]. Mind the signs: Δ and backward transfer are negative if something is
forgotten; measures called forgetting are positive. In a matrix R, R[i, j] is the accuracy on task j after
training task i, both counted from 0. "Forgetting" has several definitions that disagree; each has its own
name here.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from harness.storage import InputError

AccuracyMatrix = Float[np.ndarray, "n_tasks n_tasks"]


def _check_accuracies(name: str, *accuracies: np.ndarray | float) -> None:
    for values in map(np.asarray, accuracies):
        wrong = values[~((values >= 0) & (values <= 1))]
        if wrong.size:
            raise InputError(f"{name}: found an accuracy of {wrong.flat[0]}, expected fractions, 0 to 1")


def _check_matrix(name: str, accuracy: AccuracyMatrix, at_least: int = 1) -> None:
    _check_accuracies(name, accuracy)
    if len(accuracy) < at_least:
        raise InputError(f"{name}: found {len(accuracy)} task, expected at least {at_least}")


def delta(before: float, after: float) -> float:
    """Accuracy (or AUROC) after − before on a task that was not trained; negative is forgetting.

    Δ_LP with accuracies of fresh linear probes, Δ_ZS with zero-shot accuracies under the pretrained text
    head, also after tuning (LDIFS: Mukhoti et al., TMLR 2024).
    """
    _check_accuracies("delta", before, after)
    return float(after) - float(before)


def average_accuracy(accuracy: AccuracyMatrix) -> float:
    """ACC = mean_j R[T−1, j] (Lopez-Paz & Ranzato 2017)."""
    _check_matrix("average accuracy", accuracy)
    return float(accuracy[-1].mean())


def backward_transfer(accuracy: AccuracyMatrix) -> float:
    """BWT = mean_{j<T−1} (R[T−1, j] − R[j, j]), negative is forgetting (Lopez-Paz & Ranzato 2017)."""
    _check_matrix("backward transfer", accuracy, at_least=2)
    return float((accuracy[-1] - accuracy.diagonal())[:-1].mean())


def forward_transfer(accuracy: AccuracyMatrix, initial: Float[np.ndarray, " n_tasks"]) -> float:
    """FWT = mean_{j≥1} (R[j−1, j] − b[j]) with b the initial model (Lopez-Paz & Ranzato 2017)."""
    _check_matrix("forward transfer", accuracy, at_least=2)
    _check_accuracies("forward transfer", initial)
    return float((accuracy.diagonal(1) - initial[1:]).mean())


def forgetting_chaudhry(accuracy: AccuracyMatrix) -> float:
    """mean_{j<T−1} (max_{l<T−1} R[l, j] − R[T−1, j]), positive is forgetting (Chaudhry et al. 2018).

    The maximum excludes the last row, so a task that got better counts as negative.
    """
    _check_matrix("forgetting (Chaudhry)", accuracy, at_least=2)
    return float((accuracy[:-1].max(axis=0) - accuracy[-1])[:-1].mean())


def forgetting_max_all(accuracy: AccuracyMatrix) -> float:
    """mean_{j<T−1} (max_l R[l, j] − R[T−1, j]), the last row included: never negative (Mammoth)."""
    _check_matrix("forgetting (max over all)", accuracy, at_least=2)
    return float((accuracy.max(axis=0) - accuracy[-1])[:-1].mean())


def relative_forgetting(accuracy: AccuracyMatrix) -> float:
    """mean_{j<T−1} f_j / max_l R[l, j], f_j as in `forgetting_max_all`; in [0, 1] (contilab).

    A task whose accuracy was never above 0 had nothing to forget and counts as 0.
    """
    _check_matrix("relative forgetting", accuracy, at_least=2)
    best = accuracy.max(axis=0)
    share = np.divide(best - accuracy[-1], best, out=np.zeros(len(best)), where=best > 0)
    return float(share[:-1].mean())


def transfer(accuracy: AccuracyMatrix) -> float:
    """mean_{i≥1} mean_{j<i} R[j, i]: accuracy on tasks before they are trained (MTIL; ZSCL)."""
    _check_matrix("transfer", accuracy, at_least=2)
    return float(np.mean([accuracy[:i, i].mean() for i in range(1, len(accuracy))]))


def windowed_forgetting(accuracy: Float[np.ndarray, " n_snapshots"], window: int) -> float:
    """Largest loss A_i − A_j, i < j, within any `window` consecutive snapshots (ContinualEvaluation).

    Positive is forgetting; negative (minus the smallest gain) if accuracy only ever rose; 0 for a single
    snapshot. `window` is a number of snapshots: 2, the smallest, gives the largest loss between neighbours.
    """
    _check_accuracies("windowed forgetting", accuracy)
    if window < 2:
        raise InputError(f"windowed forgetting: found a window of {window}, expected at least 2 snapshots")
    lags = range(1, min(window, len(accuracy)))
    return max((float((accuracy[:-lag] - accuracy[lag:]).max()) for lag in lags), default=0.0)


def min_accuracy(
    accuracy: Float[np.ndarray, "n_snapshots n_tasks"],
) -> Float[np.ndarray, "n_snapshots n_tasks"]:
    """Lowest accuracy so far on every task, for tasks not being trained.

    Its mean over tasks at the last snapshot is the min-ACC of ContinualEvaluation.
    """
    _check_accuracies("min accuracy", accuracy)
    return np.minimum.accumulate(accuracy, axis=0)
