"""The brain as an anchor in a study: what it keeps at equal accuracy, against its shuffled self and others.

Families are penalties at several weights λ: those of `brain_anchor` by what stands for the brain, and every
other method with a weight. Each curve begins at λ = 0, the run with method=full of the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from harness.config import (
    BrainAnchorConfig,
    flatten,
    main_measure,
    tasks_in_order,
)
from harness.measures import (
    TOLERANCE,
    TradeOff,
    compare_trade_offs,
)
from harness.reporting.run_results import RunResult

BRAIN, SHUFFLED, RANDOM = "brain", "shuffled brain", "random mapping"
FAMILIES = {"none": BRAIN, "shuffled": SHUFFLED, "random": RANDOM}
RIVALS = (SHUFFLED, RANDOM, "ldifs")
"""In this order; the first is the question."""
LEVEL = 0.05
IGNORED = ("method.", "seed", "study.", "runs_dir", "mlflow.")
"""Settings in which runs of one comparison may differ."""


@dataclass(frozen=True)
class Curve:
    """A family over λ.

    Attributes
    ----------
    name : str
    weights : tuple of float
        λ, in order; 0 first.
    seeds : tuple of int
    points : float array [n_seeds, n_weights, 2]
        Task accuracy and Δ_LP (mean over probes) of the last snapshot.
    """

    name: str
    weights: tuple[float, ...]
    seeds: tuple[int, ...]
    points: Float[np.ndarray, "n_seeds n_weights 2"]


@dataclass(frozen=True)
class Anchoring:
    """Curves of one backbone, task and brain.

    Attributes
    ----------
    title : str
        Backbone and task.
    curves : tuple of Curve
        The brain's first.
    """

    title: str
    curves: tuple[Curve, ...]

    @cached_property
    def rivals(self) -> dict[str, TradeOff]:
        """The brain against every other family of `RIVALS`, over the seeds that both have."""
        brain = self.curves[0]
        found = {}
        for name in RIVALS:
            for curve in self.curves[1:]:
                shared = [seed for seed in brain.seeds if seed in curve.seeds]
                if curve.name == name and shared:
                    found[name] = compare_trade_offs(
                        *([one.points[one.seeds.index(seed)] for seed in shared] for one in (brain, curve))
                    )
        return found


def find_anchorings(runs: Sequence[RunResult]) -> list[Anchoring]:
    """Find the comparisons of a study: runs with the brain's own mapping, without a penalty, and others."""
    groups: dict[tuple[tuple[str, str], ...], list[RunResult]] = {}
    for run in runs:
        shared = {name: value for name, value in flatten(run.config).items() if not name.startswith(IGNORED)}
        groups.setdefault(tuple(sorted(shared.items())), []).append(run)
    found = []
    for alike in groups.values():
        by_family: dict[str, dict[float, dict[int, RunResult]]] = {}
        for run in alike:
            name, weight = _name_family(run)
            if name is not None:
                by_family.setdefault(name, {}).setdefault(weight, {})[run.config.seed] = run
        free = by_family.pop("full", {}).get(0.0, {})
        curves = [curve for name in by_family if (curve := _draw_curve(name, by_family[name], free))]
        order = (BRAIN, *RIVALS)
        curves.sort(
            key=lambda curve: (order.index(curve.name) if curve.name in order else len(order), curve.name)
        )
        if curves and curves[0].name == BRAIN:
            config = alike[0].config
            found.append(Anchoring(f"{config.backbone.name}, {config.task.name}", tuple(curves)))
    return found


def _name_family(run: RunResult) -> tuple[str | None, float]:
    """Name a run's family and λ; None for a method without a weight."""
    method = run.config.method
    if method.name == "full":
        return "full", 0.0
    weight = getattr(method, "weight", None)
    if weight is None or _score(run) is None:
        return None, 0.0
    return (FAMILIES[method.control] if isinstance(method, BrainAnchorConfig) else method.name), float(weight)


