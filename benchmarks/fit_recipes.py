"""Held-out R² against fitting time: the published recipe and ours, on the same data and machine.

    OMP_NUM_THREADS=2 python benchmarks/fit_recipes.py --output benchmarks/results/fit_recipes

Tokens come from a mini backbone, responses from the simulated subject. Both recipes fit the same module
(`mappings.factortopy`), so only the recipe differs. The published recipe is scored during training. Our
learning rate decays to zero, so each point of our curve is a separate fit.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from machine import describe_machine, write_figures
from matplotlib.figure import Figure

from harness.backbones.load import load_backbone
from harness.brains.brain import Brain
from harness.brains.load import load_brain
from harness.config.compose import load_config
from harness.config.run import Config
from harness.mappings.data import FitData
from harness.mappings.factortopy.model import FactorTopy
from harness.mappings.fit import fit_mapping
from harness.mappings.splits import (
    Split,
    split_stimuli,
)
from harness.mappings.voxel_scores import score
from harness.plot.style import figure_style
from harness.tokens.extraction import (
    LayerTokens,
    extract_tokens,
)

# Yang, Gee and Shi (CVPR 2024)
PUBLISHED = {"batch_size": 8, "lr": 1e-3, "regularization": 0.1, "regularization_steps": 2000, "steps": 2000}
SCORED = (25, 50, 100, 200, 400, 600, 800, 1000, 1200, 1400, 1600, 1800, 2000)
OURS = (25, 50, 100, 200, 400)


def fit_as_published(
    tokens: LayerTokens, brain: Brain, split: Split, n_channels: int, seed: int
) -> list[dict[str, float]]:
    """Fit by the published recipe; return training seconds and mean held-out R² at `SCORED` steps."""
    torch.manual_seed(seed)
    model = FactorTopy(
        torch.from_numpy(brain.coords),
        torch.from_numpy(brain.bounding_box),
        [layer.shape[1] for layer in tokens.global_],
        n_channels,
    )
    targets = torch.from_numpy(brain.responses)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PUBLISHED["lr"], fused=True)
    order = np.random.default_rng(seed)
    points, seconds = [], 0.0
    for step in range(int(PUBLISHED["steps"])):
        start = time.perf_counter()
        batch = order.choice(split.train, int(PUBLISHED["batch_size"]), replace=False)
        stimuli, selectors = tokens.take(batch), model.selectors()
        loss = F.smooth_l1_loss(model(stimuli.local, stimuli.global_, selectors), targets[batch], beta=0.1)
        decay = PUBLISHED["regularization"] * max(1 - step / PUBLISHED["regularization_steps"], 0)
        optimizer.zero_grad()
        (loss + decay * model.regularizer(selectors)).backward()
        optimizer.step()
        seconds += time.perf_counter() - start
        if step + 1 in SCORED:
            points.append(
                {"steps": step + 1, "seconds": seconds, "r2": _held_out(model, tokens, brain, split)}
            )
    return points


@torch.no_grad()
def _held_out(model: FactorTopy, tokens: LayerTokens, brain: Brain, split: Split) -> float:
    stimuli = tokens.take(split.held_out)
    prediction = model(stimuli.local, stimuli.global_).numpy()
    return float(score(prediction, brain.responses[split.held_out])[0].mean())


def fit_as_ours(
    tokens: LayerTokens, brain: Brain, split: Split, config: Config, seed: int
) -> list[dict[str, float]]:
    """Fit by our recipe, once per number of steps in `OURS`; seconds are those of whole fits."""
    points = []
    for steps in OURS:
        settings = config.mapping.model_copy(
            update={"steps": steps, "regularization_steps": max(steps // 2, 1)}
        )
        start = time.perf_counter()
        data = FitData(tokens, brain.responses, brain.coords, brain.bounding_box, split)
        mapping = fit_mapping(data, settings, seed=seed)
        seconds = time.perf_counter() - start
        points.append({"steps": steps, "seconds": seconds, "r2": float(mapping.r2.mean())})
    return points


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure curves of both recipes, one per seed."""
    config = load_config(
        [
            f"backbone={arguments.backbone}",
            f"brain.n_voxels={arguments.voxels}",
            f"brain.n_stimuli={arguments.stimuli}",
            "mapping.anchor=none",  # as in the published recipe
            f"mapping.n_channels={arguments.channels}",
        ]
    )
    brain = load_brain(config.brain)
    split = split_stimuli(len(brain.stimuli), config.mapping.held_out, config.seed)
    tokens = extract_tokens(
        load_backbone(config.backbone), brain.stimuli, config.mapping.token_size, 128, progress="tokens"
    )
    curves: dict[str, list[Any]] = {"published": [], "ours": []}
    for seed in range(arguments.seeds):
        curves["published"].append(fit_as_published(tokens, brain, split, arguments.channels, seed))
        curves["ours"].append(fit_as_ours(tokens, brain, split, config, seed))
    ceiling = None if brain.noise_ceiling is None else float(brain.noise_ceiling.mean())
    return {
        "sizes": {name: getattr(arguments, name) for name in ("backbone", "voxels", "stimuli", "channels")},
        "machine": describe_machine("cpu"),
        "mean_noise_ceiling": ceiling,
        "curves": curves,
    }


def draw(figures: dict[str, Any]) -> Figure:
    """Draw both recipes, one line per seed."""
    with figure_style():
        figure = Figure(figsize=(5.5, 3.5), layout="constrained")
        axes = figure.subplots()
        for (name, curves), colour in zip(figures["curves"].items(), ("0.45", "C0"), strict=True):
            for place, curve in enumerate(curves):
                axes.plot(
                    [point["seconds"] for point in curve],
                    [point["r2"] for point in curve],
                    color=colour,
                    marker=".",
                    label=name if place == 0 else None,
                )
        axes.set(xscale="log", xlabel="fitting time, seconds", ylabel="mean held-out R²")
        axes.legend()
    return figure


def main() -> None:
    """Measure, print how long each recipe takes to reach the published recipe's final R², and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="mini_supervised")
    parser.add_argument("--voxels", type=int, default=2000)
    parser.add_argument("--stimuli", type=int, default=1000)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--output", type=Path, help="path without suffix; writes a .json and a .png")
    arguments = parser.parse_args()
    figures = compare(arguments)
    for seed, (published, ours) in enumerate(zip(*figures["curves"].values(), strict=True)):
        for name, curve in (("published", published), ("ours", ours)):
            said = ", ".join(f"{p['steps']}: {p['r2']:.3f} ({p['seconds']:.1f} s)" for p in curve)
            print(f"seed {seed}, {name:9}  steps: R² (time)  {said}")
        goal = published[-1]
        reached = next((point for point in ours if point["r2"] >= goal["r2"]), None)
        if reached is None:
            print(f"seed {seed}: our recipe does not reach {goal['r2']:.3f}")
        else:
            ratio = goal["seconds"] / reached["seconds"]
            print(f"seed {seed}: {goal['r2']:.3f} in {reached['seconds']:.1f} s, {ratio:.1f} times as fast")
    if arguments.output:
        write_figures(figures, arguments.output.with_suffix(".json"))
        draw(figures).savefig(arguments.output.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
