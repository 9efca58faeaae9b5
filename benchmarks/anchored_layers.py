"""Layer selectors anchored in closed-form evidence, against those learned by descent alone.

    OMP_NUM_THREADS=1 python benchmarks/anchored_layers.py --output benchmarks/results/anchored_layers

Fits take 100 steps of gradient descent from the image's centre, and 640 training stimuli unless `--train`
says otherwise. Three kinds of cells:

- planted: wiring planted by `recovery.py`, in tokens of mini_clip; which fits find the layers;
- subject: the simulated subject, whose areas read no network; R² only;
- change: planted wiring before and after V4 moves to the next layer, each fitted with bootstrap samples; how
  far apart refits of the same wiring are, and how much of the true shift is found.

Finished cells are kept in `--work`, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from earlier_recipe import DEMO_BY_DESCENT
from machine import describe_machine, write_figures
from matplotlib.figure import Figure
from means import tabulate_means
from recovery import Planted, plant

from harness.backbones.load import load_backbone
from harness.brains.brain import Brain, Pictures
from harness.brains.load import load_brain
from harness.config.compose import load_config
from harness.config.run import Config
from harness.mappings.data import FitData
from harness.mappings.fit import fit_mapping
from harness.mappings.mapping import Mapping
from harness.mappings.splits import Split
from harness.measures.rewiring import rewiring_measures
from harness.plot.style import figure_style
from harness.tokens.frame import StandardTokens
from harness.tokens.store import store_tokens
from tasks.shapes import render_scenes, sample_scenes

WORLD = 77  # seed of the scenes, as in recovery.py
N_HELD_OUT = 500
CHANGED = "V4"
KEYS = ("kind", "voxels", "train", "layout", "backbone", "variant", "ceiling", "seed")
VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"anchor": "none"},
    "frozen": {"anchor": "frozen"},
    "frozen, coupling 1.3": {"anchor": "frozen", "anchor_coupling": 1.3},
    "frozen, strength 1": {"anchor": "frozen", "anchor_strength": 1.0},
    "frozen, no neighbours": {"anchor": "frozen", "anchor_coupling": 0.0},
    "prior": {"anchor": "prior"},
    "pull .1": {"anchor": "pull", "anchor_strength": 0.1},
}


class Bench:
    """Tokens and brains of all cells, made when they are first needed."""

    def __init__(self, work: Path, n_voxels: int, n_train: int) -> None:
        self.work, self.n_voxels, self.n_train = work, n_voxels, n_train
        self._tokens: dict[str, StandardTokens] = {}
        self._brains: dict[str, Brain] = {}

    def config(self, backbone: str, **settings: Any) -> Config:
        """Settings of the demo, with those of a variant."""
        overrides = [f"mapping.{name}={value}" for name, value in settings.items()]
        chosen = ["study=demo", f"backbone={backbone}", f"brain.n_voxels={self.n_voxels}", *DEMO_BY_DESCENT]
        return load_config([*chosen, *overrides])

    def scenes(self, backbone: str) -> StandardTokens:
        """Tokens of the scenes that planted wiring reads."""
        if backbone not in self._tokens:
            scenes = render_scenes(sample_scenes(WORLD, range(self.n_train + N_HELD_OUT)))
            self._tokens[backbone] = self._store(backbone, Pictures(scenes), self.n_train)
        return self._tokens[backbone]

    def _store(self, backbone: str, pictures: Any, n_train: int) -> StandardTokens:
        config = self.config(backbone)
        network = load_backbone(config.backbone)
        train = np.arange(n_train)
        return store_tokens(network, pictures, train, config.mapping, 128, "cpu", self.work)

    def cortex(self) -> Brain:
        """Where planted voxels lie."""
        if "cortex" not in self._brains:
            config = load_config([f"brain.n_voxels={self.n_voxels}", "brain.n_stimuli=20"])
            self._brains["cortex"] = load_brain(config.brain)
        return self._brains["cortex"]

    def planted(
        self, layout: str, ceiling: float, seed: int, change: bool = False
    ) -> tuple[FitData, Planted]:
        """A planted wiring and its responses; with `change`, V4 reads one layer later."""
        brain, tokens = self.cortex(), self.scenes("mini_clip")
        wiring = plant(tokens, brain, seed, layout)
        if change:
            moved = plant(tokens, later(brain), seed, layout)
            region = next(roi for roi in brain.rois if roi.name == CHANGED)
            layer, signal = wiring.layer.copy(), wiring.signal.copy()
            layer[region.voxels] = moved.layer[region.voxels]
            signal[:, region.voxels] = moved.signal[:, region.voxels]
            wiring = replace(wiring, layer=layer, signal=signal)
        noise = np.random.default_rng((seed, 1)).standard_normal(wiring.signal.shape, dtype=np.float32)
        responses = np.sqrt(ceiling) * wiring.signal + np.sqrt(1 - ceiling) * noise
        split = Split(np.arange(self.n_train), np.arange(self.n_train, self.n_train + N_HELD_OUT))
        return FitData(tokens, responses, brain.coords, brain.bounding_box, split), wiring

    def subject(self, backbone: str) -> FitData:
        """The simulated subject of the demo."""
        if backbone not in self._brains:
            brain = load_brain(self.config(backbone).brain)
            self._brains[backbone] = brain
            self._tokens[f"subject {backbone}"] = self._store(backbone, brain.stimuli, self.n_train)
        brain = self._brains[backbone]
        split = Split(np.arange(self.n_train), np.arange(self.n_train, len(brain.stimuli)))
        tokens = self._tokens[f"subject {backbone}"]
        return FitData(tokens, brain.responses, brain.coords, brain.bounding_box, split)


def later(brain: Brain) -> Brain:
    """The brain with V4 one step of the layout higher: its rank gives its layer in the hierarchy."""
    highest = max(roi.rank for roi in brain.rois)
    step = (highest - 1) / 7  # of 8 layers
    rois = [replace(roi, rank=roi.rank + step) if roi.name == CHANGED else roi for roi in brain.rois]
    return replace(brain, rois=tuple(rois))


def fit(bench: Bench, data: FitData, backbone: str, variant: str, seed: int, bootstrap: bool) -> Any:
    """One fit, and the processor seconds that it took."""
    config = bench.config(backbone, **VARIANTS[variant])
    start = time.process_time()
    mapping = fit_mapping(data, config.mapping, seed=seed, bootstrap=bootstrap)
    return mapping, time.process_time() - start


def measure_planted(bench: Bench, variant: str, layout: str, ceiling: float, seed: int) -> dict[str, float]:
    """Compare a fit's selectors with the planted ones."""
    data, wiring = bench.planted(layout, ceiling, seed)
    mapping, seconds = fit(bench, data, "mini_clip", variant, seed, bootstrap=False)
    right = mapping.layer.argmax(axis=1) == wiring.layer
    apart = np.linalg.norm(mapping.space - wiring.space, axis=1)
    return {
        "right": float(right.mean()),
        "right_off_borders": float(right[~wiring.near_border].mean()),
        "share_of_true_layer": float(mapping.layer[np.arange(len(right)), wiring.layer].mean()),
        "tokens_apart": float(np.median(apart) * data.tokens.local[0].shape[3] / 2),
        "r2": float(mapping.r2.mean()),
        "seconds": seconds,
    }