def _draw_curve(
    name: str, weighted: dict[float, dict[int, RunResult]], free: dict[int, RunResult]
) -> Curve | None:
    """Collect a family's points, over the seeds that have every weight; None without such a seed."""
    weights = sorted(weighted)
    seeds = sorted(seed for seed in free if all(seed in weighted[weight] for weight in weights))
    points = [
        [_score(run) for run in (free[seed], *(weighted[weight][seed] for weight in weights))]
        for seed in seeds
    ]
    known = [place for place, row in enumerate(points) if None not in row]
    if not known:
        return None
    return Curve(
        name,
        (0.0, *weights),
        tuple(seeds[place] for place in known),
        np.array([points[place] for place in known], dtype=np.float64),
    )


def _score(run: RunResult) -> tuple[float, float] | None:
    """Accuracy (or AUROC) on the task, and the mean Δ_LP over probes, of the last snapshot."""
    task = tasks_in_order(run.config.task)[-1]
    accuracy = run.find(f"task/{task.name}/{main_measure(task)}", "end")[2]
    probes = [name for name in run.config.probes.names if name not in run.tasks]
    changes = [run.find(f"forgetting/{name}/delta_lp", "end")[2] for name in probes]
    known = [change for change in changes if change is not None]
    return None if accuracy is None or not known else (accuracy, sum(known) / len(known))


def judge(anchoring: Anchoring) -> list[str]:
    """Say whether the brain beats its shuffled self, and the other rivals, in one sentence each."""
    lines = [_answer(name, test) for name, test in anchoring.rivals.items()]
    if SHUFFLED not in anchoring.rivals:
        lines.insert(0, "No runs with control=shuffled: whether it is the brain that helps cannot be said.")
    return lines


def _answer(name: str, test: TradeOff) -> str:
    rival = {SHUFFLED: "its shuffled self", RANDOM: "a random mapping"}.get(name, name.upper())
    if test.p_better <= LEVEL:
        answer, p = f"The brain beats {rival}", test.p_better
    elif test.p_worse <= LEVEL:
        answer, p = f"The brain does worse than {rival}", test.p_worse
    else:
        answer, p = f"The brain is not shown to beat {rival}", test.p_better
    between = "" if test.interval is None else f" [{_sign(test.interval[0])}, {_sign(test.interval[1])}]"
    n = test.n_seeds
    least = f"{n} seeds cannot reach less than {test.smallest:.3f}" if n > 1 else "one seed cannot say more"
    return (
        f"{answer}: where accuracy is within {100 * TOLERANCE:g} point of that without a penalty, the best "
        f"Δ_LP is {_sign(test.one.mean())} against {_sign(test.other.mean())}, a difference of "
        f"{_sign(test.difference)}{between} (one-sided p = {p:.3f} by exact sign flips of seeds; {least})."
    )


def _sign(value: float) -> str:
    text = f"{value:+.3f}".replace("-", "−")
    return "0.000" if text.strip("+−") == "0.000" else text


def write_anchoring(anchoring: Anchoring) -> dict[str, object]:
    """Write a comparison for the page: sentences, and a table of every family and λ."""
    headings = ["anchor", "λ", "seeds", "task accuracy", "Δ_LP"]
    rows = []
    for curve in anchoring.curves:
        for place, weight in enumerate(curve.weights):
            if weight == 0 and curve is not anchoring.curves[0]:
                continue
            accuracy, change = curve.points[:, place].T
            rows.append(
                [
                    curve.name if weight else "none (full)",
                    f"{weight:g}",
                    str(len(curve.seeds)),
                    f"{accuracy.mean():.3f}{_spread(accuracy)}",
                    f"{_sign(change.mean())}{_spread(change)}",
                ]
            )
    return {"title": anchoring.title, "sentences": judge(anchoring), "headings": headings, "rows": rows}


def _spread(values: Float[np.ndarray, " n_seeds"]) -> str:
    return f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""


def format_anchorings(runs: Sequence[RunResult]) -> str:
    """Write the answers for a terminal; empty if these runs ask nothing of the kind."""
    return "\n\n".join("\n".join([one.title, *judge(one)]) for one in find_anchorings(runs))
