"""Time of a FactorTopy training step against a plain ``grid_sample`` version, and how it scales.

    OMP_NUM_THREADS=2 python benchmarks/factortopy.py --output benchmarks/results/factortopy_2cores
    python benchmarks/factortopy.py --device cuda --output benchmarks/results/factortopy_h100

At full size, each implementation runs in separate processes that take turns. All start from the same
parameters and data. Our version keeps freed memory, as the entry points do (`finetuning.allocator`). The
plain version runs twice: with default settings, and keeping freed memory. Peak memory is the maximum during
the steps minus the memory held before them. The benchmark compares medians over all steps, and minima, which
other load affects least. The floor is the time for the formula's operations at the rate of a large matrix
product on this machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import Stolen, describe_machine, write_figures
from matplotlib.figure import Figure
from plain_factortopy import predict_plainly, select_plainly

from harness.finetuning.allocator import keep_freed_memory
from harness.mappings.factortopy.model import (
    HIDDEN,
    FactorTopy,
)
from harness.mappings.factortopy.position_encoding import position_encoding
from harness.plot.style import figure_style

IMPLEMENTATIONS = ("ours", "plain")
PLAIN_KEPT = "plain, memory kept"
WARM_UP = 3  # steps that allocate memory


@dataclass(frozen=True)
class Sizes:
    """A whole visual cortex on a ViT-B/16, as published."""

    voxels: int = 37984
    layers: int = 12
    width: int = 768
    tokens: int = 8
    channels: int = 128
    batch: int = 8

    def operations(self) -> float:
        """Count floating-point operations of the formula: products with parameters, and their gradients.

        Our version needs fewer because its position encoding is compact.
        """
        # tokens and position encodings need no gradient
        bottlenecks = 2 * self.layers * self.batch * (self.tokens**2 + 1) * self.width * self.channels
        first, second, last = 3 * 192 * HIDDEN, 3 * HIDDEN**2, HIDDEN * (self.layers + 3)
        selectors = self.voxels * (2 * first + 3 * (second + last))
        # each voxel's weights multiply five tokens per layer and image
        reading = 3 * self.voxels * 5 * self.layers * self.batch * self.channels
        return 2.0 * (bottlenecks + selectors + reading)


GROWTH = {
    "voxels": (2500, 5000, 10_000, 20_000, 40_000, 80_000),
    "layers": (3, 6, 12, 24, 48),
    "batch": (2, 4, 8, 16, 32, 64),
    "tokens": (4, 8, 16, 32),
}
GROWN = Sizes(voxels=10_000)  # baseline; one size varies at a time
PLAIN_WORK = 2e8  # voxels x layers x images x channels beyond which the plain version is skipped


def run_steps(implementation: str, sizes: Sizes, device: str, n_steps: int) -> dict[str, Any]:
    """Time steps of one implementation in this process, from a fixed seed."""
    if implementation != "plain":
        keep_freed_memory()
    torch.manual_seed(0)
    coords = torch.rand(sizes.voxels, 3) * 100
    box = torch.stack([coords.min(dim=0).values, coords.max(dim=0).values])
    model = FactorTopy(coords, box, [sizes.width] * sizes.layers, sizes.channels)
    for network in (model.space_selector, model.layer_selector, model.scale_selector):
        torch.nn.init.normal_(network[-1].weight, std=0.3)  # spread-out selectors
    shape = sizes.batch, sizes.width, sizes.tokens, sizes.tokens
    local = [torch.randn(shape).contiguous(memory_format=torch.channels_last) for _ in range(sizes.layers)]
    global_ = [torch.randn(shape[:2]) for _ in range(sizes.layers)]
    targets = torch.randn(sizes.batch, sizes.voxels).to(device)
    encoding = position_encoding(coords, box).to(device)
    model = model.to(device)
    local, global_ = [layer.to(device) for layer in local], [layer.to(device) for layer in global_]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    held = torch.cuda.memory_allocated() if device == "cuda" else _peak_bytes()
    seconds, losses = [], []
    for _ in range(n_steps + (WARM_UP if implementation == "ours" else 1)):
        start = time.perf_counter()
        if implementation == "ours":
            selectors = model.selectors()
            prediction = model(local, global_, selectors)
        else:
            selectors = select_plainly(model, encoding)
            prediction = predict_plainly(model, local, global_, selectors)
        loss = F.smooth_l1_loss(prediction, targets, beta=0.1) + 0.1 * model.regularizer(selectors)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())  # waits for the device
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else _peak_bytes()
    return {"seconds": seconds[-n_steps:], "losses": losses, "bytes": peak - held}


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_full_size(sizes: Sizes, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure both implementations in turn, each turn in a new process."""
    names = (*IMPLEMENTATIONS, PLAIN_KEPT)
    stolen = Stolen()
    found: dict[str, Any] = {name: {"seconds": [], "bytes": 0, "losses": []} for name in names}
    for turn in range(arguments.turns):
        for name in names:
            command = [sys.executable, *sys.argv, "--only", name]
            result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
            found[name]["seconds"] += result["seconds"]
            found[name]["bytes"] = max(found[name]["bytes"], result["bytes"])
            found[name]["losses"] = result["losses"]
            print(f"turn {turn + 1}, {name}: {min(result['seconds']):.3f} s per step", file=sys.stderr)
    ours, plain, plain_kept = (statistics.median(found[name]["seconds"]) for name in names)
    share = stolen.share()
    least_ours, least_plain, _ = (min(found[name]["seconds"]) for name in names)
    rate = matrix_product_rate(arguments.device)
    floor = sizes.operations() / rate
    # over the steps that both took
    pairs = zip(found["ours"]["losses"], found["plain"]["losses"], strict=False)
    return {
        "sizes": asdict(sizes),
        "seconds": {name: found[name]["seconds"] for name in names},
        "median_seconds": {"ours": ours, "plain": plain, PLAIN_KEPT: plain_kept},
        "speedup": plain / ours,
        "speedup_of_the_least": least_plain / least_ours,
        "stolen_share": share,
        "speedup_over_plain_with_memory_kept": plain_kept / ours,
        "gigabytes": {name: found[name]["bytes"] / 1e9 for name in names},
        "memory_share": found["ours"]["bytes"] / found["plain"]["bytes"],
        "largest_difference_of_losses": max(abs(one - other) for one, other in pairs),
        "gigaflop": sizes.operations() / 1e9,
        "matrix_product_gigaflop_per_second": rate / 1e9,
        "floor_seconds": floor,
        "share_of_matrix_product_rate": floor / ours,
    }


