"""The paper's claim, "brain-like networks forget less", as a test over backbones.

Units are backbones, not runs: each has one H, how brain-like it is before fine-tuning, and one F, how much it
has forgotten at matched learning (`matched_learning`). F is a Δ, so negative is forgetting, and the claim is
that F rises with H. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.measures.mixed_model import (
    MixedModel,
    fit_mixed_model,
)
from harness.measures.rank_tests import (
    RankTest,
    detectable_rho,
    rank_test,
)
from harness.storage import InputError

RIVALS = {
    "brain R²": "R² of the brain at step 0",
    "CKA drift": "1 − unbiased CKA with step 0, mean over layers, at matched learning",
    "weight distance": "relative distance of the weights from step 0, mean over layers, at matched learning",
    "size": "logarithm of the number of parameters",
}
"""Rivals of H: what else may tell how much a backbone forgets, with their definitions."""


@dataclass(frozen=True)
class ClaimRun:
    """What one run says.

    Attributes
    ----------
    backbone, task : str
    seed : int
    score : float
        H: mean over the fits of step 0.
    score_sd : float
        Standard deviation over these fits.
    n_fits : int
        Their number.
    forgetting : float
        F: Δ at matched learning, mean over probe tasks; NaN where the run does not reach it.
    probe : float
        Accuracy of the probes at step 0, mean over probe tasks.
    rivals : dict of str to float
        By the names in `RIVALS`; NaN where F is.
    """

    backbone: str
    task: str
    seed: int
    score: float
    score_sd: float
    n_fits: int
    forgetting: float
    probe: float
    rivals: Mapping[str, float]


@dataclass(frozen=True)
class Backbone:
    """A backbone's means over tasks and seeds.

    Attributes
    ----------
    name, size_class : str
    score, forgetting, probe : float
        H, F and accuracy of the probes at step 0.
    rivals : dict of str to float
    by_task : dict of str to float
        F on each task, mean over seeds.
    n_runs : int
        Runs with an F.
    """

    name: str
    size_class: str
    score: float
    forgetting: float
    probe: float
    rivals: Mapping[str, float]
    by_task: Mapping[str, float]
    n_runs: int


@dataclass(frozen=True)
class Claim:
    """The test of the claim, and what stands beside it.

    Attributes
    ----------
    backbones : tuple of Backbone
        Those tested, by falling H.
    left_out : dict of str to str
        Backbones without an F, with the tasks on which no run reaches the level.
    test : RankTest
        Of H and F, permuted within size classes.
    alpha : float
    detectable : float or None
        Smallest true correlation that is found with 80 % power.
    mixed : MixedModel or None
    without : dict of str to RankTest
        The test without each backbone.
    rivals : dict of str to RankTest
        The same test with a rival in place of H. Size is permuted over all backbones.
    reliability : float
        Share of H's variance over backbones that is not noise of the fits, in [0, 1].
    """

    backbones: tuple[Backbone, ...]
    left_out: Mapping[str, str]
    test: RankTest
    alpha: float
    detectable: float | None
    mixed: MixedModel | None
    without: Mapping[str, RankTest]
    rivals: Mapping[str, RankTest]
    reliability: float

    @property
    def found(self) -> bool:
        """Whether H and F are related at the planned level, in either direction."""
        return self.test.p <= self.alpha

    @property
    def holds(self) -> bool:
        """Whether the claim holds: brain-like backbones forget less at the planned level."""
        return self.found and self.test.within > 0


def judge_claim(
    runs: Sequence[ClaimRun],
    classes: Mapping[str, str],
    alpha: float = 0.05,
    n_permutations: int = 10_000,
    seed: int = 0,
) -> Claim:
    """Judge the claim from all runs of a plan.

    Parameters
    ----------
    runs : sequence of ClaimRun
    classes : dict of backbone to size class
    alpha : float
        Level of the test.
    n_permutations, seed : int
        As for `rank_test`.

    Raises
    ------
    InputError
        If fewer than four backbones have an F.
    """
    tasks = list(dict.fromkeys(run.task for run in runs))
    names = list(dict.fromkeys(run.backbone for run in runs))
    grouped = {name: [run for run in runs if run.backbone == name] for name in names}
    missing = {name: _tasks_without(grouped[name], tasks) for name in names}
    left_out = {name: ", ".join(lacking) for name, lacking in missing.items() if lacking}
    kept = [_average(grouped[name], classes[name], tasks) for name in names if name not in left_out]
    if len(kept) < 4:
        raise InputError(
            f"claim: found {len(kept)} backbones that reach the level on every task, expected at least 4"
        )
    kept.sort(key=lambda backbone: -backbone.score)

    def run_test(of: Sequence[Backbone], values: Iterable[float], within: bool = True) -> RankTest:
        sizes = [backbone.size_class if within else "" for backbone in of]
        forgetting = np.array([backbone.forgetting for backbone in of])
        return rank_test(np.array([*values]), forgetting, sizes, alpha, n_permutations, seed)

    without = {}
    for one in kept:
        rest = [backbone for backbone in kept if backbone is not one]
        without[one.name] = run_test(rest, (backbone.score for backbone in rest))
    return Claim(
        backbones=tuple(kept),
        left_out=left_out,
        test=run_test(kept, (backbone.score for backbone in kept)),
        alpha=alpha,
        detectable=detectable_rho([backbone.size_class for backbone in kept], alpha, seed=seed),
        mixed=_fit_mixed(runs, {backbone.name: backbone for backbone in kept}),
        without=without,
        rivals={
            rival: run_test(kept, (backbone.rivals[rival] for backbone in kept), rival != "size")
            for rival in RIVALS
        },
        reliability=_measure_reliability([run for run in runs if run.backbone not in left_out]),
    )


def _tasks_without(runs: Sequence[ClaimRun], tasks: Sequence[str]) -> list[str]:
    reached = {run.task for run in runs if math.isfinite(run.forgetting)}
    return [task for task in tasks if task not in reached]


def _average(runs: Sequence[ClaimRun], size_class: str, tasks: Sequence[str]) -> Backbone:
    """Average a backbone's runs over seeds, then over tasks, which count equally."""
    used = [run for run in runs if math.isfinite(run.forgetting)]

    def over_seeds(values: Sequence[float]) -> dict[str, float]:
        return {
            task: float(np.mean([value for run, value in zip(used, values, strict=True) if run.task == task]))
            for task in tasks
        }

    by_task = over_seeds([run.forgetting for run in used])
    rivals = {
        rival: float(np.mean([*over_seeds([run.rivals[rival] for run in used]).values()])) for rival in RIVALS
    }
    return Backbone(
        name=runs[0].backbone,
        size_class=size_class,
        # H belongs to step 0, which every run has
        score=float(np.mean([run.score for run in runs])),
        forgetting=float(np.mean([*by_task.values()])),
        probe=float(np.mean([run.probe for run in runs])),
        rivals=rivals,
        by_task=by_task,
        n_runs=len(used),
    )


