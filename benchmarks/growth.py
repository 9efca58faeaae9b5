"""How time and memory grow with voxels, stimuli, layers, width and runs; and is `--plan` right?

    nice -n 10 python benchmarks/growth.py --folder FOLDER --output benchmarks/results/growth.json

Two parts, each resumable. *Runs*: three runs of different sizes, each planned and then made in processes of
their own. *Pieces*: parts of a run timed one size at a time, with the others at a small base. Everything has
one thread, and seconds are those of the processor, so that other programs on the machine do not count.
`--page` prints the tables of docs/growth.md from the output and the formulas of `harness.studies.costs`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.config import load_config
from harness.studies.costs import FitSpeed, mapping_bytes, token_bytes

VIT_B = (768,) * 12
BASE = {"voxels": 2000, "stimuli": 500, "layers": 8, "width": 192}
AXES: dict[str, tuple[str, tuple[int, ...]]] = {
    # axis of the sizes → what is timed
    "layers": ("fit", (4, 8, 16)),
    "width": ("fit", (96, 192, 384)),
    "stimuli": ("closed forms", (500, 1000, 2000, 4000, 8000)),
    "stimuli of the ridge": ("ridge", (250, 500, 1000, 2000)),
    "stimuli of the evidence": ("evidence", (250, 500, 1000, 2000)),
    "voxels": ("fit", (500, 2000, 8000)),
    "runs": ("grid", (10, 100)),
}
SMALL = {"voxels": 500, "layers": 4, "width": 64}
"""For stimuli, whose tokens take memory."""

COMMON = [
    *(
        "task=digits",
        "finetune.batch_size=20",
        "snapshots.at_epoch_ends=false",
        "mlflow.system_metrics=false",
    ),
    *("mapping.regularization_steps=25", "reuse=false"),
]
RUNS = {
    "small": [
        *("backbone=mini_supervised", "method=lora", "task.n_train=100", "task.n_test=50"),
        *("finetune.epochs=8", "snapshots.first=10", "snapshots.ratio=2", "probes.n_train=100"),
        *("probes.n_test=50", "probes.n_drift=50", "brain.n_stimuli=250", "brain.n_voxels=600"),
        *("brain.subjects=[0,1]", "mapping.steps=40", "mapping.floor_refits=2", "evidence.n_stimuli=200"),
    ],
    "demo": [
        *("backbone=mini_clip", "task.n_train=300", "task.n_test=200", "finetune.epochs=5"),
        *("snapshots.first=15", "snapshots.ratio=5", "probes.n_train=200", "probes.n_test=150"),
        *("probes.n_drift=150", "brain.n_stimuli=800", "mapping.steps=50", "mapping.floor_refits=3"),
        "evidence.n_stimuli=500",
    ],
    "large": [
        *("backbone=mini_supervised", "task.n_train=200", "task.n_test=100", "finetune.epochs=3"),
        *("snapshots.first=30", "probes.n_train=100", "probes.n_test=100", "probes.n_drift=100"),
        *("brain.n_stimuli=1200", "brain.n_voxels=6000", "mapping.steps=60", "mapping.floor_refits=2"),
        "evidence.n_stimuli=600",
    ],
}
PLAN = """
import json, sys
from dataclasses import asdict
from harness.config import load_config
from harness.studies.plan import Stopwatch, estimate_seconds, measure_brain_size, plan_run
stopwatch = Stopwatch()
config = load_config(sys.argv[1:])
size = measure_brain_size(config.brain, read=True)
run = plan_run(config, size)
speed = stopwatch.speed(config, size)
seconds = estimate_seconds(config, run, speed, size[0])
found = {"weights": run.weights, "tokens": run.tokens, "planned_disk": run.disk}
print(json.dumps(found | {"planned_s": seconds, "speed": asdict(speed)}))
"""


def spend(command: list[str]) -> tuple[str, float, float]:
    """Run a command with one thread; returns its output, seconds of processor, and gigabytes at its peak."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    assert process.stdout is not None
    text = process.stdout.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: failed")
    return text, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6


def make_run(folder: Path, name: str) -> dict[str, Any]:
    """Plan a run, make it, and compare."""
    settings = [*COMMON, *RUNS[name], f"runs_dir={folder / name}"]
    planned = json.loads(spend([sys.executable, "-c", PLAN, *settings])[0])
    script = Path(__file__).parents[1] / "harness" / "finetune.py"
    _, seconds, peak = spend([sys.executable, str(script), *settings])
    files = [path for path in (folder / name).rglob("*") if path.is_file()]
    kept = sum(p.stat().st_size for p in files if {"snapshots", "mappings", "refits"} & set(p.parts))
    return planned | {"name": name, "seconds": seconds, "peak_gb": peak, "disk": kept}


