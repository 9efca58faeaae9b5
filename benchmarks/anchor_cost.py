"""Cost of the brain as an anchor: a training step against plain fine-tuning and LDIFS.

Processor time of forward and backward passes and AdamW, minimum of nine steps in turn, one thread, mini_clip.
The mapping is fitted for a moment only: its size counts, not what it says.

    OMP_NUM_THREADS=1 python benchmarks/anchor_cost.py --images 16 \
        --output benchmarks/results/anchor_cost.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine, write_figures
from PIL import Image

from harness.backbones import Backbone, load_backbone
from harness.config import BrainAnchorConfig, FactorTopyConfig, FullConfig, LdifsConfig, load_config
from harness.finetuning import METHODS, Anchor, Objective, StartMappings, tune
from harness.finetuning.methods.objective import Context
from harness.mappings import FitData, Split, fit_mapping
from harness.tokens import extract_tokens
from tasks import load_task, render_scenes, sample_scenes

REPEATS = 9


def make_anchor(backbone: Backbone, n_voxels: int, config: FactorTopyConfig) -> StartMappings:
    """Fit a mapping of so many voxels to noise, for two steps."""
    images = [Image.fromarray(scene) for scene in render_scenes(sample_scenes(1, range(30)))]
    rng = np.random.default_rng(0)
    coords = rng.uniform(-1, 1, (n_voxels, 3)).astype(np.float32)
    tokens = extract_tokens(backbone, images, config.token_size, 30)
    responses = rng.standard_normal((30, n_voxels)).astype(np.float32)
    split = Split(np.arange(24), np.arange(24, 30))
    data = FitData(tokens, responses, coords, np.stack([coords.min(0), coords.max(0)]), split)
    mapping = fit_mapping(data, config, seed=0)
    return StartMappings((Anchor(mapping, np.ones(n_voxels, np.float32), config.token_size),), frozenset())


def main() -> None:
    """Measure, print and write the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--voxels", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    config = load_config(["backbone=mini_clip"])
    backbone, task = load_backbone(config.backbone), load_task("digits", 100, 10)
    mapping = config.mapping
    assert isinstance(mapping, FactorTopyConfig)
    brief = mapping.model_copy(update={"steps": 2, "batch_size": 8})
    wanted: dict[str, tuple[object, StartMappings | None]] = {
        "full": (FullConfig(), None),
        "ldifs": (LdifsConfig(), None),
    }
    for n_voxels in arguments.voxels:
        start = make_anchor(backbone, n_voxels, brief)
        method = BrainAnchorConfig(n_images=arguments.images)
        wanted[f"brain_anchor, {n_voxels} voxels"] = (method, start)
    steps = {}
    for name, (method, start) in wanted.items():
        model = tune(backbone, 10, method, 0)  # type: ignore[arg-type]
        context = Context(backbone, method, 0, "cpu", batch=arguments.images, start=start)  # type: ignore[arg-type]
        objective: Objective = METHODS[method.name].load("objective")(model, task, context)  # type: ignore[attr-defined]
        optimizer = torch.optim.AdamW([part for part in model.parameters() if part.requires_grad], lr=1e-6)
        steps[name] = (objective.train(), optimizer)
    images, labels = torch.randn(arguments.images, 3, 64, 64), torch.zeros(arguments.images, dtype=torch.long)
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(REPEATS + 1):
        for name, (objective, optimizer) in steps.items():
            began = time.process_time()
            torch.stack(list(objective(images, labels).values())).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            found[name].append(time.process_time() - began)
    least = {name: min(times[1:]) for name, times in found.items()}
    ratios = {name: least[name] / least["full"] for name in least}
    for name, ratio in ratios.items():
        of_ldifs = ratio / ratios["ldifs"]
        print(f"{name}: {1000 * least[name]:.0f} ms, {ratio:.2f} of full, {of_ldifs:.2f} of ldifs")
    if arguments.output:
        content = {
            "machine": describe_machine(),
            "images": arguments.images,
            "seconds": least,
            "of_full": ratios,
        }
        write_figures(content, arguments.output)


if __name__ == "__main__":
    main()
