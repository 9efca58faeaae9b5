"""Recovery of planted wiring by FactorTopy, by noise ceiling and number of stimuli.

    OMP_NUM_THREADS=2 python benchmarks/recovery.py --output benchmarks/results/recovery_2cores
    OMP_NUM_THREADS=2 python benchmarks/recovery.py --voxels 6000 --stimuli 3000 --steps 1800 \
        --layouts hierarchy --ceilings 0.3 0.5 0.7 0.9 --output benchmarks/results/recovery_6000_voxels_2cores

Tokens come from a mini backbone and scenes of the shapes world. Voxels lie on the simulated subject's cortex.
Each area reads from one layer at one scale; places and weights vary smoothly along the cortex. FactorTopy's
formula gives the responses, with noise added to reach a known ceiling. The fit gets coordinates, tokens and
responses, but no labels of areas. In the "hierarchy" layout, layers follow the areas' hierarchy. In the
harder "areas" layout, they are drawn per area and hemisphere: neighbouring areas rarely share a layer. Smooth
selectors must err at borders between layers. Results are therefore also given without voxels within 4 mm (a
step of the position encoding) of a voxel that reads from another layer.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from earlier_recipe import DESCENT_ALONE
from machine import describe_machine, write_figures
from matplotlib.figure import Figure
from scipy.spatial import KDTree

from harness.backbones.load import load_backbone
from harness.brains.brain import (
    Brain,
    Pictures,
)
from harness.brains.cortex import draw_smooth_fields
from harness.brains.load import load_brain
from harness.config.compose import load_config
from harness.config.run import Config
from harness.mappings.data import FitData
from harness.mappings.factortopy.sampling import read_tokens
from harness.mappings.fit import fit_mapping
from harness.mappings.splits import Split
from harness.plot.style import figure_style
from harness.tokens.frame import StandardTokens
from harness.tokens.store import store_tokens
from tasks.shapes import (
    render_scenes,
    sample_scenes,
)

WORLD = 77  # seed of the scenes; the backbone was trained on others
N_PLANTED = 8  # channels that the planted wiring reads per layer
SCALES = (0.1, 0.5)  # possible shares of the global token
SMOOTHNESS = 15.0  # of places and weights along the cortex, mm
CEILINGS = (0.1, 0.3, 0.5, 0.7, 0.9)
BORDER = 4.0  # mm
LAYOUTS = ("hierarchy", "areas")
AREAS_AT = (3000,)  # training stimuli in the "areas" layout
STIMULI = (100, 300, 1000, 3000, 10_000)


@dataclass(frozen=True)
class Planted:
    """True selectors of all voxels, and their noise-free responses (mean 0, variance 1)."""

    layer: np.ndarray
    space: np.ndarray
    scale: np.ndarray
    signal: np.ndarray
    near_border: np.ndarray


def plant(
    tokens: StandardTokens, brain: Brain, seed: int, layout: str, shift: Mapping[str, int] | None = None
) -> Planted:
    """Draw a wiring and compute its responses to all stimuli.

    `shift` moves regions by layers, as in ``{"V4": 1}``; places, scales and weights stay.
    """
    rng = np.random.default_rng(seed)
    n_layers = len(tokens.layers)
    layer, scale = np.zeros(brain.n_voxels, dtype=int), np.zeros(brain.n_voxels, dtype=np.float32)
    for roi in brain.rois:
        for hemisphere in ("L", "R"):
            there = roi.voxels[brain.hemisphere[roi.voxels] == hemisphere]
            layer[there], scale[there] = rng.integers(n_layers), rng.choice(SCALES)
            if layout == "hierarchy":
                highest = max(roi.rank for roi in brain.rois)
                layer[there] = round((roi.rank - 1) / (highest - 1) * (n_layers - 1))
        layer[roi.voxels] = np.clip(layer[roi.voxels] + (shift or {}).get(roi.name, 0), 0, n_layers - 1)
    fields = draw_smooth_fields(brain.coords, brain.coords, 2 + N_PLANTED, SMOOTHNESS, rng)
    space = np.tanh(0.6 * fields[:, :2]).astype(np.float32)
    generator = torch.Generator().manual_seed(seed)
    local_bottleneck, global_bottleneck = (
        [torch.randn(N_PLANTED, part.shape[1], generator=generator) for part in tokens.global_]
        for _ in range(2)
    )
    signal = np.empty((tokens.n_images, brain.n_voxels), dtype=np.float32)
    first = 0
    for part in tokens.stream(torch.arange(tokens.n_images).split(500)):
        read = read_tokens(
            [
                tokens_.permute(0, 2, 3, 1) @ b.T
                for b, tokens_ in zip(local_bottleneck, part.local, strict=True)
            ],
            [tokens_ @ b.T for b, tokens_ in zip(global_bottleneck, part.global_, strict=True)],
            torch.from_numpy(space),
            torch.eye(n_layers)[torch.from_numpy(layer)],
            torch.from_numpy(scale),
            torch.from_numpy(fields[:, 2:].astype(np.float32)),
        )
        signal[first : first + part.n_images] = read.numpy()
        first += part.n_images
    signal = (signal - signal.mean(axis=0)) / signal.std(axis=0)
    return Planted(layer, space, scale, signal, _near_a_border(layer, brain.coords))


def _near_a_border(layer: np.ndarray, coords: np.ndarray) -> np.ndarray:
    near = np.zeros(len(layer), dtype=bool)
    for chosen in np.unique(layer):
        others = KDTree(coords[layer != chosen])
        near[layer == chosen] = others.query(coords[layer == chosen])[0] < BORDER
    return near


def recover(
    tokens: StandardTokens,
    brain: Brain,
    planted: Planted,
    n_train: int,
    ceiling: float,
    config: Config,
    seed: int,
) -> dict[str, float]:
    """Fit `n_train` stimuli at one ceiling, and compare the selectors with the planted ones.

    The same stimuli, the last ones, are held out in every case. A token is 2 / token_size wide.
    """
    rng = np.random.default_rng((seed, n_train, round(100 * ceiling)))
    noise = rng.standard_normal(planted.signal.shape, dtype=np.float32)
    responses = np.sqrt(ceiling) * planted.signal + np.sqrt(1 - ceiling) * noise
    n_images = tokens.n_images
    split = Split(train=np.arange(n_train), held_out=np.arange(max(STIMULI), n_images))
    start = time.perf_counter()
    data = FitData(tokens, responses, brain.coords, brain.bounding_box, split)
    label = f"{n_train} stimuli, ceiling {ceiling}"
    mapping = fit_mapping(data, config.mapping, seed=seed, progress=label)
    seconds = time.perf_counter() - start
    found = mapping.layer.argmax(axis=1)
    width = 2 / config.mapping.token_size
    return {
        "stimuli": n_train,
        "ceiling": ceiling,
        "layer_right": float((found == planted.layer).mean()),
        "layer_right_off_borders": float((found == planted.layer)[~planted.near_border].mean()),
        "layer_off_by_at_most_one": float((np.abs(found - planted.layer) <= 1).mean()),
        "median_tokens_apart": float(
            np.median(np.linalg.norm(mapping.space - planted.space, axis=1)) / width
        ),
        "scale_apart": float(np.abs(mapping.scale - planted.scale).mean()),
        "r2": float(mapping.r2.mean()),
        "seconds": seconds,
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all combinations of ceilings and numbers of stimuli."""
    config = load_config(
        [
            f"backbone={arguments.backbone}",
            f"brain.n_voxels={arguments.voxels}",
            "brain.n_stimuli=20",
            "mapping.anchor=none",
            *DESCENT_ALONE,
            f"mapping.steps={arguments.steps}",
            f"mapping.regularization_steps={arguments.steps // 2}",
        ]
    )
    brain = load_brain(config.brain)
    scenes = sample_scenes(WORLD, range(max(STIMULI) + arguments.held_out))
    tokens = store_tokens(
        load_backbone(config.backbone),
        Pictures(render_scenes(scenes)),
        np.arange(max(STIMULI)),
        config.mapping,
        128,
        "cpu",
        Path("runs"),
        "tokens",
    )
    rows = []
    for layout in arguments.layouts:
        planted = plant(tokens, brain, seed=0, layout=layout)
        numbers = arguments.stimuli if layout == "hierarchy" else AREAS_AT
        for n_train, ceiling in product(numbers, arguments.ceilings):
            found = recover(tokens, brain, planted, n_train, ceiling, config, seed=0)
            rows.append({"layout": layout, "near_border": float(planted.near_border.mean()), **found})
            print(json.dumps(rows[-1]), flush=True)
    return {
        "sizes": {name: getattr(arguments, name) for name in ("backbone", "voxels", "steps", "held_out")},
        "machine": describe_machine(),
        "rows": rows,
    }


