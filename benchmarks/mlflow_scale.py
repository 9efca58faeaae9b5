"""How large is an MLflow store of 1,000 runs, how fast is it written, and how fast is it asked?

Runs have the rows of a real one (`query_speed.py`: random values, 25 regions, 12 layers, 20 snapshots). A
sample is sent by `TrackedRun` when it has ended, and at every size of the store a few more, one of them
snapshot by snapshot as while it lives. All others are copies in MLflow's tables and among its
artifacts, whose files are links; sizes count every copy as if it were a file of its own. Queries run in
processes of their own, ours beside plain SQL and `mlflow.search_runs`.

    nice -n 10 python benchmarks/mlflow_scale.py --folder FOLDER --output benchmarks/results/mlflow_scale.json

Resumable: the store grows by what is missing, and what the output has is not measured again. `--page` prints
the table of docs/mlflow.md from the output.
"""

from __future__ import annotations

import argparse
import json
import resource
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from query_speed import CLIENT, N_OWN, N_SNAPSHOTS, copy_runs, list_names, measure

from harness.config import load_config
from harness.measures import is_headline
from harness.runs import Journal, run_folder
from harness.tracking import TrackedRun, tracking_uri

SIZES = (100, 300, 1000)
N_LATE = 3
"""Runs that are sent last, at every size of the store."""

SQL = """
import sqlite3, sys
import pandas as pd
with sqlite3.connect(f"file:{sys.argv[1]}/mlflow.db?mode=ro", uri=True) as connection:
    table = pd.read_sql_query(
        "SELECT t.value AS seed, m.key AS key, m.step AS step, m.value AS value "
        "FROM runs r JOIN metrics m USING (run_uuid) "
        "JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'seed' "
        f"WHERE r.lifecycle_stage = 'active' AND m.key {sys.argv[2]}", connection)
print(table.groupby(sys.argv[3].split(",") + ["step"])["value"].agg(["mean", "std", "count"]).to_string())
"""
SEARCH = """
import sys
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
runs = mlflow.search_runs(experiment_names=["default"], filter_string="params.backbone LIKE 'mini_%'",
    max_results=100_000)
print(len(runs), runs["metrics.Rewiring/all wasserstein_excess"].mean())
"""
ONE, REGIONS, LAYERS = "one measure", "by roi, seed", "all layers"
FORGETTING = "forgetting"
QUERIES = {
    ONE: ["rewiring", "--by", "backbone"],
    REGIONS: ["rewiring", "--by", "roi,seed"],
    LAYERS: ["selectors", "--measure", "layer"],
    FORGETTING: ["forgetting"],
}
STATEMENTS = {
    ONE: ["= 'Rewiring/all wasserstein_excess'", "key"],
    REGIONS: ["GLOB 'Rewiring/* wasserstein_excess'", "key,seed"],
    LAYERS: ["GLOB 'selectors/all layer *'", "key"],
    FORGETTING: ["GLOB 'Forgetting/* delta_*'", "key"],
}


def send(runs_dir: Path, seed: int, live: bool, n_before: int) -> dict[str, float] | None:
    """Make and send one run; returns what sending took, or None if it is in the store."""
    config = load_config([f"runs_dir={runs_dir}", f"seed={seed}", "mlflow.system_metrics=false"])
    folder = run_folder(config)
    if (folder / "sent").exists():
        return None
    rng, names = np.random.default_rng(seed), list_names()
    run, found = TrackedRun(config, folder), {"processor_s": 0.0, "clock_s": 0.0}

    def timed(work: Callable[[], bool]) -> None:
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        if not work():
            raise SystemExit(f"run {seed} could not be sent")
        after = resource.getrusage(resource.RUSAGE_SELF)
        found["processor_s"] += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found["clock_s"] += time.perf_counter() - start

    with Journal(folder / "results.jsonl") as journal:
        for step in range(N_SNAPSHOTS):
            journal.log(16 * step, dict(zip(names, rng.random(len(names)), strict=True)))
            if live:
                timed(run.forward)
    timed(lambda: run.forward("FINISHED"))
    (folder / "sent").touch()
    return found | {"seed": seed, "runs_in_store": n_before, "live": live}


def count_runs(runs_dir: Path) -> int:
    """Count the runs in a store."""
    if not (runs_dir / "mlflow.db").exists():
        return 0
    with closing(sqlite3.connect(runs_dir / "mlflow.db")) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM tags WHERE key = 'palimpsest.run'").fetchone()[0])


