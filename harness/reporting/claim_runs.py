"""The runs of a preregistered test: which belong to its plan, and what each says of H and F."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.config import (
    ClaimPlan,
    flatten,
    main_measure,
    tasks_in_order,
)
from harness.measures import (
    ClaimRun,
    values_at_shares,
)
from harness.reporting.run_results import (
    RunResult,
    read_run,
)
from harness.runs import read_run_manifest
from harness.storage import InputError

MOST_NAMED = 5


@dataclass(frozen=True)
class PlannedRuns:
    """All runs of a plan.

    Attributes
    ----------
    runs : tuple of ClaimRun
    step_0_difference : float
        Largest difference between H of runs that differ only in their task, and so share step 0.
    """

    runs: tuple[ClaimRun, ...]
    step_0_difference: float


def read_planned_runs(plan: ClaimPlan, study: Path) -> PlannedRuns:
    """Read the runs of a plan from the folder of its study.

    Raises
    ------
    InputError
        If a run of the study began without the plan or under another one, a planned run is missing or
        unfinished, runs differ in a setting that the plan does not vary, step 0 is not the backbone as
        pretrained, or H depends on the task. The message names the runs.
    """
    folders = sorted(path.parent for path in Path(study).glob("*/config.yaml"))
    if not folders:
        raise InputError(f"{study}: found no run, expected the runs of the plan")
    manifests = {folder: read_run_manifest(folder) for folder in folders}
    _check_hashes(plan, manifests)
    finished = [folder for folder in folders if (folder / "finished.json").exists()]
    found: dict[tuple[str, str, int], RunResult] = {}
    for folder in finished:
        run = read_run(folder)
        try:
            plan.check(run.config)
        except InputError as error:
            raise InputError(f"{folder}: {error}") from None
        key = (run.config.backbone.name, run.config.task.name, run.config.seed)
        if key in found:
            raise InputError(f"{folder} and {found[key].folder}: found two runs of {_describe(key)}, not one")
        found[key] = run
    planned = [*product(plan.backbones, plan.tasks, plan.seeds)]
    missing = [_describe(key) for key in planned if key not in found]
    if missing:
        raise InputError(
            f"{study}: {len(missing)} of the {len(planned)} planned runs are missing or unfinished: "
            f"{_enumerate(missing)}; the test is made once, when all are there"
        )
    results = [found[key] for key in planned]
    _check_settings(results)
    _check_step_0(results, manifests)
    runs = tuple(_measure(plan, results, manifests))
    return PlannedRuns(runs, _compare_step_0(runs))


def _check_hashes(plan: ClaimPlan, manifests: Mapping[Path, Mapping[str, Any]]) -> None:
    """Refuse a study with runs that did not begin under this plan."""
    without = [folder.name for folder, content in manifests.items() if "claim_plan" not in content]
    other = [
        f"{folder.name} (plan {content['claim_plan'][:8]})"
        for folder, content in manifests.items()
        if content.get("claim_plan", plan.hash) != plan.hash
    ]
    said = []
    if other:
        said.append(f"{len(other)} began under another plan: {_enumerate(other)}")
    if without:
        said.append(f"{len(without)} began without a plan: {_enumerate(without)}")
    if said:
        raise InputError(
            f"{next(iter(manifests)).parent}: expected runs of plan {plan.hash[:8]} only; {'; '.join(said)}"
        )


def _check_settings(results: Sequence[RunResult]) -> None:
    """Refuse runs that differ in anything but backbone, task and seed."""
    models: dict[str, RunResult] = {}
    for run in results:
        for model, varied in (
            (results[0], ("backbone.", "task.", "seed")),
            (models.setdefault(run.config.task.name, run), ("backbone.", "seed")),
        ):
            own, other = (
                {name: value for name, value in flatten(one.config).items() if not name.startswith(varied)}
                for one in (run, model)
            )
            for name in sorted(own.keys() | other.keys()):
                if own.get(name) != other.get(name):
                    raise InputError(
                        f"{run.folder}: found {name}={own.get(name)}, expected {other.get(name)} as in "
                        f"{model.folder.name}"
                    )


def _check_step_0(results: Sequence[RunResult], manifests: Mapping[Path, Mapping[str, Any]]) -> None:
    """Check that H comes from the backbone as pretrained: step 0 is bit for bit that network."""
    prints: dict[str, tuple[Any, Path]] = {}
    for run in results:
        moved = [name for name, value in _at_start(run, "/weight_distance") if value != 0]
        if moved:
            raise InputError(
                f"{run.folder}: found {moved[0]} above 0 at step 0, expected the backbone as pretrained"
            )
        own, backbone = manifests[run.folder]["fingerprints"], f"backbone {run.config.backbone.name}"
        for what, value in ((backbone, own["pretrained_encoder"]), ("brain", own["brain"])):
            expected, folder = prints.setdefault(what, (value, run.folder))
            if value != expected:
                raise InputError(f"{run.folder}: found another {what} than in {folder.name}")


def _at_start(run: RunResult, ending: str) -> Iterator[tuple[str, float]]:
    """Yield names and values at step 0 of the measures of drift with an ending."""
    rows = run.rows[run.rows["step"] == 0]
    for name, value in zip(rows["name"], rows["value"], strict=True):
        if name.startswith("drift/") and name.endswith(ending):
            yield str(name), float(value)


def _measure(
    plan: ClaimPlan, results: Sequence[RunResult], manifests: Mapping[Path, Mapping[str, Any]]
) -> Iterator[ClaimRun]:
    """Read H, F and rivals of every run; F is read where all runs of a task have learned equally much."""
    for task in plan.tasks:
        chosen = [run for run in results if run.config.task.name == task]
        learned = [_learned(run) for run in chosen]

        def at_level(
            curves: Sequence[pd.Series], learned: Sequence[pd.Series] = tuple(learned)
        ) -> np.ndarray:
            pairs = [curve.loc[own.index].to_numpy() for curve, own in zip(curves, learned, strict=True)]
            return values_at_shares([own.to_numpy() for own in learned], pairs, (plan.level,))[:, 0]

        forgetting = at_level([_mean_delta(run, plan.probes) for run in chosen])
        drift = at_level([1 - _mean_over_layers(run, "cka_unbiased") for run in chosen])
        weights = at_level([_mean_over_layers(run, "weight_distance_relative") for run in chosen])
        for place, run in enumerate(chosen):
            yield ClaimRun(
                backbone=run.config.backbone.name,
                task=task,
                seed=run.config.seed,
                score=_at_step_0(run, f"{plan.score}_null_mean"),
                score_sd=_at_step_0(run, f"{plan.score}_null_sd"),
                n_fits=run.config.mapping.floor_refits + 1,
                forgetting=float(forgetting[place]),
                probe=float(np.mean([_probe(run, probe).iloc[0] for probe in plan.probes])),
                rivals={
                    "brain R²": _at_step_0(run, "brain/all/r2"),
                    "CKA drift": float(drift[place]),
                    "weight distance": float(weights[place]),
                    "size": math.log(manifests[run.folder]["parameters"]),
                },
            )


def _learned(run: RunResult) -> pd.Series:
    """Score of a fresh linear probe on the run's own task, by step."""
    (task,) = tasks_in_order(run.config.task)
    return _curve(run, f"probe/{task.name}/linear_{main_measure(task)}")


