"""Is a fit that begins from step 0's mapping a fair one? Rewiring by warm fits, by cold ones, and its floor.

    OMP_NUM_THREADS=2 python benchmarks/warm_start.py --output benchmarks/results/warm_start

A mini backbone is fine-tuned on digits as in the demo; its snapshots at step 0 (unchanged), at a fifth of the
way and at the end are mapped again and again, each fit with its own seed and bootstrap sample. Cold fits of
step 0 give the noise floor. The excess of each snapshot's fits over it, warm ones less cold ones, is the bias
of the warm start; for the unchanged snapshot it should be none. How often fits of the unchanged snapshot are
called rewired, at a nominal 5 %, is counted over random draws of the floor.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, write_figures

from harness.accelerator import build_accelerator
from harness.backbones import load_backbone
from harness.brains import load_brain
from harness.config import Config, load_config
from harness.families import fit_mapping, prepare_tokens
from harness.finetune import finetune
from harness.layout import list_snapshots, snapshot_folder
from harness.mapping import Mapping
from harness.methods import tune
from harness.rewiring import rewiring_measures, tail
from harness.significance import noise_floor
from harness.snapshots import encoder_hash, read_snapshot
from harness.splits import split_stimuli
from tasks import load_task

MEASURES = ("wasserstein", "space_displacement", "top_layer_changed")

FLOORS = (4, 5, 8)  # fits of step 0 that a study may have


def distance(before: Mapping, after: Mapping, measure: str) -> float:
    """Mean over voxels."""
    return float(rewiring_measures(before, after)[measure].mean())


def fit_all(config: Config, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Cold fits of every snapshot, and warm ones in several lengths: mappings by snapshot and kind."""
    accelerator = build_accelerator(config.finetune)
    task, backbone, brain = (
        load_task(**config.task.model_dump()),
        load_backbone(config.backbone),
        load_brain(config.brain),
    )
    pretrained = encoder_hash(backbone)
    finetune(config, folder, task, backbone, accelerator)
    model = tune(backbone, task.n_classes, config.method, config.seed)
    split = split_stimuli(len(brain.stimuli), config.mapping.held_out, config.seed)
    steps = list_snapshots(folder)
    found: dict[str, Any] = {"snapshots": steps, "mappings": {}, "seconds": {}}
    start: Mapping | None = None
    for step in steps:
        read_snapshot(snapshot_folder(folder, step), model, pretrained)
        tokens = prepare_tokens(
            model.merged_backbone(), brain.stimuli, split, config.mapping, 128, accelerator.device, folder
        )
        kinds: dict[str, tuple[int, Mapping | None]] = {"cold": (config.mapping.steps, None)}
        n_cold = arguments.floor if step == 0 else arguments.fits
        if start is None:
            # of its own, and in none of the comparisons
            start = _fit(tokens, brain, split, config, 999, config.mapping.steps, None)
        kinds |= {
            f"warm, {length} steps": (length, start)
            for length in (config.mapping.steps, config.mapping.steps // 2, config.mapping.steps // 4)
        }
        for kind, (length, begin) in kinds.items():
            began = time.perf_counter()
            n_fits = n_cold if kind == "cold" else arguments.fits
            found["mappings"][step, kind] = [
                _fit(tokens, brain, split, config, 1000 * (step + 1) + 100 * length + seed, length, begin)
                for seed in range(n_fits)
            ]
            found["seconds"][kind] = (time.perf_counter() - began) / n_fits
            print(step, kind, round(found["seconds"][kind], 1), "s a fit", flush=True)
    found["start"] = start
    return found


def _fit(
    tokens: Any, brain: Any, split: Any, config: Config, seed: int, length: int, start: Mapping | None
) -> Mapping:
    settings = config.mapping.model_copy(update={"steps": length})
    return fit_mapping(
        tokens, brain.responses, brain.coords, brain.bounding_box, split, settings, seed, True, start=start
    )


def compare(found: dict[str, Any], n_draws: int) -> list[dict[str, Any]]:
    """For every snapshot, kind and measure: excess over the floor, in units of the floor's own spread."""
    floor = found["mappings"][0, "cold"]
    rows = []
    for measure in MEASURES:
        between = np.zeros((len(floor), len(floor)))
        for one, other in permutations(range(len(floor)), 2):
            between[one, other] = distance(floor[one], floor[other], measure)
        off = between[~np.eye(len(floor), dtype=bool)]
        rows.append(
            {
                "measure": measure,
                "step": 0,
                "kind": "cold",
                "mean": off.mean(),
                "rejected": _rejected(between, measure, n_draws),
            }
        )
        # of the mean distance of one fit to the others
        spread = np.std([np.delete(between[:, j], j).mean() for j in range(len(floor))], ddof=1)
        for (step, kind), mappings in found["mappings"].items():
            if (step, kind) == (0, "cold"):
                continue
            raw = np.array([[distance(first, other, measure) for other in mappings] for first in floor])
            # as a study has it: the mapping that a warm start begins from is among those compared with
            to_start = np.array([distance(found["start"], other, measure) for other in mappings])
            each = raw.mean(axis=0) - off.mean()
            rows.append(
                {
                    "measure": measure,
                    "step": step,
                    "kind": kind,
                    "mean": float(raw.mean()),
                    "excess": float(each.mean()),
                    "excess_sd": float(each.std(ddof=1)),
                    "excess_in_floor_sd": float(each.mean() / spread),
                    "mean_to_start": float(to_start.mean()),
                    "r2": float(np.mean([mapping.r2.mean() for mapping in mappings])),
                }
            )
    return rows


def _rejected(between: np.ndarray, measure: str, n_draws: int) -> dict[str, float]:
    """Share of draws in which a fit of the unchanged snapshot is called rewired, against K others."""
    rng = np.random.default_rng(0)
    shares = {}
    for n_fits in FLOORS:
        p = []
        for _ in range(n_draws):
            *chosen, new = rng.choice(len(between), n_fits + 1, replace=False)
            table = between[np.ix_(chosen, chosen)]
            p.append(noise_floor(between[chosen, new], table, tail(measure), corrected=True).p)
        shares[f"{n_fits} fits of step 0"] = float(np.mean(np.array(p) < 0.05))
    return shares


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="mini_supervised")
    parser.add_argument("--floor", type=int, default=16, help="cold fits of step 0")
    parser.add_argument("--fits", type=int, default=6, help="of each snapshot and kind")
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help="settings of the study")
    parser.add_argument("--output", type=Path, help="without suffix: a .json is written")
    arguments = parser.parse_args()
    if arguments.floor <= max(FLOORS):
        parser.error(f"--floor: found {arguments.floor}, accepted: more than {max(FLOORS)}")
    config = load_config(["study=demo", f"backbone={arguments.backbone}", *arguments.set])
    with tempfile.TemporaryDirectory() as folder:
        found = fit_all(config, arguments, Path(folder))
    rows = compare(found, arguments.draws)
    for row in rows:
        print(row)
    if arguments.output:
        figures = {
            "backbone": arguments.backbone,
            "steps": found["snapshots"],
            "machine": describe_machine(),
            "seconds": found["seconds"],
            "rows": rows,
        }
        write_figures(figures, arguments.output.with_suffix(".json"))


if __name__ == "__main__":
    main()
