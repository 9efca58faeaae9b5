"""Entries of metrics of sequences of tasks, and of the stability gap. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from harness.measures.metric import (
    Better,
    Metric,
)
from harness.measures.network_entries import (
    SCORE_TEXTS,
    name_auroc,
)

_FORGETTING = "harness.measures.forgetting"
_LOPEZ_PAZ = "Lopez-Paz & Ranzato 2017"


def list_sequence() -> Iterator[Metric]:
    """List measures of sequences of tasks."""

    def entry(
        measure: str,
        heading: str,
        definition: str,
        source: str,
        better: Better,
        low: float = 0.0,
        headline: bool = False,
    ) -> Iterator[Metric]:
        for of_auroc in (False, True):
            average = measure == "average_accuracy"
            yield Metric(
                f"sequence/<scoring>/{name_auroc(measure) if of_auroc else measure}",
                f"average {'AUROC' if of_auroc else 'accuracy'}" if average else heading,
                definition,
                f"{_FORGETTING}.{measure}",
                source,
                low=low,
                high=1.0,
                better=better,
                headline="every place" if headline else "never",
                above="sequence, {scoring}" + " (AUROC)" * of_auroc,
                heading="average AUROC" if average and of_auroc else heading,
                form="signed" if low < 0 else "number",
                compared=("end",),
            )

    yield from entry("average_accuracy", "ACC", "mean_j R[T−1, j].", _LOPEZ_PAZ, "higher", headline=True)
    yield from entry(
        "backward_transfer",
        "BWT",
        "mean_{j<T−1} (R[T−1, j] − R[j, j]); negative is forgetting.",
        _LOPEZ_PAZ,
        "higher",
        -1.0,
        headline=True,
    )
    yield from entry(
        "forgetting_chaudhry",
        "forgetting (Chaudhry)",
        "mean_{j<T−1} (max_{l<T−1} R[l, j] − R[T−1, j]); positive is forgetting, the last row is left out of "
        "the maximum.",
        "Chaudhry et al. 2018",
        "lower",
        -1.0,
    )
    yield from entry(
        "forgetting_max_all",
        "forgetting (max of all)",
        "mean_{j<T−1} (max_l R[l, j] − R[T−1, j]), the last row included.",
        "Mammoth",
        "lower",
        headline=True,
    )
    yield from entry(
        "relative_forgetting",
        "relative",
        "mean_{j<T−1} of forgetting (max of all) divided by max_l R[l, j].",
        "contilab",
        "lower",
    )
    yield from entry(
        "forward_transfer",
        "FWT",
        "mean_{j≥1} (R[j−1, j] − b[j]), b the scores at step 0.",
        _LOPEZ_PAZ,
        "higher",
        -1.0,
        headline=True,
    )
    yield from entry(
        "transfer",
        "transfer",
        "mean_{i≥1} mean_{j<i} R[j, i]: accuracy on tasks before they are trained.",
        "MTIL; ZSCL",
        "higher",
    )


def list_stability() -> Iterator[Metric]:
    """List measures of the stability gap."""
    code, source = "harness.measures.stability", "De Lange et al. 2023"
    for name in ("accuracy", "auroc"):
        score = SCORE_TEXTS[name]
        yield Metric(
            f"stability/<task>/{name}",
            f"{score.title} around boundaries",
            f"{score.title} of the task’s head on `stability.n_test` of its test images, while a sequence is "
            "trained.",
            "harness.finetuning.boundaries.BoundaryScores",
            source,
            low=0.0,
            high=1.0,
            better="higher",
            headline="every place",
        )
    for of_auroc in (False, True):
        score_name = "AUROC" if of_auroc else "Accuracy"

        def name_measure(measure: str, of_auroc: bool = of_auroc) -> str:
            return name_auroc(measure) if of_auroc else measure

        yield Metric(
            f"stability/<task>/{name_measure('before')}",
            f"{score_name} before the boundary",
            f"{score_name} at the end of a task, before the next one’s first step; its step is that end.",
            f"{code}.measure_gap",
            low=0.0,
            high=1.0,
            better="higher",
        )
        yield Metric(
            f"stability/<task>/{name_measure('depth')}",
            "depth of the stability gap" + " (AUROC)" * of_auroc,
            f"{score_name} before the boundary minus the lowest after it, within `stability.window` steps; "
            "negative if it only rose.",
            f"{code}.measure_gap",
            f"after {source}",
            low=-1.0,
            high=1.0,
            better="lower",
            headline="every place",
            form="signed",
        )
        yield Metric(
            f"stability/<task>/{name_measure('recovery')}",
            "recovery from the stability gap" + " (AUROC)" * of_auroc,
            f"Last {score_name if of_auroc else 'accuracy'} in the window minus the lowest.",
            f"{code}.measure_gap",
            f"after {source}",
            low=0.0,
            high=1.0,
            better="higher",
        )
        for measure, heading, definition in (
            (
                "min_acc",
                "min-ACC",
                "mean_{i<k} min_{t_i<n≤t_k} A_i(n): mean over earlier tasks of the lowest evaluated "
                f"{score_name if of_auroc else 'accuracy'} since each ended at step t_i.",
            ),
            ("wc_acc", "WC-ACC", "A_k(t_k)/k + (1 − 1/k) · min-ACC, with k tasks so far."),
        ):
            yield Metric(
                f"stability/all/{name_measure(measure)}",
                heading + " (AUROC)" * of_auroc,
                definition,
                f"{code}.{measure}",
                source,
                low=0.0,
                high=1.0,
                better="higher",
                headline="every place",
                above="stability, head" + " (AUROC)" * of_auroc,
                heading=heading,
                compared=("end",),
            )
    yield Metric(
        "stability/<task>/depth_step",
        "step of the stability gap",
        "Steps after the boundary at which the score is lowest for the first time.",
        f"{code}.measure_gap",
        unit="steps",
        low=1.0,
    )