def weigh(runs_dir: Path) -> dict[str, float]:
    """Bytes of the database and of the artifacts, links as files of their own."""
    artifacts = (path for path in (runs_dir / "mlartifacts").rglob("*") if path.is_file())
    return {
        "database_mb": round((runs_dir / "mlflow.db").stat().st_size / 1e6, 1),
        "artifacts_mb": round(sum(path.stat().st_size for path in artifacts) / 1e6, 1),
    }


def ask(runs_dir: Path) -> list[tuple[str, str, list[str]]]:
    """List what is timed: the question, who answers, and the command."""
    query, end = [sys.executable, "-m", "harness.query"], ["--runs-dir", str(runs_dir)]
    commands = [(name, "palimpsest query", [*query, *words, *end]) for name, words in QUERIES.items()]
    commands += [
        (name, "SQL", [sys.executable, "-c", SQL, str(runs_dir), *words])
        for name, words in STATEMENTS.items()
    ]
    uri = tracking_uri(runs_dir)
    return [
        *commands,
        (ONE, "MlflowClient", [sys.executable, "-c", CLIENT, uri]),
        ("last values of all runs", "mlflow.search_runs", [sys.executable, "-c", SEARCH, uri]),
    ]


def write_page(found: dict[str, Any]) -> str:
    """Write the tables of docs/mlflow.md."""
    sizes = sorted(int(size) for size in found["sizes"])
    head = " | ".join(f"{size:,} runs" for size in sizes)
    lines = [f"| | {head} |", "| --- " * (len(sizes) + 1) + "|"]
    for name, words in (("database_mb", "`mlflow.db`, MB"), ("artifacts_mb", "artifacts, MB")):
        lines.append(
            f"| {words} | " + " | ".join(f"{found['sizes'][str(n)][name]:,.0f}" for n in sizes) + " |"
        )
    times = {(row["runs"], row["question"], row["by"]): row["processor_s"] for row in found["times"]}
    for question, by in dict.fromkeys((row["question"], row["by"]) for row in found["times"]):
        cells = [f"{times[size, question, by]:.1f}" for size in sizes]
        lines.append(f"| {question}: {by}, s | {' | '.join(cells)} |")
    lines += ["", "| sent by `TrackedRun` | runs in the store | s of processor per run | rows per s |"]
    lines.append("| --- | --- | --- | --- |")
    groups: dict[tuple[bool, bool], list[dict[str, Any]]] = {}
    for row in found["sent"]:
        size = next(size for size in (N_OWN, *SIZES) if row["runs_in_store"] < size)
        groups.setdefault((row["live"], size), []).append(row)
    for (live, _), rows in groups.items():
        seconds = float(np.median([row["processor_s"] for row in rows]))
        counts = sorted({row["runs_in_store"] for row in rows})
        span = f"{counts[0]:,} to {counts[-1]:,}"
        kind = f"{N_SNAPSHOTS} times, snapshot by snapshot" if live else "once, at its end"
        lines.append(
            f"| {kind} ({len(rows)} runs) | {span} | {seconds:.2f} | {found['rows'] / seconds:,.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Make the store, weigh and time it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/mlflow_scale.json"))
    parser.add_argument("--page", action="store_true", help="print the tables of the page")
    arguments = parser.parse_args()
    output: Path = arguments.output
    found: dict[str, Any] = {"sent": [], "sizes": {}, "times": []}
    if output.exists():
        found = json.loads(output.read_text(encoding="utf-8"))
    if arguments.page:
        print(write_page(found))
        return
    names = list_names()
    found |= {"snapshots": N_SNAPSHOTS, "names": len(names), "rows": N_SNAPSHOTS * len(names)}
    found["metrics"] = N_SNAPSHOTS * sum(map(is_headline, names))

    def save() -> None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    def send_some(runs_dir: Path, seeds: range, last: int | None = None) -> None:
        for seed in seeds:
            row = send(runs_dir, seed, seed == last, count_runs(runs_dir))
            if row is not None:
                found["sent"].append(row)
                print(row, flush=True)
                save()

    runs_dir = (arguments.folder / "runs").resolve()
    for size in SIZES:
        if str(size) not in found["sizes"]:
            send_some(runs_dir, range(N_OWN))
            copy_runs(runs_dir, size - N_LATE)
            send_some(runs_dir, range(size - N_LATE, size), size - 1)
            found["sizes"][str(size)] = weigh(runs_dir)
            print(size, found["sizes"][str(size)], flush=True)
            save()
        known = {(row["runs"], row["question"], row["by"]) for row in found["times"]}
        for question, by, command in ask(runs_dir):
            if (size, question, by) in known:
                continue
            processor, clock = measure(command)
            row = {"runs": size, "question": question, "by": by}
            found["times"].append(row | {"processor_s": processor, "clock_s": clock})
            print(found["times"][-1], flush=True)
            save()


if __name__ == "__main__":
    main()