def matrix_product_rate(device: str) -> float:
    """Measure operations per second of a large float32 product, under this process's limits."""
    size = 4096
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        (a @ b)[0, 0].item()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def measure_growth(device: str) -> list[dict[str, Any]]:
    """Measure seconds per step, varying one size at a time."""
    rows = []
    for axis, values in GROWTH.items():
        for value in values:
            sizes = replace(GROWN, **{axis: value})
            row: dict[str, Any] = {"axis": axis, "value": value, "gigaflop": sizes.operations() / 1e9}
            for name in IMPLEMENTATIONS:
                work = sizes.voxels * sizes.layers * sizes.batch * sizes.channels
                if name == "ours" or work <= PLAIN_WORK:
                    seconds = run_steps(name, sizes, device, 3 if name == "ours" else 1)["seconds"]
                    row[name] = statistics.median(seconds)
            rows.append(row)
            print(json.dumps(row), file=sys.stderr)
    return rows


def draw_growth(rows: list[dict[str, Any]]) -> Figure:
    """Draw one panel per size; the thin line has the slope of linear scaling."""
    with figure_style():
        figure = Figure(figsize=(10, 2.8), layout="constrained")
        for axes, axis in zip(figure.subplots(1, len(GROWTH), sharey=True), GROWTH, strict=True):
            own = [row for row in rows if row["axis"] == axis]
            for name, colour in zip(IMPLEMENTATIONS, ("C0", "0.45"), strict=True):
                points = [(row["value"], row[name]) for row in own if name in row]
                axes.plot(*zip(*points, strict=True), marker=".", color=colour, label=name)
            first, last = own[0], own[-1]
            axes.plot(
                [first["value"], last["value"]],
                [first["ours"], first["ours"] * last["value"] / first["value"]],
                color="0.8",
                linewidth=0.8,
                zorder=0,
            )
            axes.set(xscale="log", yscale="log", xlabel="tokens per side" if axis == "tokens" else axis)
            axes.set_xticks([row["value"] for row in own], [f"{row['value']:,}" for row in own], fontsize=7)
            axes.minorticks_off()
        figure.axes[0].set_ylabel("seconds per step")
        figure.axes[0].legend()
    return figure


def main() -> None:
    """Measure, print the results, and write them if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in asdict(Sizes()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--steps", type=int, default=10, help="our steps per turn; the plain version takes 2")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-growth", action="store_true", help="measure the full size only")
    parser.add_argument("--output", type=Path, help="path without suffix; writes a .json and a .png")
    parser.add_argument("--only", choices=(*IMPLEMENTATIONS, PLAIN_KEPT), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = Sizes(**{name: getattr(arguments, name) for name in asdict(Sizes())})
    if arguments.only:
        n_steps = arguments.steps if arguments.only == "ours" else 2
        print(json.dumps(run_steps(arguments.only, sizes, arguments.device, n_steps)))
        return
    full = measure_full_size(sizes, arguments)
    for name in full["seconds"]:
        print(f"{name:18} {full['median_seconds'][name]:.3f} s and {full['gigabytes'][name]:.2f} GB per step")
    print(f"{full['speedup']:.1f} times as fast, in {full['memory_share']:.2f} of the memory (medians)")
    print(f"{full['speedup_of_the_least']:.1f} times as fast (minima)")
    if full["stolen_share"] is not None:
        print(f"{full['stolen_share']:.1%} of core time was stolen by other guests of the host")
    print(f"{full['speedup_over_plain_with_memory_kept']:.1f} times as fast as plain, freed memory kept")
    print(f"losses differ by at most {full['largest_difference_of_losses']:.1e}")
    print(
        f"{full['gigaflop']:.1f} GFLOP at {full['matrix_product_gigaflop_per_second']:.0f} GFLOP/s: floor "
        f"{full['floor_seconds']:.3f} s, {full['share_of_matrix_product_rate']:.0%} of our time"
    )
    growth = [] if arguments.no_growth else measure_growth(arguments.device)
    for row in growth:
        plain = f"{row['plain']:8.3f} s plain" if "plain" in row else ""
        print(f"{row['axis']:7} {row['value']:7,} {row['ours']:8.3f} s ours {plain}")
    if arguments.output:
        figures = {"machine": describe_machine(arguments.device), "full_size": full, "growth": growth}
        write_figures(figures, arguments.output.with_suffix(".json"))
        if growth:
            draw_growth(growth).savefig(arguments.output.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
