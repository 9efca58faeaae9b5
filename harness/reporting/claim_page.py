"""The outcome of a preregistered test: verdict, table, figure and page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from harness.config import ClaimPlan
from harness.measures import (
    RIVALS,
    Claim,
    RankTest,
    detectable_rho,
    judge_claim,
    rank_test,
)
from harness.plot import (
    embed_svg,
    save_png,
)
from harness.reporting.claim_runs import (
    PlannedRuns,
    read_planned_runs,
)
from harness.reporting.figures.claim import draw_claim
from harness.reporting.page_templates import load_template
from harness.storage import (
    write_atomically,
    write_json,
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A test and where it was written.

    Attributes
    ----------
    claim : Claim
    text : str
        Verdict, power and tables for a terminal.
    page : Path
        ``claim.html``; ``claim.json`` and ``claim.png`` lie beside it.
    """

    claim: Claim
    text: str
    page: Path


def write_claim(plan: ClaimPlan, study: Path) -> Outcome:
    """Make the test of a plan and write ``claim.json``, ``claim.png`` and ``claim.html`` into its study.

    Raises
    ------
    InputError
        As `read_planned_runs` and `judge_claim`.
    """
    planned = read_planned_runs(plan, study)
    claim = judge_claim(planned.runs, plan.backbones, plan.alpha, plan.permutations, plan.seed)
    figure = draw_claim(claim, plan.level)
    write_json(study / "claim.json", _as_json(plan, planned, claim))
    save_png(figure, study / "claim.png")
    page = study / "claim.html"
    with write_atomically(page) as temporary:
        temporary.write_text(_render(plan, planned, claim, figure), encoding="utf-8")
    return Outcome(claim, _write_text(plan, claim), page)


def describe_plan(plan: ClaimPlan) -> str:
    """Say what a plan would run, and which correlations its backbones can show, before anything is run."""
    classes = list(plan.backbones.values())
    counts = (len(plan.backbones), len(plan.tasks), len(plan.seeds))
    # any ranks without ties have the same critical value, if all backbones are of one class
    rng = np.random.default_rng(plan.seed)
    places = rng.permutation(len(classes)).astype(float)
    test = rank_test(places, rng.permuted(places), classes, plan.alpha, plan.permutations, plan.seed)
    return "\n".join(
        [
            f"plan {plan.hash}",
            "{} backbones × {} tasks × {} seeds = {} runs".format(*counts, math.prod(counts)),
            write_power(test, plan.alpha, detectable_rho(classes, plan.alpha, seed=plan.seed)),
        ]
    )


def write_verdict(claim: Claim, level: float) -> str:
    """Say in one sentence whether brain-like networks forget less."""
    test = claim.test
    inside = f", {test.within:+.2f} within size classes" if test.n_classes > 1 else ""
    said = (
        f"over {test.n_backbones} backbones, H and F({level:g}) have a rank correlation of "
        f"{test.rho:+.2f}{inside} ({_say_p(test.p)})."
    )
    if claim.holds:
        return f"Brain-like networks forget less: {said}"
    if claim.found:
        return f"Brain-like networks forget more: {said}"
    return f"Not shown that brain-like networks forget less: {said}"


def write_power(test: RankTest, alpha: float, detectable: float | None) -> str:
    """Say which correlations so many backbones can show."""
    inside = f" in {test.n_classes} size classes" if test.n_classes > 1 else ""
    said = f"With {test.n_backbones} backbones{inside}, "
    if test.critical is None:
        return f"{said}no correlation can reach p ≤ {alpha:g}."
    said += f"only |ρ| ≥ {test.critical:.2f}{' within classes' if inside else ''} has p ≤ {alpha:g}"
    if detectable is None:
        return f"{said}; not even a true correlation of .99 is found with 80 % power."
    return f"{said}; a true correlation of {detectable:.2f} is found with 80 % power."


