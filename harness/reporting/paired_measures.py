"""What is compared between the runs of pairs: measures, and the moments at which they are taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.measures import (
    LEARNED_SHARES,
    PROBE_KINDS,
    common_best,
    name_auroc,
    split_name,
    values_at_shares,
)
from harness.reporting.columns import (
    MAIN,
    TASK,
)
from harness.reporting.pairs import Pair
from harness.reporting.run_results import RunResult

END = "last snapshot"
LEARNING = "learning/all/step"
"""Stands for the optimizer step at which a share is learned; no row of the results."""
REWIRED = 3  # code of "rewired" in verdict/<place>/kind


_NONE = pd.Series(dtype="float64")


@dataclass(frozen=True)
class Measured:
    """What is compared: a row of the results, or its change since step 0.

    Attributes
    ----------
    metric : str
        Its name in ``results.jsonl``, with placeholders for the run's task and main measure; ``learning/…``
        for the step at which a share is learned.
    form : "value", "mean" (over probes), "change" (since step 0), "excess" (0 at step 0), "rewired" (1 or 0)
    title : str
        What its row is called.
    """

    metric: str
    form: str
    title: str

    @property
    def place(self) -> str:
        """Probe, region or ``all``."""
        return split_name(self.metric).place

    @property
    def family(self) -> str:
        """Measures that are corrected together: the same measure, wherever and whenever it is taken."""
        name = split_name(self.metric)
        return f"{name.stage}/{name.measure}"

    def trajectory(self, run: RunResult) -> pd.Series:
        """Values by step; empty where the run has none."""
        if self.form == "mean":
            ending = f"/{split_name(self.metric).measure}"
            names = [name for name in run.names if name.startswith("forgetting/") and name.endswith(ending)]
            return pd.concat([run.curve(name) for name in names], axis=1).mean(axis=1) if names else _NONE
        curve = run.curve(run.resolve(self.metric))
        if self.form == "change" and len(curve):
            return curve - curve.iloc[0]
        if self.form == "excess" and len(curve) and 0 not in curve.index:
            return pd.concat([pd.Series({0: 0.0}), curve])
        return (curve == REWIRED).astype(float) if self.form == "rewired" else curve


def list_measures(pairs: Sequence[Pair]) -> Iterator[Measured]:
    """What is compared, of what the runs of both sides have: probes, then the brain, whole and by region."""
    single = all(len(run.tasks) == 1 for pair in pairs for run in (pair.a, pair.b))
    if single:
        yield Measured(f"task/{TASK}/{MAIN}", "value", "score of the head")
        yield Measured(f"probe/{TASK}/linear_{MAIN}", "value", "score of the linear probe")
        yield Measured(LEARNING, "value", "optimizer step")
    shared = sorted(set().union(*({*pair.a.names} & {*pair.b.names} for pair in pairs)))
    for kind in PROBE_KINDS:
        for change in (kind.delta, name_auroc(kind.delta)):
            found = [
                name
                for name, parts in zip(shared, map(split_name, shared), strict=True)
                if (parts.stage, parts.measure) == ("forgetting", change) and not parts.interpolated
            ]
            if len(found) > 1:
                yield Measured(f"forgetting/all/{change}", "mean", f"{kind.symbol}, mean of probes")
            for name in found:
                yield Measured(name, "value", f"{kind.symbol} {split_name(name).place}")
    for stage, measure, form, title in (
        ("rewiring", "wasserstein_excess", "excess", "excess rewiring"),
        ("verdict", "kind", "rewired", "rewired"),
        ("selectors", "expected_depth", "change", "change of depth"),
        ("brain", "r2", "change", "change of R²"),
    ):
        places = [
            parts.place
            for parts in map(split_name, shared)
            if (parts.stage, parts.measure) == (stage, measure)
            and parts.subject is None
            and not parts.interpolated
        ]
        for place in sorted(places, key=lambda place: place != "all"):
            where = "whole brain" if place == "all" else place
            yield Measured(f"{stage}/{place}/{measure}", form, f"{title}, {where}")


def _both(pairs: Sequence[Pair]) -> list[tuple[RunResult, RunResult]]:
    """The two runs of every pair."""
    return [(pair.a, pair.b) for pair in pairs]


class Taken(NamedTuple):
    """Values of a measure at a moment, in A and B, by pair; NaN where either has none."""

    measured: Measured
    at: str
    a: np.ndarray
    b: np.ndarray


def take(measured: Measured, pairs: Sequence[Pair]) -> Iterator[Taken]:
    """Take a measure at every moment at which any pair has it."""
    if measured.metric == LEARNING:
        curves = [tuple(_steps_of(run) for run in both) for both in _both(pairs)]
    else:
        curves = [tuple(measured.trajectory(run) for run in both) for both in _both(pairs)]
        yield from _drop_empty(_at_steps(measured, curves))
    own = measured.metric.startswith(("task/", "probe/"))
    if not own and all(len(run.tasks) == 1 for both in _both(pairs) for run in both):
        yield from _drop_empty(_at_shares(measured, pairs, curves))


def _steps_of(run: RunResult) -> pd.Series:
    return pd.Series(run.steps, index=run.steps, dtype="float64")


def _drop_empty(rows: Iterator[Taken]) -> Iterator[Taken]:
    for row in rows:
        lacks = np.isnan(row.a) | np.isnan(row.b)
        if not lacks.all():
            yield row._replace(a=np.where(lacks, np.nan, row.a), b=np.where(lacks, np.nan, row.b))


def _at_steps(measured: Measured, curves: Sequence[tuple[pd.Series, ...]]) -> Iterator[Taken]:
    """Take values at the last step that each pair shares, and at earlier ones that all pairs share."""
    shared = [sorted({*first.index} & {*second.index} - {0}) for first, second in curves]
    ends = [steps[-1] if steps else None for steps in shared]
    if not any(shared):
        return
    everywhere = sorted(set.intersection(*map(set, shared)) - set(ends))
    moments: list[tuple[str, list[int | None]]] = [(END, ends)]
    moments += [(f"step {step}", [step] * len(curves)) for step in everywhere]
    for at, steps in moments:
        values = [
            [float("nan") if step is None else float(curve[step]) for curve in both]
            for both, step in zip(curves, steps, strict=True)
        ]
        yield Taken(measured, at, *np.array(values).T)


def _at_shares(
    measured: Measured, pairs: Sequence[Pair], curves: Sequence[tuple[pd.Series, ...]]
) -> Iterator[Taken]:
    """Take values where the runs have gone equal shares of the way to the best that all of a task reach."""
    found = np.full((len(pairs), 2, len(LEARNED_SHARES)), np.nan)
    for task in dict.fromkeys(pair.task for pair in pairs):
        places = [place for place, pair in enumerate(pairs) if pair.task == task]
        learned = [tuple(_learning(run) for run in (pairs[place].a, pairs[place].b)) for place in places]
        if any(len(one) == 0 for both in learned for one in both):
            continue
        best = common_best([one.to_numpy() for both in learned for one in both])
        for place, accuracies in zip(places, learned, strict=True):
            for side, (accuracy, curve) in enumerate(zip(accuracies, curves[place], strict=True)):
                steps = [step for step in accuracy.index if step in curve.index]
                if steps and steps[0] == accuracy.index[0]:
                    one = [accuracy[steps].to_numpy()], [curve[steps].to_numpy()]
                    found[place, side] = values_at_shares(*one, best=best)[0]
    for index, share in enumerate(LEARNED_SHARES):
        yield Taken(measured, f"{share:.0%} learned".replace("%", " %"), *found[:, :, index].T)


def _learning(run: RunResult) -> pd.Series:
    """Score of a fresh linear probe on the run's own task, by step."""
    return run.curve(run.resolve(f"probe/{TASK}/linear_{MAIN}"))