def draw(figures: dict[str, Any]) -> Figure:
    """Draw one heat map per measure, ceilings against numbers of stimuli."""
    rows = [row for row in figures["rows"] if row["layout"] == "hierarchy"]
    stimuli, ceilings = (sorted({row[name] for row in rows}) for name in ("stimuli", "ceiling"))
    panels = (
        ("layer_right", "layer correct", "{:.0%}"),
        ("layer_right_off_borders", "layer correct, off borders", "{:.0%}"),
        ("median_tokens_apart", "median place error (tokens)", "{:.2f}"),
        ("below_ceiling", "ceiling − R²", "{:.3f}"),
    )
    with figure_style():
        figure = Figure(figsize=(12, 2.8), layout="constrained")
        for axes, (name, title, form) in zip(
            figure.subplots(1, len(panels), sharey=True), panels, strict=True
        ):
            values = np.full((len(ceilings), len(stimuli)), np.nan)
            for row in rows:
                place = ceilings.index(row["ceiling"]), stimuli.index(row["stimuli"])
                values[place] = row["ceiling"] - row["r2"] if name == "below_ceiling" else row[name]
            good = values if name.startswith("layer_right") else -values
            axes.imshow(good, cmap="cividis", aspect="auto", origin="lower")
            middle = (np.nanmin(good) + np.nanmax(good)) / 2
            for (y, x), value in np.ndenumerate(values):
                colour = "black" if good[y, x] > middle else "white"
                axes.text(x, y, form.format(value), ha="center", va="center", color=colour, fontsize=8)
            axes.set_title(title)
            axes.set_xticks(range(len(stimuli)), [f"{n:,}" for n in stimuli])
            axes.set_yticks(range(len(ceilings)), [str(c) for c in ceilings])
            axes.set_xlabel("training stimuli")
            axes.grid(False)
        figure.axes[0].set_ylabel("noise ceiling")
    return figure


def main() -> None:
    """Measure, print each row when it is done, and draw the heat maps."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="mini_supervised")
    parser.add_argument("--voxels", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--held-out", type=int, default=1000)
    parser.add_argument("--stimuli", type=int, nargs="+", default=STIMULI, choices=STIMULI)
    parser.add_argument("--ceilings", type=float, nargs="+", default=CEILINGS)
    parser.add_argument("--layouts", nargs="+", default=LAYOUTS, choices=LAYOUTS)
    parser.add_argument("--output", type=Path, help="path without suffix; writes a .json and a .png")
    arguments = parser.parse_args()
    figures = measure(arguments)
    if arguments.output:
        write_figures(figures, arguments.output.with_suffix(".json"))
        draw(figures).savefig(arguments.output.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
