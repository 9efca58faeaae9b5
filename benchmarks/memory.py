"""Peak memory of fits to very large brains and very deep networks, by `mapping.voxels_per_pass`.

    OMP_NUM_THREADS=2 python benchmarks/memory.py --output benchmarks/results/memory_2cores

Each row comes from its own process. Peak memory is the maximum over a fit of a few steps, minus its input
tokens and responses. Parameters, their gradients and AdamW's two moments are needed for any number of passes;
their size is given separately.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine, write_figures

from harness.config.mapping import FactorTopyConfig
from harness.mappings.data import FitData
from harness.mappings.fit import fit_mapping
from harness.mappings.splits import Split
from harness.tokens.extraction import LayerTokens
from harness.tokens.frame import standardize_tokens

CASES = (
    {"voxels": 300_000, "layers": 12, "width": 768},
    {"voxels": 37_984, "layers": 40, "width": 1536},
)
PASSES = (300_000, 50_000, 10_000)
CHANNELS, BATCH, STEPS = 32, 64, 3


def run(case: dict[str, int], voxels_per_pass: int, device: str) -> dict[str, Any]:
    """Run a short fit in this process and measure it."""
    torch.manual_seed(0)
    n_images, n_layers = BATCH + 16, case["layers"]
    local = tuple(torch.randn(n_images, case["width"], 8, 8) for _ in range(n_layers))
    global_ = tuple(torch.randn(n_images, case["width"]) for _ in range(n_layers))
    tokens = LayerTokens(local, global_, tuple(map(str, range(n_layers))))
    split = Split(np.arange(BATCH), np.arange(BATCH, n_images))
    standard = standardize_tokens(tokens, torch.arange(BATCH), 8, device)
    del tokens, local, global_
    draw = np.random.default_rng(0)
    coords = draw.uniform(0, 100, (case["voxels"], 3)).astype(np.float32)
    responses = draw.standard_normal((n_images, case["voxels"]), dtype=np.float32)
    config = FactorTopyConfig(
        n_channels=CHANNELS, batch_size=BATCH, steps=STEPS, voxels_per_pass=voxels_per_pass
    )
    held = _peak(device, now=True)
    start = time.perf_counter()
    box = np.stack([coords.min(0), coords.max(0)])
    data = FitData(standard, responses, coords, box, split)
    mapping = fit_mapping(data, config, seed=0, device=device)
    n_learned = mapping.weights.size + mapping.bias.size
    n_learned += sum(array.size for name, array in mapping.learned.items() if name.startswith("model."))
    return {
        **case,
        "voxels_per_pass": voxels_per_pass,
        "gigabytes": (_peak(device) - held) / 1e9,
        "gigabytes_of_parameters": 4 * 4 * n_learned / 1e9,
        "seconds": time.perf_counter() - start,
    }


def _peak(device: str, now: bool = False) -> int:
    if device == "cuda":
        return torch.cuda.memory_allocated() if now else torch.cuda.max_memory_allocated()
    if now:
        # the peak so far may exceed what is held now
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure and print all cases."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="path without suffix; writes a .json")
    parser.add_argument("--only", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        case, passes = arguments.only
        print(json.dumps(run(CASES[case], PASSES[passes], arguments.device)))
        return
    rows = []
    for case in range(len(CASES)):
        for passes in range(len(PASSES)):
            command = [sys.executable, *sys.argv, "--only", str(case), str(passes)]
            found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            rows.append(json.loads(found))
            print({name: round(value, 2) for name, value in rows[-1].items()}, flush=True)
    if arguments.output:
        machine = describe_machine(arguments.device)
        sizes = {"channels": CHANNELS, "batch": BATCH, "steps": STEPS}
        write_figures(
            {"machine": machine, "sizes": sizes, "rows": rows}, arguments.output.with_suffix(".json")
        )


if __name__ == "__main__":
    main()
