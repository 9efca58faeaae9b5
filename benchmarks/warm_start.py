"""Bias of warm-started fits: rewiring measured by cold fits, by warm fits, and by a mixture.

    OMP_NUM_THREADS=2 python benchmarks/warm_start.py --output benchmarks/results/warm_start

A mini backbone is fine-tuned on digits as in the demo. Its snapshots at step 0 (unchanged), after a fifth of
the steps and at the end are mapped repeatedly, each fit with its own seed and bootstrap sample. Cold fits
start from scratch; warm fits start from one mapping of step 0, with several numbers of steps
(`mapping.warm_steps`). The excess is measured against two floors of step 0:

- fits of the same kind, as in a study: where nothing has changed, there must be no excess;
- cold fits, for warm fits of the snapshot: the bias of warm-starting only the later snapshots.

The script also draws floors repeatedly and counts how often a fit of the unchanged snapshot lies above the
range of one more refit; 2.5 % would by chance.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from earlier_recipe import DEMO_BY_DESCENT
from machine import describe_machine, write_figures

from harness.backbones.backbone import encoder_hash
from harness.backbones.load import load_backbone
from harness.brains.load import load_brain
from harness.config.compose import load_config
from harness.config.run import Config
from harness.finetuning.devices import build_accelerator
from harness.finetuning.loop import finetune
from harness.finetuning.methods.tuned import tune
from harness.finetuning.snapshots import read_snapshot
from harness.mappings.data import FitData
from harness.mappings.fit import (
    fit_mapping,
    prepare_tokens,
)
from harness.mappings.mapping import Mapping
from harness.mappings.splits import split_stimuli
from harness.measures.catalogue import describe
from harness.measures.rewiring import (
    rewiring_measures,
)
from harness.measures.significance import noise_floor
from harness.runs.layout import (
    list_snapshots,
    snapshot_folder,
)
from tasks.load import load_task

MEASURES = ("wasserstein", "space_displacement", "top_layer_changed")

COLD = "cold"
FLOORS = (4, 5, 8)  # numbers of fits of step 0 in a study


def distance(before: Mapping, after: Mapping, measure: str) -> float:
    """Average a measure over voxels."""
    return float(rewiring_measures(before, after)[measure].mean())


def fit_all(config: Config, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Fine-tune, then fit every snapshot with every kind of fit; return mappings by kind and snapshot."""
    accelerator = build_accelerator(config.finetune)
    task, backbone = load_task(**config.task.model_dump()), load_backbone(config.backbone)
    brain = load_brain(config.brain)
    pretrained = encoder_hash(backbone)
    finetune(config, folder, [task], backbone, accelerator)
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
        length = config.mapping.steps
        start = start or _fit(tokens, brain, split, config, 0, length, None)
        kinds: dict[str, tuple[int, Mapping | None]] = {COLD: (length, None)}
        kinds |= {f"warm, {part} steps": (part, start) for part in (length, length // 2, length // 4)}
        for number, (kind, (part, begin)) in enumerate(kinds.items()):
            began = time.perf_counter()
            n_fits = arguments.floor if step == 0 else arguments.fits
            found["mappings"].setdefault(kind, {})[step] = [
                _fit(tokens, brain, split, config, 1 + 1000 * number + 10_000 * step + seed, part, begin)
                for seed in range(n_fits)
            ]
            found["seconds"][kind] = (time.perf_counter() - began) / n_fits
            print(step, kind, round(found["seconds"][kind], 1), "s per fit", flush=True)
    return found


def _fit(
    tokens: Any, brain: Any, split: Any, config: Config, seed: int, length: int, start: Mapping | None
) -> Mapping:
    settings = config.mapping.model_copy(update={"steps": length})
    data = FitData(tokens, brain.responses, brain.coords, brain.bounding_box, split)
    return fit_mapping(data, settings, seed=seed, bootstrap=True, start=start)


def compare(found: dict[str, Any], n_draws: int) -> list[dict[str, Any]]:
    """Compute, per kind, snapshot and measure, the excess over both floors, also in units of their spread."""
    rows = []
    for measure in MEASURES:
        cold = _Floor(found["mappings"][COLD][0], measure)
        for kind, mappings in found["mappings"].items():
            own = cold if kind == COLD else _Floor(mappings[0], measure)
            for step, fits in mappings.items():
                row = {
                    "measure": measure,
                    "kind": kind,
                    "step": step,
                    "r2": float(np.mean([mapping.r2.mean() for mapping in fits])),
                    "floor": own.mean,
                    "floor_sd": own.spread,
                }
                if step == 0:
                    row["outside"] = _outside(own.between, measure, n_draws)
                else:
                    row |= own.excess(fits)
                if kind != COLD:
                    row |= {f"{name}_over_cold_floor": value for name, value in cold.excess(fits).items()}
                rows.append(row)
    return rows


class _Floor:
    """Fits of the unchanged snapshot and the distances between them."""

    def __init__(self, fits: list[Mapping], measure: str) -> None:
        self.fits, self.measure = fits, measure
        self.between = np.zeros((len(fits), len(fits)))
        for one, other in permutations(range(len(fits)), 2):
            self.between[one, other] = distance(fits[one], fits[other], measure)
        self.mean = float(self.between.sum() / (len(fits) * (len(fits) - 1)))
        # sd over fits of a fit's mean distance to the others
        self.spread = float((self.between.sum(axis=0) / (len(fits) - 1)).std(ddof=1))

    def excess(self, fits: list[Mapping]) -> dict[str, float]:
        raw = [np.mean([distance(one, other, self.measure) for one in self.fits]) for other in fits]
        excess = np.array(raw) - self.mean
        return {
            "excess": float(excess.mean()),
            "excess_sd": float(excess.std(ddof=1)),
            "excess_in_floor_sd": float(excess.mean() / self.spread),
        }


def _outside(between: np.ndarray, measure: str, n_draws: int) -> dict[str, float]:
    """Share of draws where a fit of the unchanged snapshot lies above the range of K others."""
    rng = np.random.default_rng(0)
    shares = {}
    tail = describe(f"rewiring/all/{measure}").tail
    for n_fits in FLOORS:
        lows = []
        for _ in range(n_draws):
            *chosen, new = rng.choice(len(between), n_fits + 1, replace=False)
            lows.append(noise_floor(between[chosen, new], between[np.ix_(chosen, chosen)], tail).low)
        shares[f"{n_fits} fits of step 0"] = float(np.mean(np.array(lows) > 0))
    return shares


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="mini_supervised")
    parser.add_argument("--floor", type=int, default=12, help="fits of step 0 per kind")
    parser.add_argument("--fits", type=int, default=6, help="fits per later snapshot and kind")
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help="overrides of the study")
    parser.add_argument("--output", type=Path, help="path without suffix; writes a .json")
    arguments = parser.parse_args()
    if arguments.floor <= max(FLOORS):
        parser.error(f"--floor: found {arguments.floor}, expected more than {max(FLOORS)}")
    config = load_config(
        [
            "study=demo",
            "mapping.anchor=none",
            *DEMO_BY_DESCENT,
            f"backbone={arguments.backbone}",
            *arguments.set,
        ]
    )
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