def _mean_delta(run: RunResult, probes: Sequence[str]) -> pd.Series:
    curves = []
    for probe in probes:
        name = f"forgetting/{probe}/delta_lp"
        curves.append(_curve(run, name if not run.curve(name).empty else f"{name}_auroc"))
    return pd.concat(curves, axis=1).mean(axis=1)


def _probe(run: RunResult, probe: str) -> pd.Series:
    name = f"probe/{probe}/linear_accuracy"
    return _curve(run, name if not run.curve(name).empty else f"probe/{probe}/linear_auroc")


def _mean_over_layers(run: RunResult, measure: str) -> pd.Series:
    names = sorted({name for name, _ in _at_start(run, f"/{measure}")})
    if not names:
        raise InputError(f"{run.folder}: found no drift/…/{measure} at step 0, expected a tracked run")
    return pd.concat([_curve(run, name) for name in names], axis=1).mean(axis=1)


def _at_step_0(run: RunResult, name: str) -> float:
    return float(_curve(run, name).loc[0])


def _curve(run: RunResult, name: str) -> pd.Series:
    """Return a metric by step, with step 0 first."""
    curve = run.curve(name)
    if curve.empty or curve.index[0] != 0:
        raise InputError(f"{run.folder / 'results.jsonl'}: found no {name} at step 0, expected a tracked run")
    return curve


def _compare_step_0(runs: Sequence[ClaimRun]) -> float:
    """Compare H over runs that share step 0 and differ in their task; refuse what is no rounding error.

    The fits of step 0 are drawn from the seed and see neither task nor labels. If H of one backbone depended
    on the task by more than its fits differ among themselves, it would not be fixed before fine-tuning.
    """
    largest = 0.0
    shared: dict[tuple[str, int], list[ClaimRun]] = {}
    for run in runs:
        shared.setdefault((run.backbone, run.seed), []).append(run)
    for (backbone, seed), own in shared.items():
        difference = float(np.ptp([run.score for run in own]))
        if difference > max(run.score_sd for run in own):
            raise InputError(
                f"{backbone}, seed {seed}: found H between {min(run.score for run in own):.4f} and "
                f"{max(run.score for run in own):.4f} by task, expected the same: step 0 knows no task"
            )
        largest = max(largest, difference)
    return largest


def _describe(key: tuple[str, str, int]) -> str:
    backbone, task, seed = key
    return f"{backbone} on {task}, seed {seed}"


def _enumerate(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
