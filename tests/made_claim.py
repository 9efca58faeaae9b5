"""A plan and its runs with known H and F, as files: only the rows that the test of a plan reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.config.claim import ClaimPlan, read_plan
from harness.config.compose import load_config, to_yaml
from harness.runs.journal import Journal
from harness.runs.layout import run_folder
from harness.storage.files import write_json

STEPS = (0, 10, 20, 40)
BACKBONES = (
    "mini_clip",
    "mini_supervised",
    "dinov2_s14",
    "dino_s16",
    "imagenet_s16",
    "imagenet1k_s16",
)
PLAN: dict[str, Any] = {
    "study": "made",
    "backbones": dict.fromkeys(BACKBONES, "S") | {"mini_clip": "mini", "mini_supervised": "mini"},
    "tasks": ["digits", "textures"],
    "probes": ["shapes", "counts"],
}


def write_plan(path: Path, **changes: Any) -> ClaimPlan:
    """Write a plan as YAML and read it; None leaves a setting out."""
    content = {name: value for name, value in (PLAN | changes).items() if value is not None}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return read_plan(path)


def make_rows(
    task: str, score: float, forgetting: float, start: float = 0.2, best: float = 1.0
) -> dict[int, dict[str, float]]:
    """Make a run whose accuracy and Δ are linear in the step: Δ is `forgetting` at the last one."""
    rows: dict[int, dict[str, float]] = {}
    for step in STEPS:
        progress = step / STEPS[-1]
        rows[step] = {
            "brain/all/r2": 0.3 - 0.1 * progress,
            f"probe/{task}/linear_accuracy": start + (best - start) * progress,
            "probe/shapes/linear_accuracy": 0.8 + forgetting * progress,
            "probe/counts/linear_accuracy": 0.6 + forgetting * progress,
            "forgetting/shapes/delta_lp": forgetting * progress,
            "forgetting/counts/delta_lp": forgetting * progress,
            "drift/stem/weight_distance": progress,
            "drift/stem/weight_distance_relative": 0.2 * progress,
            "drift/blocks.0/weight_distance": progress,
            "drift/blocks.0/weight_distance_relative": 0.4 * progress,
            "drift/blocks.0/cka_unbiased": 1 - 0.5 * progress,
        }
    rows[0] |= {"alignment/all/slope_null_mean": score, "alignment/all/slope_null_sd": 0.01}
    return rows


def write_planned_run(
    runs_dir: Path,
    plan_hash: str | None,
    backbone: str,
    task: str,
    rows: Mapping[int, Mapping[str, float]],
    overrides: tuple[str, ...] = (),
    fingerprint: str | None = None,
    finished: bool = True,
) -> Path:
    """Write a run as fine-tuning and tracking leave it; return its folder."""
    config = load_config(
        [
            f"backbone={backbone}",
            f"task={task}",
            "study.name=made",
            f"runs_dir={runs_dir}",
            "probes.tasks=[shapes,counts]",
            *overrides,
        ]
    )
    # the test compares sizes as configured with the plan's classes
    folder = run_folder(config)
    folder.mkdir(parents=True)
    with Journal(folder / "results.jsonl") as journal:
        for step, values in rows.items():
            journal.log(step, values)
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    manifest: dict[str, Any] = {
        "code_version": "made",
        "parameters": 1000 * len(backbone),
        "fingerprints": {"pretrained_encoder": fingerprint or backbone, "brain": "made"},
    }
    write_json(folder / "manifest.json", manifest | ({} if plan_hash is None else {"claim_plan": plan_hash}))
    if finished:
        write_json(folder / "finished.json", {"steps": list(STEPS)})
    return folder


def write_study(
    runs_dir: Path, plan: ClaimPlan, scores: Mapping[str, float], forget: Mapping[str, float]
) -> Path:
    """Write all runs of a plan; F(.75) of a run is .75 of `forget`. Return the study's folder."""
    for backbone in plan.backbones:
        for task in plan.tasks:
            rows = make_rows(task, scores[backbone], forget[backbone])
            write_planned_run(runs_dir, plan.hash, backbone, task, rows)
    return runs_dir / "made"
