"""How often a random smooth map is called hierarchical, and how often a hierarchical one is found.

    OMP_NUM_THREADS=1 python benchmarks/alignment_level.py --output benchmarks/results/alignment_level_2cores

Maps of expected depth are drawn on the cortex of the simulated subject. Null maps are random fields without
any regard to regions: white noise smoothed by a Gaussian (sd 10, 20 or 30 mm), by an exponential (20 mm), or
by a Gaussian with as much independent noise per voxel added. Planted maps add the regions' ranks, with a
standard deviation over voxels of half, once or twice that of the field. Every map is tested by
`AlignmentTest`, as a run tests its snapshots, and by Spearman's own p over voxels. Finished conditions are
kept in FILE.jsonl and skipped when the script starts again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, write_figures
from matplotlib.figure import Figure
from scipy.spatial.distance import cdist
from scipy.stats import binomtest, spearmanr
from tqdm import tqdm

from harness.brains.brain import Brain
from harness.brains.cortex import load_cortex
from harness.brains.load import load_brain
from harness.config.compose import load_config
from harness.measures.alignment import voxel_ranks
from harness.measures.alignment_tests import AlignmentTest
from harness.plot.style import INK, WIDTH, figure_style, save_png

NULLS = (("gaussian", 10), ("gaussian", 20), ("gaussian", 30), ("exponential", 20), ("gaussian + noise", 20))
PLANTED = tuple((width, strength) for width in (10, 20) for strength in (0.5, 1.0, 2.0))
TESTS = {
    "voxels": "Spearman, voxels",
    "p_permutation": "ROI permutation",
    "p_moran": "Moran",
    "p_smooth": "smooth process",
    "p": "ρ: the larger of both",
    "slope_p": "slope, likewise",
}
"""Tests with their names in tables; the last two are those that are reported."""

LEVEL = 0.05
SURROGATES = 199
"""Of a test; runs use more, which makes p finer but leaves the level."""


def draw_maps(brain: Brain, kind: str, width: float, n_maps: int, seed: int) -> np.ndarray:
    """Draw random maps [n_voxels, n_maps] of variance 1 on the cortex."""
    rng = np.random.default_rng(seed)
    cortex = load_cortex()
    sources = cortex.sphere[cortex.region >= 0]
    distance = cdist(brain.coords, sources)
    scaled = distance / width
    kernel = np.exp(-scaled if kind == "exponential" else -(scaled**2) / 2)
    kernel /= np.linalg.norm(kernel, axis=1, keepdims=True)
    maps = kernel @ rng.standard_normal((len(sources), n_maps))
    if kind.endswith("noise"):
        maps = (maps + rng.standard_normal(maps.shape)) / np.sqrt(2)
    return maps


def list_conditions(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """List what is measured, the most important first."""
    nulls = [
        {"voxels": voxels, "kind": kind, "width": width, "strength": 0.0, "maps": arguments.maps}
        for index, (kind, width) in enumerate(NULLS)
        for voxels in (arguments.voxels if index < 2 else arguments.voxels[:1])
    ]
    planted = [
        {
            "voxels": voxels,
            "kind": "gaussian",
            "width": width,
            "strength": strength,
            "maps": arguments.planted,
        }
        for width, strength in PLANTED
        for voxels in arguments.voxels[:1]
    ]
    n_main = 2 * len(arguments.voxels)
    return nulls[:n_main] + planted + nulls[n_main:]


def measure(condition: dict[str, Any]) -> dict[str, Any]:
    """Share of the maps of a condition that each test calls hierarchical, with a 95 % interval (exact)."""
    brain = load_brain(load_config([f"brain.n_voxels={condition['voxels']}", "brain.n_stimuli=20"]).brain)
    ranks = voxel_ranks(brain.rois, brain.n_voxels)
    seed = [
        condition["voxels"],
        condition["width"],
        round(10 * condition["strength"]),
        len(condition["kind"]),
    ]
    maps = draw_maps(brain, condition["kind"], condition["width"], condition["maps"], seed)
    maps += condition["strength"] * ((ranks - ranks.mean()) / ranks.std())[:, None]
    test = AlignmentTest(brain.rois, brain.coords, brain.hemisphere, np.ones(brain.n_voxels, dtype=bool))
    found: dict[str, list[float]] = {name: [] for name in TESTS}
    label = " ".join(str(value) for value in condition.values())
    for index, depth in enumerate(tqdm(maps.T, desc=label, leave=False, disable=None)):
        tested = test.test(depth, index, SURROGATES, SURROGATES)
        assert tested is not None
        for name in TESTS:
            own = float(spearmanr(ranks, depth).pvalue) if name == "voxels" else getattr(tested, name)
            found[name].append(own)
    return condition | {"called": {name: count_called(p) for name, p in found.items()}}


def count_called(p: Sequence[float]) -> dict[str, float]:
    """Share of p values up to `LEVEL`, with its interval."""
    called = int((np.array(p) <= LEVEL).sum())
    low, high = binomtest(called, len(p)).proportion_ci()
    return {"share": called / len(p), "low": float(low), "high": float(high)}


def write_table(rows: Sequence[dict[str, Any]]) -> str:
    """Write a table in Markdown."""
    head = ["map", "voxels", "maps", *TESTS.values()]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for row in rows:
        cells = [name_map(row), f"{row['voxels']:,}", f"{row['maps']:,}"]
        for test in TESTS:
            called = row["called"][test]
            ends = f"{100 * called['low']:.0f}–{100 * called['high']:.0f}"
            cells.append(f"{100 * called['share']:.1f} ({ends})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def name_map(row: dict[str, Any]) -> str:
    """Name the maps of a row."""
    text = f"{row['kind']}, {row['width']} mm"
    return f"hierarchy of {row['strength']:g} sd + {text}" if row["strength"] else text


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw the share of maps called hierarchical: null maps beside planted ones."""
    colours = dict(
        zip(TESTS, ("#b5b5b5", "#de8f05", "#56b4e9", "#029e73", "#0173b2", "#222222"), strict=True)
    )
    parts = [
        ("Random maps: called hierarchical", [row for row in rows if not row["strength"]]),
        ("Hierarchical maps: found", [row for row in rows if row["strength"]]),
    ]
    with figure_style():
        figure = Figure(
            figsize=(WIDTH, 0.9 + 0.36 * max(len(part) for _, part in parts)), layout="constrained"
        )
        for ax, (title, part) in zip(figure.subplots(1, 2), parts, strict=True):
            for height, row in enumerate(part[::-1]):
                for offset, test in zip(np.linspace(0.26, -0.26, len(TESTS)), TESTS, strict=True):
                    called = row["called"][test]
                    ends = [100 * called["low"], 100 * called["high"]]
                    ax.plot(ends, [height + offset] * 2, color=colours[test], linewidth=1.2, alpha=0.6)
                    ax.plot(100 * called["share"], height + offset, "o", color=colours[test], markersize=4)
            names = [f"{name_map(row)}\n{row['voxels']:,} voxels" for row in part[::-1]]
            ax.set_yticks(range(len(part)), names, fontsize=7)
            ax.grid(axis="x")
            ax.grid(visible=False, axis="y")
            ax.axvline(100 * LEVEL, color=INK, linewidth=0.8, linestyle=":")
            ax.set(title=title, xlim=(-1, 101), xlabel="maps with p ≤ .05, %")
        handles = [ax.plot([], [], "o-", color=colours[test], label=name)[0] for test, name in TESTS.items()]
        figure.legend(handles=handles, loc="outside upper left", ncols=len(TESTS))
    return figure


def main() -> None:
    """Measure every condition, and write table, figures and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--voxels", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--maps", type=int, default=600, help="null maps of a condition")
    parser.add_argument("--planted", type=int, default=200, help="planted maps of a condition")
    parser.add_argument("--output", type=Path, required=True, help="without ending")
    arguments = parser.parse_args()
    kept = arguments.output.with_suffix(".jsonl")
    kept.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    for condition in list_conditions(arguments):
        if not any(row.items() >= condition.items() for row in rows):
            rows.append(measure(condition))
            with kept.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(write_table(rows[-1:]).splitlines()[-1], flush=True)
    write_figures({"machine": describe_machine(), "rows": rows}, arguments.output.with_suffix(".json"))
    save_png(draw(rows), arguments.output.with_suffix(".png"))
    print(write_table(rows))


if __name__ == "__main__":
    main()
