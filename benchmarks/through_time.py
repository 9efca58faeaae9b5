"""One mapping through time against separate fits, on planted wiring, at the same number of steps.

    OMP_NUM_THREADS=1 python benchmarks/through_time.py --replicates 10 --folder DIR \
        --output benchmarks/results/through_time

Tokens come from a mini backbone and scenes of the shapes world (as in `recovery.py`), pooled to 4 × 4 and
reduced to their first 64 principal axes per layer (more than 99 % of the variance). Layers follow the areas'
hierarchy. Each replicate has its own wiring, noise and samples. It fits step 0 five times, and one snapshot
of each kind:

- unchanged: step 0's tokens and responses;
- V4 +1, V1–V4 +1: the responses of these areas come from the next layer, with the same noise;
- noise: token noise of one sd of each channel, in all layers;
- half: half the stimuli;
- rotated: an orthogonal change of basis of each layer's tokens, which is no rewiring.

"separate" fits each by itself, as `mapping=factortopy` does, "separate, no anchor" with layers learned by
descent alone. "through time" fits all of them as one run, with as many steps. Then there is
"not rotated", the same without the rotation onto step 0's axes. In each case, the distance of the snapshot to
the five fits of step 0 is held against the distances among these (`measures.significance.noise_floor`, as a
run does): a place is beyond the floor if the interval of its excess is above 0. Every replicate is written to
the folder when it is done, and skipped when it is there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from machine import describe_machine, write_figures
from matplotlib.figure import Figure
from recovery import WORLD, plant

from harness.backbones.load import load_backbone
from harness.brains.brain import Brain, Pictures
from harness.brains.load import load_brain
from harness.config.compose import load_config
from harness.config.mapping import FactorTopyConfig, ThroughTimeConfig
from harness.mappings.data import FitData, FitOptions, Member
from harness.mappings.fit import fit_mapping
from harness.mappings.mapping import Mapping
from harness.mappings.splits import Split
from harness.mappings.through_time import fit_through_time
from harness.measures.rewiring import wasserstein
from harness.measures.significance import leave_one_out, noise_floor
from harness.plot.style import figure_style
from harness.storage import read_json, write_json
from harness.tokens.extraction import LayerTokens, extract_tokens
from harness.tokens.frame import StandardTokens, standardize_tokens
from tasks.shapes import render_scenes, sample_scenes

CEILING = 0.6
N_FLOOR = 5  # fits of step 0
N_HELD_OUT = 200
TOKEN_SIZE, N_AXES = 4, 64
SHIFTS = {"V4 +1": ("V4",), "V1-V4 +1": ("V1", "V2", "V3", "V4")}
CELLS = ("unchanged", *SHIFTS, "noise", "half", "rotated")
METHODS = ("separate", "separate, no anchor", "through time", "not rotated")


def reduce_tokens(tokens: LayerTokens) -> LayerTokens:
    """Pool local tokens, and project all on the principal axes of each layer's local tokens."""
    local, global_ = [], []
    for grid, token in zip(tokens.local, tokens.global_, strict=True):
        pooled = F.adaptive_avg_pool2d(grid, TOKEN_SIZE)
        flat = pooled.permute(0, 2, 3, 1).flatten(0, 2)
        axes = torch.linalg.eigh(torch.cov(flat.T))[1][:, -N_AXES:]
        centre = flat.mean(dim=0)
        local.append(torch.einsum("bchw,cd->bdhw", pooled - centre[:, None, None], axes))
        global_.append((token - centre) @ axes)
    return LayerTokens(tuple(local), tuple(global_), tokens.layers)


def change_tokens(tokens: LayerTokens, cell: str, seed: int) -> LayerTokens:
    """Make the tokens of a snapshot of one kind from step 0's."""
    generator = torch.Generator().manual_seed(seed)
    if cell == "noise":

        def disturb(layer: torch.Tensor) -> torch.Tensor:
            spread = layer.std(dim=[axis for axis in range(layer.ndim) if axis != 1], keepdim=True)
            return layer + spread * torch.randn(layer.shape, generator=generator)

        return replace(
            tokens, local=tuple(map(disturb, tokens.local)), global_=tuple(map(disturb, tokens.global_))
        )
    if cell == "rotated":
        turns = [torch.linalg.qr(torch.randn(N_AXES, N_AXES, generator=generator))[0] for _ in tokens.layers]
        return LayerTokens(
            tuple(torch.einsum("bchw,cd->bdhw", x, r) for x, r in zip(tokens.local, turns, strict=True)),
            tuple(x @ r for x, r in zip(tokens.global_, turns, strict=True)),
            tokens.layers,
        )
    return tokens


