"""Validation of the simulated subject, and how much of its wiring FactorTopy recovers.

    OMP_NUM_THREADS=2 python benchmarks/simulated_subject.py --output benchmarks/results/simulated_subject

Noise ceilings are estimated from the three repeats, as for measured data, and compared with the true ones.
FactorTopy is fitted to the responses, using tokens of trained and untrained mini backbones. The places it
reads are compared with the receptive fields of V1 to V3, and the depths with the hierarchy. The same is done,
with one fit per backbone, for a subject that sees the same pictures as files, without knowing their contents.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from earlier_recipe import DESCENT_ALONE
from machine import describe_machine, write_figures
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from scipy.stats import spearmanr

from harness.backbones.load import load_backbone
from harness.brains.brain import Brain
from harness.brains.ceilings import estimate_ceiling
from harness.brains.load import (
    load_brain,
    load_truth,
)
from harness.brains.repeats import (
    average_sessions,
    plan_rows,
)
from harness.brains.simulated.truth import SimulatedTruth
from harness.config.compose import load_config
from harness.mappings.data import FitData
from harness.mappings.fit import fit_mapping
from harness.mappings.mapping import Mapping
from harness.mappings.splits import split_stimuli
from harness.measures.alignment import (
    hierarchy_alignment,
    voxel_ranks,
)
from harness.measures.rewiring import expected_depth
from harness.plot.style import (
    FAINT,
    INK,
    WIDTH,
    choose_colours,
    figure_style,
    save_png,
)
from harness.tokens.store import store_tokens

BACKBONES = {"mini_clip": True, "mini_supervised": True, "mini_random": False}
"""Mini backbones, and whether each is pretrained."""
EARLY = ("V1", "V2", "V3")
# the stem of the mini backbones (three 3 × 3 convolutions, stride 2, padding 1) centres token k on pixel 8 k
# of 64; a mapping assumes the middle of its cell, 3.5 pixels further. In half widths of the image
STEM = 3.5 / 32
SUBJECTS = ("scenes", "images")
"""Scenes with known contents, and the same scenes as a folder of images."""
SHOWN = (100, 300, 1000)  # numbers of stimuli to estimate ceilings from, besides all


def estimate(truth: SimulatedTruth, n_images: int) -> np.ndarray:
    """Estimate noise ceilings from the repeats of the first stimuli, one session per repeat."""
    order = np.arange(n_images)
    numbers = range(1, len(truth.repeats) + 1)
    rows = plan_rows([order] * len(numbers), numbers, "stimulus")
    sessions = ((f"repeat {k}", truth.repeats[k - 1, :n_images].copy()) for k in numbers)
    averaged = average_sessions(sessions, rows, truth.repeats.shape[2], standardise=False)
    ceiling = estimate_ceiling(averaged, rows, "simulated")
    assert ceiling is not None and averaged.usable.all()
    return ceiling


def compare_ceilings(truth: SimulatedTruth, estimated: np.ndarray) -> dict[str, float]:
    """Compare estimated with true ceilings: their difference, and their correlation over voxels."""
    apart = estimated - truth.noise_ceiling
    return {
        "correlation": float(np.corrcoef(estimated, truth.noise_ceiling)[0, 1]),
        "bias": float(apart.mean()),
        "sd": float(apart.std()),
    }


def compare_places(mapping: Mapping, brain: Brain, truth: SimulatedTruth, token: float) -> dict[str, Any]:
    """Compare the places voxels read with their receptive fields, per area and over V1 to V3.

    Each hemisphere sees its own half of the field, which alone causes a correlation. So x and y are also
    correlated within hemispheres (mean of both). Errors are distances in half widths of the image, with
    tokens placed where the stem centres them; in `raw_error`, where the mapping places them.
    """
    assert mapping.space is not None
    found = {}
    for name, areas in [*((area, [area]) for area in EARLY), ("V1 to V3", EARLY)]:
        chosen = np.isin(truth.region, areas)
        read, true = mapping.space[chosen] - STEM, truth.place[chosen]
        sides = [brain.hemisphere[chosen] == side for side in ("L", "R")]
        apart = np.linalg.norm(read - true, axis=1)
        found[name] = {"median_error": float(np.median(apart)), "in_tokens": float(np.median(apart) / token)}
        found[name]["raw_error"] = float(np.median(np.linalg.norm(read + STEM - true, axis=1)))
        found[name]["error_of_the_centre"] = float(np.median(np.linalg.norm(true, axis=1)))
        for axis, letter in enumerate("xy"):
            pairs = [(read[part, axis], true[part, axis]) for part in (np.full(len(read), True), *sides)]
            whole, *halves = (float(np.corrcoef(*pair)[0, 1]) for pair in pairs)
            found[name] |= {letter: whole, f"{letter}_within_hemispheres": float(np.mean(halves))}
            found[name][f"{letter}_slope"] = float(np.polyfit(true[:, axis], read[:, axis], 1)[0])
    return found


def compare_depths(mapping: Mapping, brain: Brain) -> dict[str, Any]:
    """Return depth per area, and the correlation of depth and hierarchy over voxels and over areas."""
    depth = expected_depth(mapping.layer)
    aligned = hierarchy_alignment(depth, voxel_ranks(brain.rois, brain.n_voxels))
    areas = {roi.name: float(depth[roi.voxels].mean()) for roi in brain.rois}
    over_areas = spearmanr([roi.rank for roi in brain.rois], list(areas.values())).statistic
    return {
        "hierarchy": aligned.hierarchy,
        "slope": aligned.slope,
        "hierarchy_of_areas": float(over_areas),
        "depth": areas,
        "r2": {roi.name: float(mapping.r2[roi.voxels].mean()) for roi in brain.rois},
    }


def simulate(arguments: argparse.Namespace, folder: Path) -> dict[str, tuple[Brain, SimulatedTruth]]:
    """Simulate both subjects; they differ only in what is known about their pictures."""
    overrides = [f"brain.n_voxels={arguments.voxels}", f"brain.n_stimuli={arguments.stimuli}"]
    config = load_config(overrides).brain
    subjects = {"scenes": (load_brain(config), load_truth(config))}
    pictures = folder / "pictures"
    pictures.mkdir()
    for row, image in enumerate(subjects["scenes"][0].stimuli):
        image.save(pictures / f"{row}.png")
    config = load_config([*overrides, f"brain.stimuli={pictures}"]).brain
    return subjects | {"images": (load_brain(config), load_truth(config))}


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the results to write, and values of single voxels to draw."""
    with tempfile.TemporaryDirectory() as folder:
        subjects = simulate(arguments, Path(folder))
        stimuli = subjects["scenes"][0].stimuli
        truth = subjects["scenes"][1]
        shown = sorted({*(n for n in SHOWN if n < arguments.stimuli), arguments.stimuli})
        estimates = {n: estimate(truth, n) for n in shown}
        ceilings = [{"stimuli": n, **compare_ceilings(truth, found)} for n, found in estimates.items()]
        rows: list[dict[str, Any]] = []
        places: dict[str, np.ndarray] = {}
        for name in BACKBONES:
            chosen = [f"backbone={name}", "mapping.anchor=none", *DESCENT_ALONE]
            chosen.append(f"mapping.steps={arguments.steps}")
            config = load_config(chosen)
            settings = config.mapping.model_copy(update={"regularization_steps": arguments.steps // 2})
            split = split_stimuli(len(stimuli), config.mapping.held_out, config.seed)
            tokens = store_tokens(
                load_backbone(config.backbone), stimuli, split.train, config.mapping, 128, "cpu",
                Path(folder), f"tokens of {name}",
            )  # fmt: skip
            for subject, (brain, truth) in subjects.items():
                for seed in range(arguments.seeds if subject == "scenes" else 1):
                    start = time.perf_counter()
                    data = FitData(tokens, brain.responses, brain.coords, brain.bounding_box, split)
                    label = f"{name}, {subject}, seed {seed}"
                    mapping = fit_mapping(data, settings, seed=seed, progress=label)
                    found = {
                        **compare_depths(mapping, brain),
                        "places": compare_places(mapping, brain, truth, 2 / config.mapping.token_size),
                        "seconds": time.perf_counter() - start,
                    }
                    rows.append({"backbone": name, "subject": subject, "seed": seed, **found})
                    print(json.dumps(rows[-1]), flush=True)
                    if (subject, seed) == ("scenes", 0):
                        places[name] = mapping.space - STEM
    figures = {
        "sizes": {name: getattr(arguments, name) for name in ("voxels", "stimuli", "steps", "seeds")},
        "machine": describe_machine(),
        "ceilings": ceilings,
        "rows": rows,
    }
    return figures, {"truth": subjects["scenes"][1], "ceilings": estimates, "places": places}


def draw(figures: dict[str, Any], voxels: dict[str, Any]) -> Figure:
    """Draw ceilings, places, depths and their alignment with the hierarchy."""
    colours = choose_colours(BACKBONES)
    rows, truth = figures["rows"], voxels["truth"]
    with figure_style():
        figure = Figure(figsize=(WIDTH, 12.4), layout="constrained")
        top, middle, bottom = figure.subfigures(3, 1, height_ratios=(3.2, 6.0, 3.2))
        left, centre, right = top.subplots(1, 3)
        _draw_ceilings(left, truth, voxels["ceilings"])
        _draw_ceiling_errors(centre, figures["ceilings"])
        _draw_place_errors(right, rows, colours)
        grid = middle.subplots(2, len(BACKBONES), sharex=True, sharey=True)
        for column, name in enumerate(BACKBONES):
            found = [row["places"]["V1 to V3"] for row in rows if _is(row, name, "scenes")]
            for axis, axes in enumerate(grid[:, column]):
                _draw_places(axes, truth, voxels["places"][name], axis, found)
            grid[0, column].set_title(f"{'def'[column]}  {name}: places read by V1 to V3")
            grid[1, column].set_xlabel("receptive-field centre, half widths")
        grid[0, 0].set_ylabel("x of the place read")
        grid[1, 0].set_ylabel("y of the place read")
        grid[0, 0].legend(loc="lower right", handletextpad=0, markerscale=3)
        one, other, last = bottom.subplots(1, 3, width_ratios=(1.25, 1.25, 1))
        _draw_depths(one, rows, "scenes", colours)
        _draw_depths(other, rows, "images", colours)
        other.sharey(one)
        one.set_ylabel("mean depth read")
        one.legend(loc="upper left")
        one.set_title("g  Depth by area: scenes")
        other.set_title("h  Depth by area: folder")
        _draw_alignment(last, rows, colours)
    return figure


def _is(row: dict[str, Any], backbone: str, subject: str) -> bool:
    return bool(row["backbone"] == backbone and row["subject"] == subject)


def _draw_diagonal(axes: Axes, low: float, high: float) -> None:
    axes.plot([low, high], [low, high], color=INK, linewidth=0.8, zorder=3)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.grid(axis="both")


def _draw_ceilings(axes: Axes, truth: SimulatedTruth, estimates: dict[int, np.ndarray]) -> None:
    fewest, most = min(estimates), max(estimates)
    for n, colour, size in ((fewest, "0.75", 3), (most, "C0", 4)):
        label = f"{n:,} stimuli"
        axes.scatter(truth.noise_ceiling, estimates[n], size, color=colour, linewidths=0, label=label)
    _draw_diagonal(axes, 0, 1)
    axes.set(xlabel="true noise ceiling", ylabel="estimate from three repeats")
    axes.legend(loc="upper left", handletextpad=0, markerscale=3)
    axes.set_title("a  Noise ceilings of voxels")


def _draw_ceiling_errors(axes: Axes, ceilings: list[dict[str, float]]) -> None:
    n = [row["stimuli"] for row in ceilings]
    bias, sd = (np.array([row[name] for row in ceilings]) for name in ("bias", "sd"))
    axes.errorbar(n, bias, sd, marker="o", capsize=3, color="C0", linewidth=1.2)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set(xscale="log", xlabel="stimuli", ylabel="estimated − true (mean, sd over voxels)")
    axes.set_xticks(n, [f"{value:,}" for value in n])
    axes.set_xticks([], minor=True)
    axes.set_title("b  Error of the estimate")


def _draw_place_errors(axes: Axes, rows: list[dict[str, Any]], colours: dict[str, str]) -> None:
    for place, area in enumerate(EARLY):
        for aside, name in zip((-0.2, 0, 0.2), BACKBONES, strict=True):
            for kind, face in (("raw_error", "white"), ("median_error", colours[name])):
                found = [row["places"][area][kind] for row in rows if _is(row, name, "scenes")]
                label = name if place == 0 and kind == "median_error" else None
                axes.plot(
                    [place + aside] * len(found), found, "o",
                    color=colours[name], markerfacecolor=face, markersize=4, label=label,
                )  # fmt: skip
        centre = rows[0]["places"][area]["error_of_the_centre"]
        axes.plot([place - 0.35, place + 0.35], [centre] * 2, color=INK, linewidth=1)
        if place == 0:
            axes.annotate(
                "centre of the image", (-0.35, centre), (0, -3), textcoords="offset points", va="top"
            )
    axes.set_xticks(range(len(EARLY)), EARLY)
    token = rows[0]["places"]["V1"]["median_error"] / rows[0]["places"]["V1"]["in_tokens"]
    axes.axhline(token, color=FAINT, linestyle=":", linewidth=1)
    axes.annotate("token width", (2.45, token), (0, 2), textcoords="offset points", ha="right")
    axes.set(ylim=(0, 0.6), xlim=(-0.5, 2.5), ylabel="median distance, half widths")
    axes.plot([], [], "o", color=INK, markerfacecolor="white", markersize=4, label="no stem correction")
    axes.legend(loc="upper right")
    axes.set_title("c  Distance to the true place")


def _draw_places(
    axes: Axes, truth: SimulatedTruth, space: np.ndarray, axis: int, found: list[dict[str, float]]
) -> None:
    for area, colour in zip(EARLY, ("#1b4f72", "#2e9e87", "#e0a030"), strict=True):
        there = truth.region == area
        axes.scatter(
            truth.place[there, axis],
            space[there, axis],
            4,
            color=colour,
            linewidths=0,
            alpha=0.75,
            label=area,
        )
    _draw_diagonal(axes, -1, 1)
    axes.set(xticks=np.linspace(-1, 1, 5), yticks=np.linspace(-1, 1, 5))
    letter = "xy"[axis]
    whole, within, slope, error = (
        np.mean([row[name] for row in found])
        for name in (letter, f"{letter}_within_hemispheres", f"{letter}_slope", "median_error")
    )
    # each hemisphere sees half of the field, which alone causes a correlation
    text = f"{letter}: r {whole:.2f} ({within:.2f} within hemispheres)\nslope {slope:.2f}"
    if axis == 1:
        text += f"; median error {error:.2f}"
    axes.text(0.03, 0.97, text, transform=axes.transAxes, va="top", fontsize=7.5, color=FAINT)


def _draw_depths(axes: Axes, rows: list[dict[str, Any]], subject: str, colours: dict[str, str]) -> None:
    areas = list(rows[0]["depth"])
    for name in BACKBONES:
        depth = np.array([list(row["depth"].values()) for row in rows if _is(row, name, subject)])
        axes.plot(depth.mean(axis=0), color=colours[name], label=name)
        for one in depth:
            axes.plot(one, ".", color=colours[name], markersize=4)
    axes.set_xticks(range(len(areas)), areas)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel("area, in hierarchical order")


def _draw_alignment(axes: Axes, rows: list[dict[str, Any]], colours: dict[str, str]) -> None:
    for row in rows:
        colour = colours[row["backbone"]]
        face = colour if row["subject"] == "scenes" else "white"
        axes.plot(
            row["hierarchy"], row["slope"], "o", color=colour, markerfacecolor=face, markersize=4.5, zorder=3
        )
    for label, face in (("scenes", INK), ("folder", "white")):
        axes.plot([], [], "o", color=INK, markerfacecolor=face, markersize=4.5, label=label)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set(xlim=(-1, 1), xlabel="Spearman (rank, depth)", ylabel="slope: first to last rank")
    axes.yaxis.set_major_locator(MultipleLocator(0.05))
    axes.grid(axis="both")
    axes.legend(loc="upper left")
    axes.set_title("i  Alignment, one point per fit")


def main() -> None:
    """Measure, print each fit when it is done, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--voxels", type=int, default=2000)
    parser.add_argument("--stimuli", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="path without suffix; writes a .json and a .png")
    arguments = parser.parse_args()
    figures, voxels = measure(arguments)
    if arguments.output:
        write_figures(figures, arguments.output.with_suffix(".json"))
        save_png(draw(figures, voxels), arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
