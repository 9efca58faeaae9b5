"""One training step of FactorTopy: ours against the formula by ``grid_sample``, in one run.

    OMP_NUM_THREADS=2 python benchmarks/factortopy_step.py
    python benchmarks/factortopy_step.py --device cuda --output benchmarks/results/factortopy_step_h100.json

Each implementation has processes of its own, which take turns; all start from the same parameters and data.
Peak memory is what a process held at most while it made its steps, less what it held before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from plain_factortopy import predict_plainly
from torch import Tensor

from harness.factortopy import FactorTopy

IMPLEMENTATIONS = ("ours", "plain")
# a whole visual cortex on a ViT-B/16, as published
SIZES = {"voxels": 37984, "layers": 12, "width": 768, "tokens": 8, "channels": 128, "batch": 8}


def build(
    sizes: argparse.Namespace,
) -> tuple[FactorTopy, list[Tensor], list[Tensor], Tensor]:
    """Model with selectors that have spread, tokens and targets; from one seed."""
    torch.manual_seed(0)
    coords = torch.rand(sizes.voxels, 3) * 100
    box = torch.stack([coords.min(dim=0).values, coords.max(dim=0).values])
    model = FactorTopy(coords, box, [sizes.width] * sizes.layers, sizes.channels)
    for network in (model.space_selector, model.layer_selector, model.scale_selector):
        torch.nn.init.normal_(network[-1].weight, std=0.3)
    local = [torch.randn(sizes.batch, sizes.width, sizes.tokens, sizes.tokens) for _ in range(sizes.layers)]
    local = [layer.contiguous(memory_format=torch.channels_last) for layer in local]
    global_ = [torch.randn(sizes.batch, sizes.width) for _ in range(sizes.layers)]
    targets = torch.randn(sizes.batch, sizes.voxels)
    device = sizes.device
    return (
        model.to(device),
        [layer.to(device) for layer in local],
        [layer.to(device) for layer in global_],
        targets.to(device),
    )


def run_steps(implementation: str, sizes: argparse.Namespace) -> dict[str, Any]:
    """Time steps of one implementation in this process."""
    model, local, global_, targets = build(sizes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    cuda = sizes.device == "cuda"
    held = torch.cuda.memory_allocated() if cuda else _peak_bytes()
    seconds, losses = [], []
    for _ in range(sizes.steps + 1):  # the first one warms up
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        selectors = model.selectors()
        if implementation == "ours":
            prediction = model(local, global_, selectors)
        else:
            prediction = predict_plainly(model, local, global_, selectors)
        loss = F.smooth_l1_loss(prediction, targets, beta=0.1) + 0.1 * model.regularizer(selectors)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())  # waits for the device
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if cuda else _peak_bytes()
    return {"seconds": seconds[1:], "losses": losses, "bytes": peak - held}


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(sizes: argparse.Namespace) -> dict[str, Any]:
    """Both implementations, turn by turn, each turn in a new process."""
    found: dict[str, dict[str, Any]] = {name: {"seconds": [], "bytes": 0} for name in IMPLEMENTATIONS}
    for turn in range(sizes.turns):
        for name in IMPLEMENTATIONS:
            command = [sys.executable, *sys.argv, "--only", name]
            said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            result = json.loads(said)
            found[name]["seconds"] += result["seconds"]
            found[name]["bytes"] = max(found[name]["bytes"], result["bytes"])
            found[name]["losses"] = result["losses"]
            print(f"turn {turn + 1}, {name}: {min(result['seconds']):.3f} s a step", file=sys.stderr)
    return found


def report(found: dict[str, Any], sizes: argparse.Namespace) -> dict[str, Any]:
    """The figures, as they are written to a file."""
    apart = max(abs(a - b) for a, b in zip(found["ours"]["losses"], found["plain"]["losses"], strict=True))
    ours, plain = (statistics.median(found[name]["seconds"]) for name in IMPLEMENTATIONS)
    return {
        "sizes": {
            name: getattr(sizes, name)
            for name in ("voxels", "layers", "width", "tokens", "channels", "batch")
        },
        "machine": describe_machine(sizes.device),
        "seconds": {name: found[name]["seconds"] for name in IMPLEMENTATIONS},
        "median_seconds": {"ours": ours, "plain": plain},
        "speedup": plain / ours,
        "gigabytes": {name: found[name]["bytes"] / 1e9 for name in IMPLEMENTATIONS},
        "memory_share": found["ours"]["bytes"] / found["plain"]["bytes"],
        "largest_difference_of_losses": apart,
    }


def describe_machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "torch": torch.__version__,
    }


def main() -> None:
    """Measure, print the ratio, and write the figures where asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (
        ("voxels", 37984),
        ("layers", 12),
        ("width", 768),
        ("tokens", 8),
        ("channels", 128),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3, help="a turn, after one that warms up")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    sizes = parser.parse_args()
    if sizes.only:
        print(json.dumps(run_steps(sizes.only, sizes)))
        return
    figures = report(measure(sizes), sizes)
    median, memory = figures["median_seconds"], figures["gigabytes"]
    print(f"plain {median['plain']:.3f} s and {memory['plain']:.2f} GB a step")
    print(f"ours  {median['ours']:.3f} s and {memory['ours']:.2f} GB a step")
    print(f"{figures['speedup']:.1f} times as fast, in {figures['memory_share']:.2f} of the memory")
    print(
        f"losses of {sizes.steps + 1} steps differ by at most {figures['largest_difference_of_losses']:.1e}"
    )
    if sizes.output:
        sizes.output.parent.mkdir(parents=True, exist_ok=True)
        sizes.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
