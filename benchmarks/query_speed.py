"""How long does `palimpsest query` take, of processor time, by the number of runs in the store?

Makes a store of runs with the rows of a real one (random values, 25 regions, 12 layers, 20 snapshots), then
runs the command in processes of its own. Beside it, the same curves by MLflow's own client alone: the last
values by `mlflow.search_runs`, and the histories of one headline metric by `get_metric_history`.

    python benchmarks/query_speed.py --folder FOLDER --runs 3 300 --output benchmarks/results/query_speed.json

The store is kept in the folder, and grows by the runs that are missing.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from harness.config import load_config
from harness.measures import CATALOGUE
from harness.runs import Journal, run_folder
from harness.tracking import TrackedRun, tracking_uri

N_SNAPSHOTS = 20
ROIS = [f"area{number:02d}" for number in range(1, 26)]
LAYERS = [f"blocks.{number}" for number in range(12)]
PROBES = ["shapes", "textures", "counts"]
CLIENT = """
import sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
ids = [found.experiment_id for found in client.search_experiments() if found.name != "Default"]
runs = client.search_runs(ids, "tags.`palimpsest.run` != ''", max_results=1000)
key = "Rewiring/all wasserstein_excess"
print(sum(len(client.get_metric_history(run.info.run_id, key)) for run in runs))
"""


def list_names() -> list[str]:
    """List the metrics of a run of one subject: all of the catalogue for its places."""
    fill = {
        "<task>": ["digits", *PROBES],
        "<scoring>": [],
        "<term>": [],
        "<roi>": ROIS,
        "<place>": [*ROIS, "all"],
        "<layer>": LAYERS,
    }
    names = []
    for metric in CATALOGUE:
        if metric.stage == "train" or "_subjects" in metric.ending or "_weighted" in metric.ending:
            continue
        found = [metric.pattern]
        for placeholder, values in fill.items():
            if placeholder in metric.pattern:
                found = [name.replace(placeholder, value) for name in found for value in values]
        names += found
    return names


def make_run(runs_dir: Path, seed: int) -> None:
    """Write a run's journal and send it, unless that is done."""
    config = load_config([f"runs_dir={runs_dir}", f"seed={seed}", "mlflow.system_metrics=false"])
    folder = run_folder(config)
    done = folder / "sent"
    if done.exists():
        return
    rng, names = np.random.default_rng(seed), list_names()
    with Journal(folder / "results.jsonl") as journal:
        for step in range(N_SNAPSHOTS):
            journal.log(16 * step, dict(zip(names, rng.random(len(names)), strict=True)))
    if not TrackedRun(config, folder).forward("FINISHED"):
        raise SystemExit(1)
    done.touch()


def measure(command: list[str]) -> tuple[float, float]:
    """Return seconds of processor and of the clock that a command takes."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return round(used, 2), round(time.perf_counter() - start, 2)


def main() -> None:
    """Make the stores, time the commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--runs", type=int, nargs="+", default=[3, 300])
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    found = []
    for n_runs in sorted(arguments.runs):
        runs_dir = (arguments.folder / f"{n_runs}_runs").resolve()
        for seed in range(n_runs):
            make_run(runs_dir, seed)
        query = [sys.executable, "-m", "harness.query"]
        end = ["--runs-dir", str(runs_dir)]
        commands = {
            "query rewiring": [*query, "rewiring", *end],
            "query rewiring --by roi,seed": [*query, "rewiring", "--by", "roi,seed", *end],
            "query forgetting": [*query, "forgetting", *end],
            "query selectors --measure layer": [*query, "selectors", "--measure", "layer", *end],
            "MlflowClient, one metric": [sys.executable, "-c", CLIENT, tracking_uri(runs_dir)],
        }
        for name, command in commands.items():
            processor, clock = measure(command)
            found.append({"runs": n_runs, "command": name, "processor_s": processor, "clock_s": clock})
            print(f"{n_runs:4d} runs  {name:34s} {processor:6.2f} s of processor, {clock:6.2f} s", flush=True)
    if arguments.output is not None:
        text = {"snapshots": N_SNAPSHOTS, "metrics": len(list_names()), "times": found}
        arguments.output.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
