"""One mapping through time on a finished run: held-out R² of every snapshot, against its separate fits.

    OMP_NUM_THREADS=1 python benchmarks/through_time_run.py RUN --output benchmarks/results/through_time_run

RUN is the folder of a tracked run with mapping=factortopy. Its snapshots and refits of step 0 are fitted once
more in one fit, with as many steps, with and without the rotation of every snapshot's tokens onto step 0's.
"readout" then refits the voxels' weights of a snapshot alone, by ridge regression on what they read (penalty
by generalised cross-validation), to see what the shared weights cost. Distances from step 0 are
Wasserstein-1, means over voxels.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine, write_figures

from harness.backbones.backbone import encoder_hash
from harness.backbones.load import load_backbone
from harness.brains.load import load_brain
from harness.config.compose import read_config
from harness.config.mapping import ThroughTimeConfig
from harness.finetuning.methods.tuned import tune
from harness.finetuning.snapshots import read_snapshot
from harness.mappings.data import FitData, FitOptions, Member
from harness.mappings.factortopy.closed_form import solve_weights
from harness.mappings.factortopy.model import FactorTopy
from harness.mappings.fit import prepare_tokens
from harness.mappings.mapping import Mapping, load_mapping
from harness.mappings.splits import load_split
from harness.mappings.through_time import fit_through_time
from harness.mappings.training import FitSample, score_model
from harness.measures.rewiring import wasserstein
from harness.measures.significance import leave_one_out
from harness.runs.layout import list_snapshots, mapping_folder, refit_folders, snapshot_folder, split_file
from harness.tokens.frame import StandardTokens
from tasks.load import load_task


def read_out(mapping: Mapping, data: FitData) -> float:
    """Mean held-out R² after refitting a snapshot's weights by ridge on the channels that its voxels read."""
    tokens = data.tokens
    assert isinstance(tokens, StandardTokens) and mapping.learned is not None and mapping.weights is not None
    n_channels = mapping.weights.shape[1]
    model = FactorTopy(
        torch.as_tensor(data.coords, dtype=torch.float32),
        torch.as_tensor(data.bounding_box, dtype=torch.float32),
        [layer.shape[1] for layer in tokens.global_],
        n_channels,
    )
    learned = {name.removeprefix("model."): array for name, array in mapping.learned.items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(learned[name]) if name in learned else torch.zeros(()))
    train, targets = data.split.train, torch.as_tensor(data.responses, dtype=torch.float32)
    sample = FitSample(tokens, targets, train, data.split.shown_in(train))
    config = ThroughTimeConfig()
    solve_weights(model, sample, config.voxels_per_pass)
    return float(score_model(model, tokens, data, config)[0].mean())


def measure(run: Path, change_penalty: float) -> list[dict[str, Any]]:
    """Fit the run's snapshots together, and compare."""
    config = read_config(run / "config.yaml")
    backbone, brain = load_backbone(config.backbone), load_brain(config.brain)
    task = load_task(**config.task.model_dump())
    model = tune(backbone, task.n_classes, config.method, config.seed)
    split = load_split(split_file(run), brain.stimulus_ids)
    steps, data = list_snapshots(run), {}
    for step in steps:
        read_snapshot(snapshot_folder(run, step), model, encoder_hash(backbone))
        tokens = prepare_tokens(
            model.merged_backbone(), brain.stimuli, split, config.mapping, 128, "cpu", run
        )
        data[step] = FitData(tokens, brain.responses, brain.coords, brain.bounding_box, split)
        print("tokens of step", step, flush=True)
    n_refits = len(refit_folders(run))
    shared = ThroughTimeConfig.model_fields.keys() & type(config.mapping).model_fields.keys() - {"family"}
    kept = {name: getattr(config.mapping, name) for name in shared}
    together = ThroughTimeConfig(**kept, change_penalty=change_penalty)
    members = [Member(data[0])] * (1 + n_refits)
    for step in steps[1:]:
        members.append(Member(data[step], None if len(members) == 1 + n_refits else len(members) - 1))
    fits = {
        "separate": [
            load_mapping(folder, with_learned=True)
            for folder in (
                mapping_folder(run, 0),
                *refit_folders(run),
                *(mapping_folder(run, s) for s in steps[1:]),
            )
        ]
    }
    rows = []
    for method in ("separate", "through time", "not rotated"):
        began = time.process_time()
        if method not in fits:
            changed = together.model_copy(update={"rotated": method == "through time"})
            fits[method] = fit_through_time(
                members, changed, FitOptions(config.seed, config.mapping.bootstrap)
            )
        seconds = time.process_time() - began
        step_0 = [mapping.layer for mapping in fits[method][: 1 + n_refits]]
        apart = np.array([[wasserstein(one, other).mean() for other in step_0] for one in step_0])
        for step, mapping in zip(
            (0, *steps[1:]), fits[method][:1] + fits[method][1 + n_refits :], strict=True
        ):
            rows.append(
                {
                    "method": method,
                    "step": step,
                    "r2": float(mapping.r2.mean()),
                    "floor": float(leave_one_out(apart).mean()),
                    "distance": float(np.mean([wasserstein(one, mapping.layer).mean() for one in step_0])),
                    "seconds": seconds,
                }
            )
            if step in (0, steps[-1]):
                rows[-1]["r2_readout"] = read_out(mapping, data[step])
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Measure, and print each row when it is done."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--change-penalty", type=float, default=0.01)
    parser.add_argument("--output", type=Path, help="path without suffix; writes a .json")
    arguments = parser.parse_args()
    rows = measure(arguments.run, arguments.change_penalty)
    if arguments.output:
        figures = {"run": arguments.run.name, "machine": describe_machine(), "rows": rows}
        write_figures(figures, arguments.output.with_suffix(".json"))


if __name__ == "__main__":
    main()
