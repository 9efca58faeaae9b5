"""How often could any test on the layers' errors find that one area moved? The verdict beside an oracle.

    OMP_NUM_THREADS=1 python benchmarks/verdict_bound.py run --work WORK --stimuli 320
    python benchmarks/verdict_bound.py report --work WORK --output benchmarks/results/verdict_bound.json

The oracle is told what the verdict must find out: which area moved, from which layer to which, and what the
noise alone would have done (the unmoved brain, read through eight other draws of the same noise). It compares
the lead of these two layers, paired over stimuli, and finds the shift if z is above the 95 % quantile of |z|
of unmoved brains read through one more draw. The verdict judges the same brains.

`run` appends one line per brain to WORK/bound.jsonl, and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from known_rewiring import Planted
from machine import describe_machine, write_figures
from rewiring_validity import CEILING, FIRST_SEED, Replicate
from scipy.stats import binomtest
from torch import Tensor
from validity_report import read_rows

from harness.measures.verdict_rows import VerdictKind

BACKBONES = ("mini_clip", "mini_supervised")
SHIFTS = {"V4 +1": 1, "small +2": 2}
NOISE = 1.0  # standard deviations, in every token
N_DRAWS = 8


def judge_brain(planted: Planted, seed: int) -> list[dict[str, Any]]:
    """Judge one brain by the verdict and by the oracle; return a row per shift and noise."""
    replicate = Replicate(planted.wired, planted, seed)
    judged = {
        condition: (verdicts, moved[0])
        for condition, verdicts, moved in replicate.conditions(["shift"])
        if moved and condition.removesuffix(f", tokens {NOISE:g} sd") in SHIFTS
    }
    features = planted.wired.pooled.features
    first, other, *others = [replicate._noisy(NOISE) for _ in range(2 + N_DRAWS)]
    rows = []
    for condition, (verdicts, place) in judged.items():
        shift = condition.partition(",")[0]
        noisy = condition != shift
        area = replicate.kept[place]
        moved_to = planted.shifted_layers([area], SHIFTS[shift])
        layers = int(planted.layer_of_area[area]), int(moved_to[area])
        responses = planted.wired.respond(replicate._noise, planted.shifted([area], SHIFTS[shift]))

        def lead(x: list[Tensor] | tuple[Tensor, ...], y: Tensor) -> Float[np.ndarray, " n_stimuli"]:
            loss = replicate._evidence(x, y).loss[:, place]  # noqa: B023
            return loss[:, layers[0]] - loss[:, layers[1]]  # noqa: B023

        if noisy:
            unmoved = np.mean([lead(draw, replicate.responses) for draw in others], axis=0)
        else:
            unmoved = lead(features, replicate.responses)
        rows.append(
            {
                "condition": condition,
                "verdict": int(verdicts[place].verdict),
                "z": _z(lead(first if noisy else features, responses) - unmoved),
                "z_unmoved": _z(lead(other, replicate.responses) - unmoved) if noisy else None,
            }
        )
    return rows


def _z(difference: Float[np.ndarray, " n_stimuli"]) -> float:
    return float(difference.mean() / (difference.std(ddof=1) / len(difference) ** 0.5))


def run(arguments: argparse.Namespace) -> None:
    """Judge all brains that the file lacks."""
    arguments.work.mkdir(parents=True, exist_ok=True)
    file = arguments.work / "bound.jsonl"
    done = {(row["backbone"], row["stimuli"], row["seed"]) for row in read_rows(file)}
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.replicates):
        for backbone in BACKBONES:
            key = {"backbone": backbone, "stimuli": arguments.stimuli, "seed": seed}
            if tuple(key.values()) in done:
                continue
            planted = Planted(arguments.work, backbone, seed, arguments.stimuli, arguments.voxels, CEILING)
            lines = [json.dumps({**key, **row}) + "\n" for row in judge_brain(planted, seed)]
            # all rows of a brain in one write: a killed run leaves whole brains
            with file.open("a", encoding="utf-8") as stream:
                stream.write("".join(lines))
            print(key, flush=True)


def count(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Count what both find, by stimuli, backbone and condition, with 95 % Clopper-Pearson intervals."""
    cells: dict[tuple[int, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["stimuli"], row["backbone"], row["condition"]), []).append(row)
    table = []
    for (stimuli, backbone, condition), found in cells.items():
        # without noise, two draws do not differ: those with noise set the threshold
        unmoved = [row["z_unmoved"] for row in cells.get((stimuli, backbone, _with_noise(condition)), found)]
        threshold = float(np.quantile(np.abs(unmoved), 0.95))
        entry = {"stimuli": stimuli, "backbone": backbone, "condition": condition, "brains": len(found)}
        entry["threshold"] = threshold
        for name, hits in (
            ("verdict", [row["verdict"] == VerdictKind.REWIRED for row in found]),
            ("oracle", [row["z"] > threshold for row in found]),
        ):
            interval = binomtest(sum(hits), len(hits)).proportion_ci()
            entry[name] = sum(hits) / len(hits)
            entry[f"{name}_interval"] = [interval.low, interval.high]
        table.append(entry)
    return table


def _with_noise(condition: str) -> str:
    return f"{condition.partition(',')[0]}, tokens {NOISE:g} sd"


def write_table(cells: list[dict[str, Any]]) -> str:
    """Write a Markdown table: percent found, with intervals in brackets."""
    lines = [
        "| stimuli | backbone | shift | brains | verdict | oracle |",
        "| ---: | --- | --- | ---: | ---: | ---: |",
    ]
    for cell in cells:
        shares = []
        for name in ("verdict", "oracle"):
            low, high = cell[f"{name}_interval"]
            shares.append(f"{100 * cell[name]:.0f} ({100 * low:.0f}–{100 * high:.0f})")
        lines.append(
            f"| {cell['stimuli']} | `{cell['backbone']}` | {cell['condition']} | {cell['brains']} | "
            + " | ".join(shares)
            + " |"
        )
    return "\n".join(lines)


def main() -> None:
    """Judge brains or report on them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--work", type=Path, required=True, help="folder of tokens and of bound.jsonl")
    parser.add_argument("--replicates", type=int, default=60)
    parser.add_argument("--stimuli", type=int, default=320)
    parser.add_argument("--voxels", type=int, default=600)
    parser.add_argument("--output", type=Path, help="a .json file")
    arguments = parser.parse_args()
    if arguments.what == "run":
        run(arguments)
        return
    cells = count(read_rows(arguments.work / "bound.jsonl"))
    print(write_table(cells))
    if arguments.output:
        write_figures({"machine": describe_machine(), "cells": cells}, arguments.output)


if __name__ == "__main__":
    main()
