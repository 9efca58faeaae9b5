"""How long does `palimpsest query` take, of processor time, by the number of runs in the store?

Makes a store of runs with the rows of a real one (random values, 25 regions, 12 layers, 20 snapshots), then
runs the command in processes of its own. Beyond `N_OWN` runs, runs are copies of these in MLflow's tables
and among its artifacts, with seeds of their own. Beside it, the histories of one headline metric by MLflow's
own client.

    python benchmarks/query_speed.py --folder FOLDER --runs 3 300 --output benchmarks/results/query_speed.json

The store is kept in the folder, and grows by the runs that are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
import uuid
from contextlib import closing
from pathlib import Path

import numpy as np

from harness.config import load_config
from harness.measures import CATALOGUE
from harness.runs import Journal, run_folder
from harness.tracking import TrackedRun, tracking_uri

N_SNAPSHOTS = 20
N_OWN = 30
TABLES = ("runs", "params", "tags", "metrics", "latest_metrics")
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
    """List the metrics of a run of one subject without shifts: all of the catalogue for its places."""
    fill = {
        "<task>": ["digits", *PROBES],
        "<scoring>": [],
        "<term>": [],
        "<shift>": [],
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


def copy_runs(runs_dir: Path, n_runs: int) -> None:
    """Copy runs in a SQLite store, with their artifacts, until there are `n_runs`."""
    artifacts = runs_dir / "mlartifacts" / "default"
    with closing(sqlite3.connect(runs_dir / "mlflow.db")) as connection:

        def columns(table: str) -> list[str]:
            return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]

        own = "SELECT run_uuid FROM tags WHERE key = 'palimpsest.run' ORDER BY rowid"
        ids = [run_id for (run_id,) in connection.execute(own)]
        for seed in range(len(ids), n_runs):
            source, target = ids[seed % N_OWN], uuid.uuid4().hex
            for table in TABLES:
                names = columns(table)
                values = ", ".join("?" if name == "run_uuid" else name for name in names)
                connection.execute(
                    f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table} "
                    "WHERE run_uuid = ?",
                    (target, source),
                )
            for key, value in (("seed", str(seed)), ("palimpsest.run", f"copy-{seed}")):
                connection.execute(
                    "UPDATE tags SET value = ? WHERE run_uuid = ? AND key = ?", (value, target, key)
                )
            shutil.copytree(artifacts / source, artifacts / target, copy_function=os.link)
        connection.commit()


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
        for seed in range(min(n_runs, N_OWN)):
            make_run(runs_dir, seed)
        copy_runs(runs_dir, n_runs)
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
