"""What tasks that are fine-tuned one after another do to each other: the matrix R and its named measures.

R[i, j] is the accuracy on task j when task i has ended, once for every way to score a task (`SCORINGS`): its
own head, and every kind of probe. `forgetting` defines the measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

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
    JOINT,
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
    if scoring == JOINT:
        return None  # see `read_joint`
    measure = "auroc" if tasks[0] in scores["multi_label"] else "accuracy"
    if scoring == "head":
        found = [scores["heads"][name].get(measure) for name in tasks]
    else:
        found = [scores["probe"][name].get(f"{scoring}_{measure}") for name in tasks]
    return None if None in found else np.array(found, dtype=np.float64)


def score_joint(
    logits: Sequence[Sequence[Float[np.ndarray, "_ _"]]],
    labels: Sequence[Int[np.ndarray, "_"]],
) -> list[list[float]]:
    """Score the heads of a class-incremental sequence together (van de Ven and Tolias 2019).

    An image is right if the largest logit of all heads so far is that of its class: which stage it belongs to
    is not told.

    Parameters
    ----------
    logits : [n_stages][n_stages] float arrays [n_images, n_classes]
        ``logits[j][i]`` of head i for the test images of stage j.
    labels : [n_stages] int arrays [n_images]
        Of stage j's images, as classes of stage j.

    Returns
    -------
    list of list of float
        Accuracies [n_stages][k + 1]: on stage j ≤ k with the heads of stages 0 to k.
    """
    found = []
    for last in range(len(labels)):
        row = []
        for stage in range(last + 1):
            so_far = logits[stage][: last + 1]
            before = sum(part.shape[1] for part in so_far[:stage])
            answers = np.concatenate(so_far, axis=1).argmax(axis=1)
            row.append(float((answers == before + labels[stage]).mean()))
        found.append(row)
    return found


def read_joint(
    probes: Mapping[int, Mapping[str, Any]], ends: Sequence[int], n_tasks: int
) -> Float[np.ndarray, "n_ended n_tasks"] | None:
    """Read R of all heads so far from probes files; None unless the sequence is class-incremental.

    Later stages count as 0: no head so far has their classes.
    """
    if not ends or any("joint" not in probes[step] for step in ends):
        return None
    matrix = np.zeros((len(ends), n_tasks))
    for place, step in enumerate(ends):
        matrix[place, : place + 1] = probes[step]["joint"][place]
    return matrix


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
    heads_are_made: bool,
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
    heads_are_made : bool
        Whether heads work before training: class texts, as for FLYP, or probes. A zero-initialised head is at
        chance.
    """
    scored_before = set(SCORINGS) - {JOINT} - (set() if heads_are_made else {"head"})
    several = all(name in probes[0]["multi_label"] for name in tasks)
    matrices = {}
    for scoring in SCORINGS:
        rows = [score_sequence(probes[step], tasks, scoring) for step in (0, *ends)]
        whole = [row for row in rows if row is not None]
        if len(whole) == len(rows):
            matrices[scoring] = np.stack(whole)
    joint = read_joint(probes, ends, len(tasks))
    if joint is not None:
        # step 0 has no head so far
        matrices[JOINT] = np.concatenate([np.zeros((1, len(tasks))), joint])
    for place, step in enumerate(ends):
        values = {}
        for scoring, matrix in matrices.items():
            n_tasks = place + 1
            initial = matrix[0, :n_tasks] if scoring in scored_before else None
            for name, value in measure_matrix(matrix[1 : n_tasks + 1, :n_tasks], initial).items():
                measure = name_auroc(name) if several else name
                values[f"sequence/{scoring}/{measure}"] = value
        if values:
            yield step, values
