"""Level and power of the verdict on rewiring, on brains whose wiring is known.

    OMP_NUM_THREADS=1 python benchmarks/rewiring_validity.py run --work WORK --replicates 200
    python benchmarks/rewiring_validity.py report --work WORK --output benchmarks/results/rewiring_validity

`run` appends one line per replicate and condition to WORK/verdicts.jsonl, and goes on where it was stopped.
Several may run at once with different beds. `report` counts the lines. Beds are a planted brain, wired to
tokens of a backbone by FactorTopy's own formula, and the simulated subject, whose responses owe nothing to
the backbone, each with two backbones.

Nothing rewires if tokens or responses get noise, or if fewer stimuli are shown. What does rewire: areas that
read from another layer, and areas whose preferred layer alone gets noise. Noise of other structures (few
directions, half of the channels) has no counterpart in the controls; its lines show how far the verdict goes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from known_rewiring import (
    Planted,
    Wired,
    load_simulated,
)
from machine import describe_machine, write_figures
from torch import Tensor
from validity_report import (
    count,
    draw,
    read_rows,
    write_tables,
)

from harness.mappings.layer_evidence import (
    MIN_R2,
    Evidence,
    PooledTokens,
    Region,
    choose_penalties,
    measure_evidence,
)
from harness.measures.controls import degrade
from harness.measures.predicted import MIN_VOXELS
from harness.measures.verdict import (
    RegionVerdict,
    judge,
)

BEDS = tuple(
    (kind, backbone) for kind in ("planted", "simulated") for backbone in ("mini_clip", "mini_supervised")
)
GROUPS = ("level", "shift", "mixture", "other")
FIRST_SEED = 1000  # smaller ones were used to choose the rule
CEILING = 0.6
NOISES = (0.2, 0.5, 1.0, 2.0)


class Replicate:
    """One brain at step 0 and its controls; `conditions` judges what it becomes."""

    def __init__(self, wired: Wired, planted: Planted | None, seed: int) -> None:
        self.wired, self.planted, self.seed = wired, planted, seed
        self._start("step 0")
        self._noise = self._draw_noise()
        self.responses = wired.respond(self._noise)
        self.penalties, r2 = choose_penalties(wired.pooled, self.responses)
        predicted = r2 > MIN_R2
        areas = [np.flatnonzero((wired.area == area) & predicted) for area in range(len(wired.names))]
        self.kept = [area for area, voxels in enumerate(areas) if len(voxels) >= MIN_VOXELS]
        self.regions = [Region(wired.names[area], areas[area]) for area in self.kept]
        self.seconds = -time.process_time()
        self.controls = degrade(wired.pooled, self.responses, self.regions, self.penalties, seed)
        self.seconds += time.process_time()

    def _start(self, group: str) -> None:
        """Draw from here on as this group of conditions does, whichever others are judged before."""
        self._rng = np.random.default_rng((self.seed, *group.encode()))
        self._generator = torch.Generator().manual_seed(int(self._rng.integers(2**62)))

    def _draw_noise(self) -> Tensor:
        return torch.from_numpy(self._rng.standard_normal(tuple(self.wired.signal.shape), dtype=np.float32))

    def _randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator)

    def _noisy(self, level: float, spreads: tuple[Tensor, ...] | None = None) -> list[Tensor]:
        pooled = self.wired.pooled
        pairs = zip(pooled.features, spreads or pooled.token_spread, strict=True)
        return [layer + level * spread * self._randn(*layer.shape) for layer, spread in pairs]

    def _noisier(self) -> Tensor:
        """Responses with twice the noise's variance."""
        return self.responses + (1 - self.wired.ceiling).sqrt() * self._draw_noise()

    def _judge(self, features: list[Tensor] | tuple[Tensor, ...], responses: Tensor) -> list[RegionVerdict]:
        return judge(self.controls, self._evidence(features, responses), self.seed)

    def _evidence(self, features: list[Tensor] | tuple[Tensor, ...], responses: Tensor) -> Evidence:
        return measure_evidence(features, responses, self.regions, self.penalties)

    def conditions(self, groups: Sequence[str]) -> Iterator[tuple[str, list[RegionVerdict], list[int]]]:
        """Yield each condition, its verdicts, and the areas (as places in `kept`) that did rewire."""
        made = {"level": self._noise_alike, "other": self._noise_otherwise}
        if self.planted is not None:
            made |= {"shift": partial(self._shift, self.planted), "mixture": partial(self._mix, self.planted)}
        for group in groups:
            if group in made:
                self._start(group)
                yield from made[group]()

    def _noise_alike(self) -> Iterator[tuple[str, list[RegionVerdict], list[int]]]:
        """Noise and loss of stimuli, which rewire nothing."""
        wired, features = self.wired, self.wired.pooled.features
        yield "unchanged", self._judge(features, self.responses), []
        for level in NOISES:
            yield f"tokens {level:g} sd", self._judge(self._noisy(level), self.responses), []
            yield f"tokens {level:g} sd, responses", self._judge(self._noisy(level), self._noisier()), []
        yield from self._halve()
        noisier = self._noisier()
        yield "responses", self._judge(features, noisier), []
        high = torch.from_numpy(np.isin(wired.area, [a for a, rank in enumerate(wired.ranks) if rank >= 5]))
        yield "responses of high areas", self._judge(features, torch.where(high, noisier, self.responses)), []

    def _noise_otherwise(self) -> Iterator[tuple[str, list[RegionVerdict], list[int]]]:
        """Noise of other structures than the controls'."""
        features = self.wired.pooled.features
        deviations = tuple(layer.std(dim=0, correction=0) for layer in features)
        yield "features 1 sd", self._judge(self._noisy(1.0, deviations), self.responses), []
        others = torch.randperm(len(self.responses), generator=self._generator)
        yield "other images 0.5", self._judge([x + 0.5 * x[others] for x in features], self.responses), []
        few = [
            x + spread * (self._randn(len(x), 10) @ self._randn(10, x.shape[1])) / 10**0.5
            for x, spread in zip(features, deviations, strict=True)
        ]
        yield "ten directions 1 sd", self._judge(few, self.responses), []
        halved = [x * (torch.rand(x.shape[1], generator=self._generator) < 0.5) for x in features]
        yield "half of the channels", self._judge(halved, self.responses), []

    def _halve(self) -> Iterator[tuple[str, list[RegionVerdict], list[int]]]:
        """Half the stimuli, against step 0 on the same half: which stimuli were shown is known."""
        rows = np.sort(self._rng.choice(len(self.responses), len(self.responses) // 2, replace=False))
        pooled, responses = self.wired.pooled, self.responses[rows]
        half = PooledTokens(tuple(x[rows] for x in pooled.features), pooled.token_spread, pooled.layers)
        controls = degrade(half, responses, self.regions, self.penalties, self.seed)
        for name, features in (
            ("half the stimuli", half.features),
            ("half the stimuli, tokens 0.5 sd", [x[rows] for x in self._noisy(0.5)]),
        ):
            yield name, judge(controls, self._evidence(features, responses), self.seed), []

    def _shift(self, planted: Planted) -> Iterator[tuple[str, list[RegionVerdict], list[int]]]:
        """Areas that read from another layer, and noise in V4's preferred layer alone."""
        wired = self.wired
        v4 = wired.names.index("V4")
        early = [area for area, rank in enumerate(wired.ranks) if rank <= 4]
        sizes = [(wired.area == area).sum() for area in range(len(wired.names))]
        small = min((area for area in self.kept if area != v4), key=lambda area: sizes[area], default=v4)
        for name, areas, by in (("V4 +1", [v4], 1), ("V1-V4 +1", early, 1), ("small +2", [small], 2)):
            responses = wired.respond(self._noise, planted.shifted(areas, by))
            moved = [place for place, area in enumerate(self.kept) if area in areas]
            yield name, self._judge(wired.pooled.features, responses), moved
            yield f"{name}, tokens 1 sd", self._judge(self._noisy(1.0), responses), moved
        layer = int(planted.layer_of_area[v4])
        same = [place for place, area in enumerate(self.kept) if planted.layer_of_area[area] == layer]
        for level in (1.0, 2.0):
            noisy = self._noisy(level)
            only = [noisy[k] if k == layer else x for k, x in enumerate(wired.pooled.features)]
            yield f"V4's layer {level:g} sd", self._judge(only, self.responses), same

    def _mix(self, planted: Planted) -> Iterator[tuple[str, list[RegionVerdict], list[int]]]:
        """V4 reads more and more from the next layer."""
        wired = self.wired
        v4 = wired.names.index("V4")
        here = [place for place, area in enumerate(self.kept) if area == v4]
        shifted = planted.shifted([v4], 1)
        for share in (0.25, 0.5, 0.75):
            mixed = (1 - share) * wired.signal + share * shifted
            mixed = (mixed - mixed.mean(dim=0)) / mixed.std(dim=0, correction=0)
            name = f"V4 +1 by {share:.0%}"
            yield name, self._judge(wired.pooled.features, wired.respond(self._noise, mixed)), here


def make_replicate(arguments: argparse.Namespace, bed: tuple[str, str], seed: int) -> Replicate:
    """Make the brain of a seed."""
    kind, backbone = bed
    if kind == "planted":
        planted = Planted(
            arguments.work, backbone, seed, arguments.stimuli, arguments.voxels, arguments.ceiling
        )
        if arguments.alone:
            elsewhere = torch.from_numpy(planted.wired.area != planted.wired.names.index("V4"))
            planted.wired.ceiling[elsewhere] = 0
        return Replicate(planted.wired, planted, seed)
    wired = load_simulated(arguments.work, backbone, seed, arguments.stimuli, arguments.voxels)
    return Replicate(wired, None, seed)


def run(arguments: argparse.Namespace) -> None:
    """Judge all replicates that the file of verdicts lacks."""
    arguments.work.mkdir(parents=True, exist_ok=True)
    file = arguments.work / "verdicts.jsonl"
    size = f"{arguments.stimuli} stimuli, {arguments.voxels} voxels"
    size += ", V4 alone" if arguments.alone else ""
    groups = " ".join(arguments.groups)
    done = {(row["bed"], row["size"], row["groups"], row["seed"]) for row in read_rows(file)}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.replicates):
        for bed in BEDS:
            if arguments.beds and bed[0] not in arguments.beds:
                continue
            key = (" ".join(bed), size, groups, seed)
            if key in done:
                continue
            began = time.process_time()
            replicate = make_replicate(arguments, bed, seed)
            rows = [
                {
                    "bed": key[0],
                    "size": size,
                    "groups": groups,
                    "seed": seed,
                    "condition": condition,
                    "verdicts": [int(each.verdict) for each in verdicts],
                    "moved": moved,
                    "shift": [round(each.depth_after - each.depth_control, 4) for each in verdicts],
                    "p": [round(each.p, 4) for each in verdicts],
                    "inflation": {
                        kind: round(found.inflation, 3) for kind, found in replicate.controls.degraded.items()
                    },
                    "controls_seconds": round(replicate.seconds, 2),
                }
                for condition, verdicts, moved in replicate.conditions(arguments.groups)
            ]
            # all rows of a replicate in one write: a killed run leaves whole replicates
            with file.open("a", encoding="utf-8") as stream:
                stream.write("".join(json.dumps(row) + "\n" for row in rows))
            print(f"{key} {time.process_time() - began:.1f} s", flush=True)


def main() -> None:
    """Run replicates or report on them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--work", type=Path, required=True, help="folder of tokens and verdicts")
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--stimuli", type=int, default=400)
    parser.add_argument("--voxels", type=int, default=1000)
    parser.add_argument("--ceiling", type=float, default=CEILING, help="of the planted brain")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=["level", "shift"])
    parser.add_argument("--alone", action="store_true", help="V4 alone has signal; planted brain only")
    parser.add_argument("--beds", nargs="+", choices=("planted", "simulated"))
    parser.add_argument("--output", type=Path, help="path without suffix; writes a .json and a .png")
    arguments = parser.parse_args()
    if arguments.what == "run":
        run(arguments)
        return
    cells = count(read_rows(arguments.work / "verdicts.jsonl"))
    print(write_tables(cells))
    if arguments.output:
        write_figures({"machine": describe_machine(), "cells": cells}, arguments.output.with_suffix(".json"))
        draw(cells).savefig(arguments.output.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
