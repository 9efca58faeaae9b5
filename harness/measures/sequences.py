"""What tasks that are fine-tuned one after another do to each other: the matrix R and its named measures.

R[i, j] is the accuracy on task j when task i has ended, once for every way to score a task (`SCORINGS`): its
own head, and every kind of probe. `forgetting` defines the measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from harness.measures.forgetting import (
    AccuracyMatrix,
    average_accuracy,
    backward_transfer,
    forgetting_chaudhry,
    forgetting_max_all,
    forward_transfer,
    relative_forgetting,
    transfer,
)
from harness.measures.network_entries import (
    SCORINGS,
    name_auroc,
)

# measures of earlier tasks, in the order of the comparison
AFTERWARDS = {
    "backward_transfer": backward_transfer,
    "forgetting_chaudhry": forgetting_chaudhry,
    "forgetting_max_all": forgetting_max_all,
    "relative_forgetting": relative_forgetting,
}


def score_sequence(
    scores: Mapping[str, Any], tasks: Sequence[str], scoring: str
) -> Float[np.ndarray, " n_tasks"] | None:
    """Accuracy on every task at one snapshot, or AUROC if all tasks are multi-label.

    None if a task is not scored in this way, or if accuracy would be mixed with AUROC.

    Parameters
    ----------
    scores : dict
        A probes file: ``{"heads": {task: {measure: value}}, "probe": {task: {measure: value}},
        "multi_label": [task]}``.
    tasks : sequence of str
        In order of training.
    scoring : str
        One of `SCORINGS`.
    """
    if len({name in scores["multi_label"] for name in tasks}) > 1:
        return None
    measure = "auroc" if tasks[0] in scores["multi_label"] else "accuracy"
    if scoring == "head":
        found = [scores["heads"][name].get(measure) for name in tasks]
    else:
        found = [scores["probe"][name].get(f"{scoring}_{measure}") for name in tasks]
    return None if None in found else np.array(found, dtype=np.float64)


def measure_matrix(
    accuracy: AccuracyMatrix, initial: Float[np.ndarray, " n_tasks"] | None
) -> dict[str, float]:
    """Compute every measure of R by name; those that compare tasks need two.

    Parameters
    ----------
    accuracy : float array [n_tasks, n_tasks]
        R.
    initial : float array [n_tasks] or None
        Accuracy at step 0; None if untrained tasks cannot be scored, so that forward transfer and transfer
        are undefined.
    """
    found = {"average_accuracy": average_accuracy(accuracy)}
    if len(accuracy) < 2:
        return found
    found |= {name: measure(accuracy) for name, measure in AFTERWARDS.items()}
    if initial is not None:
        found |= {"forward_transfer": forward_transfer(accuracy, initial), "transfer": transfer(accuracy)}
    return found


def name_sequence(
    probes: Mapping[int, Mapping[str, Any]],
    tasks: Sequence[str],
    ends: Sequence[int],
    heads_are_texts: bool,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Name the measures at the end of every task, of the tasks so far: ``sequence/<scoring>/<measure>``.

    Names of measures of AUROC say so.

    Parameters
    ----------
    probes : dict of step to probes file
        Including step 0 and all `ends`.
    tasks : sequence of str
        In order of training.
    ends : sequence of int
        Optimizer step at the end of each task; fewer than tasks while training.
    heads_are_texts : bool
        Whether heads are class texts, as for FLYP, and so work before training. A zero-initialised head is
        at chance.
    """
    several = all(name in probes[0]["multi_label"] for name in tasks)
    matrices = {}
    for scoring in SCORINGS:
        rows = [score_sequence(probes[step], tasks, scoring) for step in (0, *ends)]
        whole = [row for row in rows if row is not None]
        if len(whole) == len(rows):
            matrices[scoring] = np.stack(whole)
    for place, step in enumerate(ends):
        values = {}
        for scoring, matrix in matrices.items():
            n_tasks = place + 1
            initial = matrix[0, :n_tasks] if scoring != "head" or heads_are_texts else None
            for name, value in measure_matrix(matrix[1 : n_tasks + 1, :n_tasks], initial).items():
                measure = name_auroc(name) if several else name
                values[f"sequence/{scoring}/{measure}"] = value
        if values:
            yield step, values