def _fit_mixed(runs: Sequence[ClaimRun], backbones: Mapping[str, Backbone]) -> MixedModel | None:
    """Fit F ~ H + log parameters + probe accuracy at step 0 + task, with an intercept per backbone."""
    used = [run for run in runs if run.backbone in backbones and math.isfinite(run.forgetting)]
    return fit_mixed_model(
        np.array([run.forgetting for run in used]),
        np.array([backbones[run.backbone].score for run in used]),
        {
            "log parameters": np.array([backbones[run.backbone].rivals["size"] for run in used]),
            "probe accuracy": np.array([backbones[run.backbone].probe for run in used]),
        },
        [run.task for run in used],
        [run.backbone for run in used],
    )


def _measure_reliability(runs: Sequence[ClaimRun]) -> float:
    """1 − variance of the fits' means over variance of H between backbones.

    Runs of one seed share their fits of step 0, whatever the task: they count once.
    """
    grouped: dict[str, dict[int, ClaimRun]] = {}
    for run in runs:
        grouped.setdefault(run.backbone, {})[run.seed] = run
    scores = [float(np.mean([run.score for run in own.values()])) for own in grouped.values()]
    noise = [
        float(np.mean([run.score_sd**2 / run.n_fits for run in own.values()])) / len(own)
        for own in grouped.values()
    ]
    spread = float(np.var(scores, ddof=1))
    return float(np.clip(1 - np.mean(noise) / spread, 0, 1)) if spread > 0 else 0.0