def measure_subject(bench: Bench, variant: str, backbone: str, seed: int) -> dict[str, float]:
    """Held-out R² on the simulated subject."""
    mapping, seconds = fit(bench, bench.subject(backbone), backbone, variant, seed, bootstrap=False)
    confidence = 1 + (mapping.layer * np.log(mapping.layer.clip(1e-12))).sum(axis=1) / np.log(8)
    return {"r2": float(mapping.r2.mean()), "confidence": float(confidence.mean()), "seconds": seconds}


def measure_change(bench: Bench, variant: str, ceiling: float, seed: int) -> dict[str, float]:
    """Two refits before and two after a shift of V4 by one layer: distances and expected depths."""
    region = next(roi for roi in bench.cortex().rois if roi.name == CHANGED).voxels
    fits: list[list[Mapping]] = []
    for change in (False, True):
        data, wiring = bench.planted("hierarchy", ceiling, seed, change)
        numbers = [100 * seed + 10 * change + number for number in range(2)]
        fits.append([fit(bench, data, "mini_clip", variant, number, True)[0] for number in numbers])
        if change:
            after = wiring
        else:
            before = wiring
    between = _mean_distance(list(product(*fits)))
    within = _mean_distance([tuple(pair) for pair in fits])
    depth = np.arange(8) / 7
    shift = np.mean([m.layer @ depth for m in fits[1]], 0) - np.mean([m.layer @ depth for m in fits[0]], 0)
    elsewhere = np.ones(len(shift), dtype=bool)
    elsewhere[region] = False
    return {
        "true_shift": float((after.layer - before.layer)[region].mean() / 7),
        "found_shift": float(shift[region].mean()),
        "shift_elsewhere": float(shift[elsewhere].mean()),
        "floor": float(within.mean()),
        "excess": float((between - within)[region].mean()),
        "excess_elsewhere": float((between - within)[elsewhere].mean()),
    }