def measure_replicate(
    tokens: LayerTokens, brain: Brain, n_train: int, seed: int, configs: dict[str, Any], methods: list[str]
) -> dict[str, Any]:
    """Fit one replicate by every method; returns distances, scores and seconds."""
    rng = np.random.default_rng(seed)
    split = Split(np.arange(n_train), np.arange(tokens.n_images - N_HELD_OUT, tokens.n_images))

    def standardise(changed: LayerTokens) -> StandardTokens:
        return standardize_tokens(changed, torch.from_numpy(split.train), TOKEN_SIZE, "cpu")

    standard = standardise(tokens)
    noise = rng.standard_normal((tokens.n_images, brain.n_voxels), dtype=np.float32)
    truth, data = {}, {}
    for cell in ("step 0", *CELLS):
        planted = plant(standard, brain, seed, "hierarchy", dict.fromkeys(SHIFTS.get(cell, ()), 1))
        truth[cell] = planted.layer
        if cell in ("noise", "rotated"):
            data[cell] = replace(data["step 0"], tokens=standardise(change_tokens(tokens, cell, seed)))
        elif cell == "half":
            data[cell] = replace(data["step 0"], split=replace(split, train=np.arange(n_train // 2)))
        elif cell == "unchanged":
            data[cell] = data["step 0"]
        else:
            responses = np.sqrt(CEILING) * planted.signal + np.sqrt(1 - CEILING) * noise
            data[cell] = FitData(standard, responses, brain.coords, brain.bounding_box, split)
    places = ["step 0"] * N_FLOOR + list(CELLS)
    found: dict[str, Any] = {"seed": seed, "stimuli": n_train}
    for method in methods:
        began = time.process_time()
        fits = METHODS_BY_NAME[method]([data[place] for place in places], configs, seed)
        found[method] = judge(fits, places, truth, brain) | {"seconds": time.process_time() - began}
    return found


def fit_separately(data: list[FitData], configs: dict[str, Any], seed: int, anchored: bool) -> list[Mapping]:
    """Fit every snapshot by itself, with its own seed and sample."""
    config = configs["separate"] if anchored else configs["separate"].model_copy(update={"anchor": "none"})
    return [
        fit_mapping(each, config, seed=1000 * seed + place, bootstrap=True) for place, each in enumerate(data)
    ]


def fit_jointly(data: list[FitData], configs: dict[str, Any], seed: int, rotated: bool) -> list[Mapping]:
    """Fit all snapshots in one fit."""
    config = configs["through time"].model_copy(update={"rotated": rotated})
    return fit_through_time([Member(each) for each in data], config, FitOptions(seed, bootstrap=True))


METHODS_BY_NAME: dict[str, Callable[[list[FitData], dict[str, Any], int], list[Mapping]]] = {
    "separate": lambda data, configs, seed: fit_separately(data, configs, seed, anchored=True),
    "separate, no anchor": lambda data, configs, seed: fit_separately(data, configs, seed, anchored=False),
    "through time": lambda data, configs, seed: fit_jointly(data, configs, seed, rotated=True),
    "not rotated": lambda data, configs, seed: fit_jointly(data, configs, seed, rotated=False),
}


def judge(
    fits: list[Mapping], places: list[str], truth: dict[str, np.ndarray], brain: Brain
) -> dict[str, Any]:
    """Hold every snapshot against the fits of step 0, for the whole brain and each region."""
    regions = {"all": np.arange(brain.n_voxels)} | {roi.name: roi.voxels for roi in brain.rois}
    layers = [mapping.layer for mapping in fits]
    steps_0 = layers[:N_FLOOR]
    apart = np.array([[wasserstein(one, other) for other in steps_0] for one in steps_0])
    found: dict[str, Any] = {"cells": {}, "null_means": {}}
    found["right"] = float(np.mean([(x.argmax(axis=1) == truth["step 0"]).mean() for x in steps_0]))
    found["r2"] = float(np.mean([mapping.r2.mean() for mapping in fits[:N_FLOOR]]))
    for region, voxels in regions.items():
        found["null_means"][region] = leave_one_out(apart[:, :, voxels].mean(axis=2)).tolist()
    for mapping, cell in list(zip(fits, places, strict=True))[N_FLOOR:]:
        distances = np.array([wasserstein(one, mapping.layer) for one in steps_0])
        # noise in one-hot distributions: the distance that a perfect mapping would show
        one_hot = [np.eye(mapping.layer.shape[1])[truth[name]] for name in ("step 0", cell)]
        true = wasserstein(*one_hot)
        found["cells"][cell] = {
            "right": float((mapping.layer.argmax(axis=1) == truth[cell]).mean()),
            "r2": float(mapping.r2.mean()),
            "regions": {
                region: vars(
                    noise_floor(
                        distances[:, voxels].mean(axis=1),
                        apart[:, :, voxels].mean(axis=2),
                    )
                )
                | {"true": float(true[voxels].mean())}
                for region, voxels in regions.items()
            },
        }
    return found


def summarise(replicates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Average over replicates, one row per number of stimuli, method and cell."""
    rows = []
    for n_train in sorted({each["stimuli"] for each in replicates}):
        for method in METHODS:
            chosen = [each[method] for each in replicates if each["stimuli"] == n_train and method in each]
            for cell in CELLS if chosen else ():
                rows.append(
                    {"stimuli": n_train, "method": method, "cell": cell, "replicates": len(chosen)}
                    | _summarise_cell(chosen, cell)
                )
    return rows


def _summarise_cell(chosen: list[dict[str, Any]], cell: str) -> dict[str, Any]:
    names = [name for name in chosen[0]["null_means"] if name != "all"]
    moved = SHIFTS.get(cell, ())
    still = [name for name in names if name not in moved]
    of = [each["cells"][cell]["regions"] for each in chosen]
    beyond = np.array([[each[name]["low"] > 0 for name in names] for each in of])
    is_moved = np.array([name in moved for name in names])
    floors = np.array([[each["null_means"][name] for name in names] for each in chosen])
    row = {
        "floor": np.mean([each["all"]["null"] for each in of]),
        "floor_sd": np.mean([np.std(each["null_means"]["all"], ddof=1) for each in chosen]),
        "floor_of_rois": floors.mean(),
        "right_step_0": np.mean([each["right"] for each in chosen]),
        "right": np.mean([each["cells"][cell]["right"] for each in chosen]),
        "r2_step_0": np.mean([each["r2"] for each in chosen]),
        "r2": np.mean([each["cells"][cell]["r2"] for each in chosen]),
        "excess": np.mean([each["all"]["excess"] for each in of]),
        "true": np.mean([each["all"]["true"] for each in of]),
        "excess_still": np.mean([each[name]["excess"] for each in of for name in still]),
        "whole_brain_beyond": np.mean([each["all"]["low"] > 0 for each in of]),
        "still_rois_beyond": beyond[:, ~is_moved].mean(),
        "seconds": np.mean([each["seconds"] for each in chosen]),
    }
    if moved:
        row |= {
            "moved_rois_beyond": beyond[:, is_moved].mean(),
            "excess_moved": np.mean([each[name]["excess"] for each in of for name in moved]),
            "true_moved": np.mean([each[name]["true"] for each in of for name in moved]),
        }
    return {name: float(value) for name, value in row.items()}


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all replicates that are not in the folder yet, and return all."""
    settings = load_config(
        [f"backbone={arguments.backbone}", f"brain.n_voxels={arguments.voxels}", "brain.n_stimuli=20"]
    )
    brain = load_brain(settings.brain)
    cache = arguments.folder / f"tokens-{max(arguments.stimuli)}.pt"
    if not cache.exists():
        scenes = sample_scenes(WORLD, range(max(arguments.stimuli) + N_HELD_OUT))
        tokens = reduce_tokens(
            extract_tokens(load_backbone(settings.backbone), Pictures(render_scenes(scenes)), None, 128)
        )
        arguments.folder.mkdir(parents=True, exist_ok=True)
        torch.save((tokens.local, tokens.global_, tokens.layers), cache)
    tokens = LayerTokens(*torch.load(cache, weights_only=True))
    shared: dict[str, Any] = {
        "token_size": TOKEN_SIZE,
        "n_channels": arguments.channels,
        "batch_size": arguments.batch,
        "steps": arguments.steps,
        "regularization_steps": arguments.steps // 2,
    }
    configs = {
        "separate": FactorTopyConfig(**shared, lr=5e-3, start="centre", readout="descent"),
        "through time": ThroughTimeConfig(**shared, change_penalty=arguments.change_penalty),
    }
    for seed in range(arguments.first, arguments.first + arguments.replicates):
        for n_train in arguments.stimuli:
            path = arguments.folder / f"{n_train}-{seed}.json"
            if path.exists():
                continue
            write_json(path, measure_replicate(tokens, brain, n_train, seed, configs, arguments.methods))
            print(path, flush=True)
    return [read_json(path) for path in sorted(arguments.folder.glob("*-*.json"))]


def draw(figures: dict[str, Any]) -> Figure:
    """Draw layers right, R², the floor and the excess by method and number of stimuli."""
    rows = figures["rows"]
    stimuli = sorted({row["stimuli"] for row in rows})
    methods = [method for method in METHODS[:3] if any(row["method"] == method for row in rows)]
    panels: tuple[tuple[str, str, str], ...] = (
        ("unchanged", "right_step_0", "layers right"),
        ("unchanged", "r2_step_0", "R²"),
        ("unchanged", "floor", "refit floor (W1)"),
        ("V4 +1", "excess_moved", "excess in V4 (V4 +1)"),
        ("V4 +1", "excess_still", "excess elsewhere (V4 +1)"),
    )
    with figure_style():
        figure = Figure(figsize=(13, 3.2), layout="constrained")
        for axes, (cell, name, title) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            chosen = {(r["method"], r["stimuli"]): r[name] for r in rows if r["cell"] == cell}
            for place, method in enumerate(methods):
                values = [chosen.get((method, n), np.nan) for n in stimuli]
                axes.bar(np.arange(len(stimuli)) + 0.27 * place, values, 0.25, label=method)
            axes.set_title(title)
            axes.set_xticks(np.arange(len(stimuli)) + 0.27, [str(n) for n in stimuli])
            axes.set_xlabel("training stimuli")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def main() -> None:
    """Measure, print the table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="mini_supervised")
    parser.add_argument("--voxels", type=int, default=300)
    parser.add_argument("--steps", type=int, default=80, help="per fit of a snapshot")
    parser.add_argument("--channels", type=int, default=16, help="of the bottleneck")
    parser.add_argument("--batch", type=int, default=32, help="stimuli per step")
    parser.add_argument("--stimuli", type=int, nargs="+", default=[400, 800])
    parser.add_argument("--replicates", type=int, default=10)
    parser.add_argument("--first", type=int, default=100, help="seed of the first replicate")
    parser.add_argument("--methods", nargs="+", default=METHODS[:3], choices=METHODS)
    parser.add_argument("--change-penalty", type=float, default=0.01)
    parser.add_argument("--folder", type=Path, default=Path("runs/through_time"), help="checkpoints")
    parser.add_argument("--output", type=Path, help="path without suffix; writes a .json and a .png")
    arguments = parser.parse_args()
    rows = summarise(measure(arguments))
    for row in rows:
        print(json.dumps(row))
    if arguments.output:
        sizes = ("backbone", "voxels", "steps", "channels", "batch", "change_penalty")
        figures = {
            "sizes": {name: getattr(arguments, name) for name in sizes},
            "machine": describe_machine(),
            "rows": rows,
        }
        write_figures(figures, arguments.output.with_suffix(".json"))
        draw(figures).savefig(arguments.output.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
