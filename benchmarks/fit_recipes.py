"""What a fit is worth against its time: recipes for FactorTopy, and ridge regressions, on the same data.

    OMP_NUM_THREADS=1 python benchmarks/fit_recipes.py --work WORK --output benchmarks/results/fit_recipes

Tokens come from mini_clip; seconds are those of one processor, without the extraction of tokens. Cells:

- subject: held-out R² on the demo's simulated subject, whose areas read no network;
- planted: wiring planted by `recovery.py` at a ceiling of .5: R², layers right, places;
- refits: planted wiring fitted to bootstrap samples of the same stimuli, and to fresh stimuli and noise.
  If a recipe makes refits falsely alike, bootstrap samples differ less than fresh data do.

Recipes:

- published: batches of 8, rate 1e-3, 2,000 steps, scored on the way (Yang, Gee and Shi, CVPR 2024);
- descent: ours without closed forms for places and weights, each number of steps a fit of its own;
- closed forms: ours, as `mapping=factortopy` is now;
- ridge, all layers: one ridge regression per voxel on the mean and global tokens of all layers together
  (himalaya's KernelRidgeCV);
- banded ridge: the same features, a penalty per layer and voxel (himalaya's GroupRidgeCV, random search).

Finished cells are kept in `--work`, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from anchored_layers import Bench, Planted
from earlier_recipe import DESCENT_ALONE
from himalaya.kernel_ridge import KernelRidgeCV
from himalaya.ridge import GroupRidgeCV
from himalaya.scoring import r2_score
from machine import describe_machine, write_figures
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from means import tabulate_means

from harness.config.compose import load_config
from harness.config.mapping import FactorTopyConfig
from harness.mappings.data import FitData
from harness.mappings.factortopy.fit import mapping_of
from harness.mappings.factortopy.model import FactorTopy
from harness.mappings.fit import fit_mapping
from harness.mappings.mapping import Mapping
from harness.mappings.splits import Split
from harness.mappings.training import FittedModel, score_model
from harness.measures.rewiring import rewiring_measures
from harness.plot.style import figure_style
from harness.tokens.frame import StandardTokens

BACKBONE = "mini_clip"
CEILING = 0.5
N_TRAIN = 640
PUBLISHED = {"batch_size": 8, "lr": 1e-3, "regularization": 0.1, "steps": 2000}
SCORED = (100, 200, 400, 600, 1000, 1500, 2000)
STEPS = (20, 40, 60, 100, 200, 400)
REFIT_STEPS = 60
TRAINED = {"descent": [*DESCENT_ALONE], "closed forms": []}
RIDGES = ("ridge, all layers", "banded ridge")
PENALTIES = np.logspace(-1, 6, 15)  # features have variance 1
N_CANDIDATES = 20  # of the banded ridge's random search
COLOURS = {
    "published": "0.6",
    "descent": "C1",
    "closed forms": "C0",
    "ridge, all layers": "k",
    "banded ridge": "C2",
}
TICKS = (1, 3, 10, 30)  # seconds
KEYS = ("kind", "recipe", "steps", "seed")


def settings_of(recipe: str, steps: int) -> FactorTopyConfig:
    """Settings of a recipe for FactorTopy."""
    length = [f"mapping.steps={steps}", f"mapping.regularization_steps={max(steps // 2, 1)}"]
    config = load_config(["study=demo", *length, *TRAINED[recipe]]).mapping
    assert isinstance(config, FactorTopyConfig)
    return config


def fit_as_published(data: FitData, seed: int) -> Iterator[tuple[int, float, Mapping]]:
    """Fit by the published recipe; yield steps, processor seconds and the mapping at `SCORED` steps."""
    torch.manual_seed(seed)
    tokens = data.tokens
    assert isinstance(tokens, StandardTokens)
    widths = [layer.shape[1] for layer in tokens.global_]
    coords, box = (torch.as_tensor(each, dtype=torch.float32) for each in (data.coords, data.bounding_box))
    model = FactorTopy(coords, box, widths, settings_of("descent", 1).n_channels)
    targets = torch.from_numpy(np.asarray(data.responses))
    optimizer = torch.optim.AdamW(model.parameters(), lr=PUBLISHED["lr"], fused=True)
    order, seconds = np.random.default_rng(seed), 0.0
    for step in range(int(PUBLISHED["steps"])):
        start = time.process_time()
        batch = torch.from_numpy(order.choice(data.split.train, int(PUBLISHED["batch_size"]), replace=False))
        stimuli, selectors = tokens.take(batch), model.selectors()
        loss = F.smooth_l1_loss(model(stimuli.local, stimuli.global_, selectors), targets[batch], beta=0.1)
        decay = PUBLISHED["regularization"] * max(1 - step / PUBLISHED["steps"], 0)
        optimizer.zero_grad()
        (loss + decay * model.regularizer(selectors)).backward()
        optimizer.step()
        seconds += time.process_time() - start
        if step + 1 in SCORED:
            yield step + 1, seconds, _mapping_now(model, data)


@torch.no_grad()
def _mapping_now(model: FactorTopy, data: FitData) -> Mapping:
    scores = score_model(model, data.tokens, data, settings_of("descent", 1))
    return mapping_of(FittedModel(model, data.tokens, *scores, steps=0), data.tokens.layers, "factortopy")


def fit_ridge(recipe: str, data: FitData, seed: int) -> float:
    """Mean held-out R² of a ridge regression on the mean and global tokens of all layers."""
    parts = zip(data.tokens.local, data.tokens.global_, strict=True)
    layers = [torch.cat([local.float().mean((2, 3)), whole.float()], dim=1).numpy() for local, whole in parts]
    train, unseen = data.split.train, data.split.held_out
    layers = [(x - x[train].mean(0)) / np.maximum(x[train].std(0), 1e-6) for x in layers]
    responses = np.asarray(data.responses, dtype=np.float32)
    if recipe == "banded ridge":
        options = {"n_iter": N_CANDIDATES, "alphas": PENALTIES, "progress_bar": False}
        model = GroupRidgeCV("input", solver_params=options, cv=5, random_state=seed, fit_intercept=True)
        fitted = model.fit([x[train] for x in layers], responses[train])
        prediction = fitted.predict([x[unseen] for x in layers])
    else:
        features = np.hstack(layers).astype(np.float32)
        model = KernelRidgeCV(alphas=PENALTIES, cv=5)
        mean = responses[train].mean(axis=0)
        prediction = model.fit(features[train], responses[train] - mean).predict(features[unseen]) + mean
    return float(r2_score(responses[unseen], prediction).mean())


def describe(mapping: Mapping, data: FitData, wiring: Planted | None) -> dict[str, float]:
    """R² and, if the wiring is known, the share of layers that are right and how far places are off."""
    found = {"r2": float(mapping.r2.mean())}
    if wiring is not None:
        right = mapping.layer.argmax(axis=1) == wiring.layer
        apart = np.linalg.norm(mapping.space - wiring.space, axis=1)
        found |= {
            "right": float(right.mean()),
            "tokens_apart": float(np.median(apart) * data.tokens.local[0].shape[3] / 2),
        }
    return found


def measure_fit(data: FitData, wiring: Planted | None, recipe: str, seed: int) -> Iterator[dict[str, Any]]:
    """Fit by one recipe, at every number of steps."""
    if recipe == "published":
        for steps, seconds, mapping in fit_as_published(data, seed):
            yield {"steps": steps, "seconds": seconds, **describe(mapping, data, wiring)}
    elif recipe in RIDGES:
        start = time.process_time()
        r2 = fit_ridge(recipe, data, seed)
        yield {"steps": 0, "seconds": time.process_time() - start, "r2": r2}
    else:
        for steps in STEPS:
            start = time.process_time()
            mapping = fit_mapping(data, settings_of(recipe, steps), seed=seed)
            seconds = time.process_time() - start
            yield {"steps": steps, "seconds": seconds, **describe(mapping, data, wiring)}


def measure_refits(bench: Bench, recipe: str, seed: int) -> Iterator[dict[str, Any]]:
    """How far apart fits to bootstrap samples are, and fits to fresh stimuli with fresh noise."""
    config = settings_of(recipe, REFIT_STEPS)
    data, _ = bench.planted("hierarchy", CEILING, seed)
    # halves of the stimuli, so that two fits share none
    halves = np.array_split(data.split.train, 2)
    parts = [
        FitData(data.tokens, data.responses, data.coords, data.bounding_box, Split(half, data.split.held_out))
        for half in halves
    ]
    again = [fit_mapping(parts[0], config, seed=100 * seed + n, bootstrap=True) for n in range(3)]
    fresh = [fit_mapping(part, config, seed=100 * seed + n) for n, part in enumerate(parts)]
    row: dict[str, Any] = {"steps": REFIT_STEPS}
    for name, pairs in (("bootstrap", list(combinations(again, 2))), ("fresh", [tuple(fresh)])):
        for measure in ("wasserstein", "space_displacement", "scale_change"):
            values = [np.abs(rewiring_measures(*pair)[measure]).mean() for pair in pairs]
            row[f"{measure}, {name}"] = float(np.mean(values))
    yield row


def list_cells(seeds: int) -> list[tuple[str, str, int]]:
    """Kind, recipe and seed of all cells, so that a run that was stopped has some of every kind."""
    cells = []
    for seed in range(seeds):
        recipes = [*TRAINED, *RIDGES, "published"]
        cells += [(kind, recipe, seed) for kind, recipe in product(("subject", "planted"), recipes)]
        cells += [("refits", recipe, seed) for recipe in TRAINED]
    return cells


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all cells that are not in `--work` yet."""
    arguments.work.mkdir(parents=True, exist_ok=True)
    path = arguments.work / "cells.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    bench = Bench(arguments.work, arguments.voxels, N_TRAIN)
    for kind, recipe, seed in list_cells(arguments.seeds):
        key = {"kind": kind, "recipe": recipe, "seed": seed}
        if any(key.items() <= row.items() for row in rows):
            continue
        if kind == "refits":
            found = list(measure_refits(bench, recipe, seed))
        else:
            data, wiring = (
                (bench.subject(BACKBONE), None)
                if kind == "subject"
                else bench.planted("hierarchy", CEILING, seed)
            )
            found = list(measure_fit(data, wiring, recipe, seed))
        with path.open("a") as file:
            for row in found:
                rows.append(key | row)
                print(json.dumps(rows[-1]), flush=True)
                file.write(json.dumps(rows[-1]) + "\n")
    return rows


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw what is reached against seconds, a line per recipe and seed, and refits against fresh data."""
    panels = (
        ("subject", "r2", "R², simulated subject"),
        ("planted", "r2", f"R², planted (ceiling {CEILING})"),
        ("planted", "right", "layers right, planted"),
        ("planted", "tokens_apart", "place error, tokens"),
    )
    with figure_style():
        figure = Figure(figsize=(14, 3.5), layout="constrained")
        axes = figure.subplots(1, len(panels) + 1)
        for ax, (kind, name, title) in zip(axes, panels, strict=False):
            _draw_lines(ax, [row for row in rows if row["kind"] == kind and name in row], name)
            ax.set(xscale="log", xlabel="seconds of one processor", title=title)
            ax.set_xticks(TICKS, [str(tick) for tick in TICKS])
            ax.xaxis.set_minor_locator(NullLocator())
        lines, labels = axes[0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside lower center", ncols=len(labels))
        ax = axes[-1]
        for row in (row for row in rows if row["kind"] == "refits"):
            for measure, marker in (("wasserstein", "s"), ("space_displacement", "o")):
                values = row[f"{measure}, fresh"], row[f"{measure}, bootstrap"]
                ax.plot(*values, marker, color=COLOURS[row["recipe"]])
        highest = max(ax.get_xlim()[1], ax.get_ylim()[1])
        ax.plot([0, highest], [0, highest], color="0.8", zorder=0)
        ax.set(
            xlabel="distance, fresh data", ylabel="distance, bootstrap", title="refits: ■ layers, ● places"
        )
    return figure


def _draw_lines(ax: Axes, rows: list[dict[str, Any]], name: str) -> None:
    for recipe, colour in COLOURS.items():
        for seed in sorted({row["seed"] for row in rows}):
            chosen = [row for row in rows if (row["recipe"], row["seed"]) == (recipe, seed)]
            xs, ys = [row["seconds"] for row in chosen], [row[name] for row in chosen]
            ax.plot(
                xs,
                ys,
                color=colour,
                marker="D" if recipe in RIDGES else ".",
                label=recipe if seed == 0 else None,
            )


def main() -> None:
    """Measure, print the means over seeds, and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/fit_recipes"))
    parser.add_argument("--voxels", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--output", type=Path, help="path without suffix; writes a .json and a .png")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(arguments)
    print(tabulate_means(rows, lambda row: (row["kind"], row["recipe"], row["steps"]), KEYS))
    if arguments.output:
        sizes = {"backbone": BACKBONE, "voxels": arguments.voxels, "train": N_TRAIN, "ceiling": CEILING}
        figures = {"sizes": sizes, "machine": describe_machine(), "rows": rows}
        write_figures(figures, arguments.output.with_suffix(".json"))
        draw(rows).savefig(arguments.output.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