def write_mixed(claim: Claim) -> str:
    """Say what the mixed model found."""
    mixed = claim.mixed
    if mixed is None:
        return "Mixed model: not fitted (it needs two runs per backbone, and more backbones than predictors)."
    said = (
        f"Mixed model: F changes by {mixed.effect:+.3f} [{mixed.low:+.3f}, {mixed.high:+.3f}] per standard "
        f"deviation of H ({_say_p(mixed.p)}, {mixed.dof} degrees of freedom), with log parameters, "
        "probe accuracy at step 0 and task in the model"
    )
    if mixed.dropped:
        said += f"; {' and '.join(mixed.dropped)} left out (constant, or a combination of the others)"
    return said + ("." if mixed.converged else "; the fit did not converge.")


def write_without(claim: Claim) -> str:
    """Say what the test gives without each backbone."""
    tests = claim.without.values()
    low, high = min(test.within for test in tests), max(test.within for test in tests)
    changed = [name for name, test in claim.without.items() if (test.p <= claim.alpha) != claim.found]
    said = (
        f"Without one backbone: ρ from {low:+.2f} to {high:+.2f}, p from "
        f"{_write_p(min(test.p for test in tests))} to {_write_p(max(test.p for test in tests))}; "
    )
    if not changed:
        return f"{said}the verdict is the same without any of them."
    names = "any one of them" if len(changed) == len(claim.without) else ", ".join(changed)
    return f"{said}the verdict changes without {names}."


def write_reliability(claim: Claim) -> str:
    """Say how much of H is noise of its fits, and what is left out."""
    said = f"Reliability of H: {claim.reliability:.2f} of its variance over backbones is not noise of fits."
    if claim.left_out:
        names = "; ".join(f"{name} ({tasks})" for name, tasks in claim.left_out.items())
        said += f" Left out, since they never reach the level of learning: {names}."
    return said


def _say_p(p: float) -> str:
    return "p < .001" if p < 0.001 else f"p = {p:.3f}"


def _write_p(p: float) -> str:
    return "<.001" if p < 0.001 else f"{p:.3f}"


def _test_rows(claim: Claim) -> Iterator[tuple[str, RankTest]]:
    yield "H", claim.test
    yield from claim.rivals.items()


def _write_text(plan: ClaimPlan, claim: Claim) -> str:
    tests = [["predictor of F", "ρ", "ρ within classes", "p"]]
    tests += [
        [name, f"{test.rho:+.2f}", f"{test.within:+.2f}", _write_p(test.p)]
        for name, test in _test_rows(claim)
    ]
    table = [["backbone", "class", "H", f"F({plan.level:g})", *plan.tasks, "probes at 0"]]
    for one in claim.backbones:
        numbers = [f"{one.by_task[task]:+.3f}" for task in plan.tasks]
        row = [one.name, one.size_class, f"{one.score:+.3f}", f"{one.forgetting:+.3f}", *numbers]
        table.append([*row, f"{one.probe:.3f}"])
    return "\n".join(
        [
            write_verdict(claim, plan.level),
            "",
            write_power(claim.test, claim.alpha, claim.detectable),
            write_mixed(claim),
            write_without(claim),
            write_reliability(claim),
            "",
            *_align(tests),
            "",
            *_align(table),
        ]
    )


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align columns: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]


def _as_json(plan: ClaimPlan, planned: PlannedRuns, claim: Claim) -> dict[str, Any]:
    return {
        "plan": plan.model_dump(mode="json"),
        "plan_hash": plan.hash,
        "verdict": write_verdict(claim, plan.level),
        "power": write_power(claim.test, claim.alpha, claim.detectable),
        "holds": claim.holds,
        "claim": _finite(dataclasses.asdict(claim)),
        "step_0_difference": planned.step_0_difference,
        "runs": _finite([dataclasses.asdict(run) for run in planned.runs]),
    }


def _finite(value: Any) -> Any:
    """Replace numbers that JSON does not have by null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _render(plan: ClaimPlan, planned: PlannedRuns, claim: Claim, figure: Figure) -> str:
    return load_template("claim.html").render(
        plan=plan,
        claim=claim,
        verdict=write_verdict(claim, plan.level),
        power=write_power(claim.test, claim.alpha, claim.detectable),
        remarks=[write_mixed(claim), write_without(claim), write_reliability(claim)],
        tests=list(_test_rows(claim)),
        definitions={"H": f"{plan.score} at step 0, mean over its fits", **RIVALS},
        without=claim.without,
        write_p=_write_p,
        step_0_difference=planned.step_0_difference,
        figure=embed_svg(figure),
    )
