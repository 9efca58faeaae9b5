"""Which runs are called collapsed: backbones, tasks and learning rates, with the demo's other settings.

    python benchmarks/collapse.py --runs mini_random:digits:1e-3 mini_clip:digits:1e-3

Fine-tunes, probes every snapshot as a run does, and prints a row per snapshot: the fresh linear probe's
accuracy on the run's own task, the features' spread and effective rank, and what is called collapsed. A run
that is in the output file is not done again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from harness.backbones.backbone import encoder_hash
from harness.config.compose import load_config
from harness.finetuning.devices import build_accelerator
from harness.finetuning.loop import finetune
from harness.finetuning.methods.tuned import tune
from harness.finetuning.snapshots import read_snapshot
from harness.measures.collapse import name_collapse
from harness.runs.inputs import load_inputs
from harness.runs.layout import list_snapshots, snapshot_folder
from harness.tracking.probing import Prober


def measure(backbone: str, task: str, lr: str, seed: int, folder: Path) -> list[dict[str, float]]:
    """Fine-tune, and name the collapse of every snapshot, with its step and the probe's accuracy."""
    config = load_config(
        [
            *("study=demo", f"runs_dir={folder}", f"seed={seed}"),
            *(f"backbone={backbone}", f"task={task}", f"finetune.lr={lr}", "probes.tasks=[shapes]"),
        ]
    )
    inputs = load_inputs(config, folder)
    finetune(config, folder, inputs.tasks, inputs.backbone, build_accelerator(config.finetune))
    widths = [one.n_classes for one in inputs.tasks]
    model = tune(inputs.backbone, widths, config.method, config.seed, inputs.tasks)
    prober = Prober(inputs, config, torch.device("cpu"), quiet=True)
    files = {}
    for step in list_snapshots(folder):
        read_snapshot(snapshot_folder(folder, step), model, encoder_hash(inputs.backbone))
        files[step] = prober.probe(model, model.merged_backbone(), "")
    return [
        {"step": step, "accuracy": file["probe"][task]["linear_accuracy"]}
        | {name.rpartition("/")[2]: value for name, value in name_collapse(file, files[0], [task]).items()}
        for step, file in files.items()
    ]


def main() -> None:
    """Measure the runs that are missing, and print all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", nargs="+", metavar="BACKBONE:TASK:LR", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON lines; runs in it are not done again")
    arguments = parser.parse_args()
    lines = (
        arguments.output.read_text().splitlines() if arguments.output and arguments.output.exists() else []
    )
    done = {(found["run"], found["seed"]): found["snapshots"] for found in map(json.loads, lines)}
    print("| backbone | task | lr | step | probe | spread | effective rank | collapsed |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for run in arguments.runs:
        key = (run, arguments.seed)
        if key not in done:
            with tempfile.TemporaryDirectory() as folder:
                done[key] = measure(*run.split(":"), arguments.seed, Path(folder))
            if arguments.output:
                with arguments.output.open("a") as file:
                    line = {"run": run, "seed": arguments.seed, "snapshots": done[key]}
                    file.write(json.dumps(line) + "\n")
        for row in done[key]:
            numbers = (f"{row['accuracy']:.3f}", f"{row['spread']:.2g}", f"{row['effective_rank']:.1f}")
            cells = (*run.split(":"), row["step"], *numbers, "yes" if row["collapsed"] else "no")
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