def time_piece(piece: str, sizes: dict[str, int]) -> dict[str, float]:
    """Time a piece of work in this process."""
    import torch

    from harness.studies import timing

    device = torch.device("cpu")
    config = load_config([])
    widths = (sizes["width"],) * sizes["layers"]
    n_stimuli, n_voxels = sizes["stimuli"], sizes["voxels"]
    if piece == "fit":
        found = timing.measure_fit(widths, n_voxels, config.mapping, device)
        assert found is not None
        n = 1000
        closed = found.seconds(1, 0, n, config.mapping.held_out)
        return {"a step": found.step, f"closed forms and scores, {n:,} stimuli": closed}
    if piece == "evidence":
        settings = config.evidence.model_copy(update={"n_stimuli": n_stimuli})
        size = config.mapping.token_size
        return {
            "evidence of all layers": timing.measure_layer_evidence(
                widths, (n_stimuli, n_voxels), size, settings, device
            )
        }
    if piece == "grid":
        from harness.studies import expand_grid

        settings = [f"study.grid={{seed: [{','.join(map(str, range(sizes['runs'])))}]}}", "study.name=x"]
        return {"expanding the grid": timing.clock(lambda: list(expand_grid(settings)), device, 1, 0)}
    data = timing.make_noise(n_stimuli, widths, n_voxels, config.mapping, device)
    if piece == "ridge":
        return {"ridge beside a mapping": timing.time_ridge(data, device)}
    short = config.mapping.model_copy(update={"steps": 1})
    return {"a fit of one step": timing.time_fit(data, short, device)}


def measure_pieces(found: dict[str, Any], save: Any) -> None:
    """Time all pieces, each in a process of its own."""
    known = {(row["axis"], row["value"]) for row in found["pieces"]}
    for axis, (piece, values) in AXES.items():
        for value in values:
            if (axis, value) in known:
                continue
            sizes = BASE | (SMALL if axis == "stimuli" else {}) | {axis.partition(" ")[0]: value}
            text, _, peak = spend([sys.executable, __file__, "--only", piece, json.dumps(sizes)])
            row = {"axis": axis, "value": value, "seconds": json.loads(text), "peak_gb": peak}
            found["pieces"].append(row)
            print(row, flush=True)
            save()


def write_page(found: dict[str, Any]) -> str:
    """Write the tables of docs/growth.md."""
    lines = ["| run | planned, s | measured, s | planned / measured | peak memory, GB |", "| --- " * 5 + "|"]
    for row in found["runs"]:
        ratio = row["planned_s"] / row["seconds"]
        numbers = f"{row['planned_s']:.0f} | {row['seconds']:.0f} | {ratio:.2f} | {row['peak_gb']:.2f}"
        lines.append(f"| {row['name']} | {numbers} |")
    lines += ["", "| grows | piece | sizes | seconds | last exponent | memory, GB |", "| --- " * 6 + "|"]
    for axis in dict.fromkeys(row["axis"] for row in found["pieces"]):
        rows = [row for row in found["pieces"] if row["axis"] == axis]
        sizes = " → ".join(f"{row['value']:,}" for row in rows)
        memory = " → ".join(f"{row['peak_gb']:.1f}" for row in rows)
        for piece in rows[0]["seconds"]:
            times = [row["seconds"][piece] for row in rows]
            power = math.log(times[-1] / times[-2]) / math.log(rows[-1]["value"] / rows[-2]["value"])
            seconds = " → ".join(f"{time:.3g}" for time in times)
            lines.append(f"| {axis} | {piece} | {sizes} | {seconds} | {power:.1f} | {memory} |")
    head = "| stimuli | voxels | a fit of 200 steps, min | responses, GB | tokens, GB | mapping, MB |"
    lines += ["", head, "| --- " * 6 + "|"]
    speeds = {row["name"]: FitSpeed(**row["speed"]["fit"]) for row in found["runs"]}
    config = load_config([])
    for n_stimuli in (1000, 10_000, 73_000):
        for n_voxels in (2000, 40_000, 300_000):
            tokens = token_bytes(n_stimuli, VIT_B, config.mapping)
            assert tokens is not None
            mapping = mapping_bytes(n_voxels, VIT_B, config.mapping) / 1e6
            responses = 4 * n_stimuli * n_voxels / 1e9
            # as measured for the run of 2,000 voxels; linear in voxels from that of 6,000
            measured, factor = ("demo", 1.0) if n_voxels == 2000 else ("large", n_voxels / 6000)
            fit = speeds[measured].seconds(1, 200, n_stimuli, config.mapping.held_out) * factor / 60
            sizes = f"{n_stimuli:,} | {n_voxels:,} | {fit:.1f}"
            lines.append(f"| {sizes} | {responses:.2g} | {tokens / 1e9:.3g} | {mapping:.3g} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/growth.json"))
    parser.add_argument("--parts", nargs="+", choices=("runs", "pieces"), default=["runs", "pieces"])
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--page", action="store_true", help="print the tables of the page")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(time_piece(arguments.only[0], json.loads(arguments.only[1]))))
        return
    output: Path = arguments.output
    found: dict[str, Any] = {"runs": [], "pieces": []}
    if output.exists():
        found = json.loads(output.read_text(encoding="utf-8"))
    if arguments.page:
        print(write_page(found))
        return

    def save() -> None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    if "pieces" in arguments.parts:
        measure_pieces(found, save)
    if "runs" in arguments.parts:
        for name in RUNS:
            if name not in {row["name"] for row in found["runs"]}:
                found["runs"].append(make_run(arguments.folder.resolve(), name))
                print(found["runs"][-1], flush=True)
                save()


if __name__ == "__main__":
    main()