def _mean_distance(pairs: list[tuple[Mapping, ...]]) -> np.ndarray:
    return np.mean([rewiring_measures(one, other)["wasserstein"] for one, other in pairs], axis=0)


def list_cells(arguments: argparse.Namespace) -> list[tuple[str, dict[str, Any]]]:
    """All cells, so that a stopped run has one of every kind first."""
    cells = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for layout, variant in product(("hierarchy", "areas"), arguments.variants):
            cells.append(("planted", {"variant": variant, "layout": layout, "ceiling": 0.5, "seed": seed}))
        for backbone, variant in product(("mini_clip", "mini_supervised"), arguments.variants):
            cells.append(("subject", {"variant": variant, "backbone": backbone, "seed": seed}))
        for variant in arguments.variants:
            cells.append(("change", {"variant": variant, "ceiling": 0.6, "seed": seed}))
    return [cell for cell in cells if cell[0] in arguments.kinds]


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all cells that are not in `--work` yet."""
    arguments.work.mkdir(parents=True, exist_ok=True)
    path = arguments.work / "cells.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    bench = Bench(arguments.work, arguments.voxels, arguments.train)
    measures = {"planted": measure_planted, "subject": measure_subject, "change": measure_change}
    for kind, cell in list_cells(arguments):
        key = {"kind": kind, "voxels": arguments.voxels, "train": arguments.train, **cell}
        if any(key.items() <= row.items() for row in rows):
            continue
        rows.append(key | measures[kind](bench, **cell))
        print(json.dumps(rows[-1]), flush=True)
        with path.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    return rows


def name_case(row: dict[str, Any]) -> tuple[Any, ...]:
    """What replicates have in common."""
    case = row.get("layout") or row.get("backbone") or CHANGED
    return row["kind"], row["voxels"], row["train"], case, row["variant"]


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Layers right, R² and found shift, one mark per cell, by variant."""
    panels = (
        ("planted", "right", "layers right"),
        ("planted", "r2", "R², planted"),
        ("subject", "r2", "R², simulated subject"),
        ("change", "found_shift", "shift found in V4 (true: dashed)"),
    )
    variants = [name for name in VARIANTS if any(row["variant"] == name for row in rows)]
    with figure_style():
        figure = Figure(figsize=(11, 2.6), layout="constrained")
        for axes, (kind, name, title) in zip(figure.subplots(1, 4, sharey=True), panels, strict=True):
            chosen = [row for row in rows if row["kind"] == kind]
            axes.plot([row[name] for row in chosen], [variants.index(row["variant"]) for row in chosen], "o")
            if kind == "change" and chosen:
                axes.axvline(np.mean([row["true_shift"] for row in chosen]), linestyle="--", color="0.5")
            axes.set_xlabel(title)
            axes.set_yticks(range(len(variants)), variants)
    return figure


def main() -> None:
    """Measure, print each cell when it is done, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--voxels", type=int, default=300)
    parser.add_argument("--train", type=int, default=640, help="training stimuli")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=3, help="the design was chosen on 1 and 2")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    kinds = ("planted", "subject", "change")
    parser.add_argument("--kinds", nargs="+", default=kinds, choices=kinds)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/anchored_layers"), help="folder of checkpoints"
    )
    parser.add_argument("--output", type=Path, help="path without suffix; writes a .json and a .png")
    arguments = parser.parse_args()
    rows = measure(arguments)
    print(tabulate_means(rows, name_case, KEYS))
    if arguments.output:
        figures = {"machine": describe_machine(), "steps": 100, "rows": rows}
        write_figures(figures, arguments.output.with_suffix(".json"))
        draw(rows).savefig(arguments.output.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
