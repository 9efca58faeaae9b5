"""The stability gap: what the start of a new task takes from earlier ones for a while.

Accuracies are those of a task's own head on its test images, at the steps that were evaluated: every few
steps around the end of each task, and at these ends (De Lange, van de Ven and Tuytelaars, "Continual
evaluation for lifelong learning: identifying the stability gap", ICLR 2023). Steps that were not evaluated
count for nothing, so a minimum over few steps is at least as high as over all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from harness.measures.network_entries import name_auroc

Curve = Mapping[int, float]
"""Accuracy (or AUROC) on a task by optimizer steps done."""


class Gap(NamedTuple):
    """What happens to an earlier task while the next one starts.

    Attributes
    ----------
    before : float
        Accuracy at the boundary, before the next task's first step.
    depth : float
        That accuracy minus the lowest one after it, within the window. Negative if it only rose.
    depth_step : int
        Steps after the boundary at which the lowest accuracy is first reached.
    recovery : float
        Last accuracy in the window minus the lowest one, never negative.
    """

    before: float
    depth: float
    depth_step: int
    recovery: float


def measure_gap(curve: Curve, boundary: int, last: int) -> Gap | None:
    """Measure the gap of one task at one boundary, over the steps after `boundary` up to `last`.

    None without an evaluation at the boundary and after it.
    """
    after = sorted(step for step in curve if boundary < step <= last)
    if boundary not in curve or not after:
        return None
    lowest = min(after, key=lambda step: (curve[step], step))
    before = curve[boundary]
    return Gap(before, before - curve[lowest], lowest - boundary, curve[after[-1]] - curve[lowest])


def min_acc(curves: Sequence[Curve], ends: Sequence[int], until: int) -> float:
    """Compute min-ACC = mean over earlier tasks i of min A_i(n), over steps t_i < n ≤ `until`; in [0, 1].

    Parameters
    ----------
    curves : sequence of mapping of step to accuracy
        Of the earlier tasks, in order.
    ends : sequence of int
        Step t_i at which each of them ended.
    until : int
    """
    return float(
        np.mean(
            [
                min(value for step, value in curve.items() if end < step <= until)
                for curve, end in zip(curves, ends, strict=True)
            ]
        )
    )


def wc_acc(current: float, lowest: float, n_tasks: int) -> float:
    """Compute WC-ACC = A_k / k + (1 − 1/k) · min-ACC of the k−1 earlier tasks: worst-case accuracy.

    `current` is the accuracy on the k-th task at its end, `lowest` from `min_acc`, and `n_tasks` is k.
    """
    return current / n_tasks + (1 - 1 / n_tasks) * lowest


def name_stability(
    curves: Mapping[str, Curve],
    tasks: Sequence[str],
    ends: Sequence[int],
    window: int,
    multi_label: Sequence[str] = (),
) -> Iterator[tuple[int, dict[str, float]]]:
    """Name the measures of a sequence, by the step they belong to.

    Gaps, ``stability/<task>/depth`` and its like, belong to the end of the task before the boundary;
    ``stability/all/min_acc`` and ``wc_acc`` to the end of every task after the first. Names of measures of
    AUROC say so. Means over accuracies and AUROCs are neither, so there are none.

    Parameters
    ----------
    curves : dict of task to mapping of step to accuracy
    tasks : sequence of str
        In order of training.
    ends : sequence of int
        Optimizer step at the end of each task, of all tasks.
    window : int
        Steps after a boundary that belong to its gap.
    multi_label : sequence of str
        Tasks scored by AUROC.
    """
    several = [task in multi_label for task in tasks]
    for place, (end, after) in enumerate(pairwise(ends)):
        found: dict[str, float] = {}
        for task, of_auroc in zip(tasks[: place + 1], several, strict=False):
            gap = measure_gap(curves.get(task, {}), end, min(end + window, after))
            for name, value in ({} if gap is None else gap._asdict()).items():
                measure = name_auroc(name) if of_auroc and name != "depth_step" else name
                found[f"stability/{task}/{measure}"] = value
        if found:
            yield end, found
    for place in range(1, len(ends)):
        own = [curves.get(task, {}) for task in tasks[: place + 1]]
        mixed = len(set(several[: place + 1])) > 1
        if mixed or any(ends[place] not in curve for curve in own):
            continue
        lowest = min_acc(own[:-1], ends[:place], ends[place])
        values = {"min_acc": lowest, "wc_acc": wc_acc(own[-1][ends[place]], lowest, place + 1)}
        yield (
            ends[place],
            {
                f"stability/all/{name_auroc(name) if several[0] else name}": value
                for name, value in values.items()
            },
        )
