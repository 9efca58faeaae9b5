"""What tasks do to each other that are fine-tuned one after the other: the matrix R and its measures, named.

R[i, j] is the accuracy on task j when task i has ended, once for every way to score a task: by its own head
(``head``), a fresh linear probe (``linear``), nearest neighbours (``knn``), and zero-shot with the pretrained
text head (``zero_shot``). Definitions of the measures stand in `forgetting`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from harness.measures.entries import (
    SCORINGS,
    name_auroc,
)
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

# of tasks that were trained before, in the order of the comparison
AFTERWARDS = {
    "backward_transfer": backward_transfer,
    "forgetting_chaudhry": forgetting_chaudhry,
    "forgetting_max_all": forgetting_max_all,
    "relative_forgetting": relative_forgetting,
}


def score_sequence(
    scores: Mapping[str, Any], tasks: Sequence[str], scoring: str
) -> Float[np.ndarray, " n_tasks"] | None:
    """Accuracy of every task at one snapshot, or AUROC where all have several labels an image.

    None where a task is not scored in this way, or where accuracy would stand beside AUROC.

    Parameters
    ----------
    scores : dict that `harness.track` writes
        ``{"heads": {task: {measure: value}}, "probe": {task: {measure: value}}, "multi_label": [task]}``.
    tasks : sequence of str
        In the order of the sequence.
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
    """Every measure of R by name; those that compare tasks need two.

    Parameters
    ----------
    accuracy : float array [n_tasks, n_tasks]
        R.
    initial : float array [n_tasks] or None
        Accuracy at step 0; None where tasks that are not trained yet have nothing to be scored by, so that
        forward transfer and transfer would say nothing.
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
    """Rows at the end of every task, of the tasks up to it: ``sequence/<scoring>/<measure>``.

    Those of AUROC have names that say so.

    Parameters
    ----------
    probes : dict of step to what `harness.track` writes
        With step 0 and all `ends`.
    tasks : sequence of str
        In order.
    ends : sequence of int
        Optimizer steps after each task; fewer than tasks while these are trained.
    heads_are_texts : bool
        Whether a head says something before it is trained, as FLYP's does. One that starts at zero is at
        chance until then.
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
