"""Do other families of mappings agree? Brains whose wiring is known, and the demo, under each.

    OMP_NUM_THREADS=1 python benchmarks/families_agree.py planted --work WORK --seeds 10
    OMP_NUM_THREADS=1 python benchmarks/families_agree.py demo --work WORK --study runs/demo
    python benchmarks/families_agree.py report --work WORK --output benchmarks/results/families_agree

`planted` and `demo` append one line per brain and family to WORK/cells.jsonl, and go on where they were
stopped. All fits have the settings of `study=demo` or of the run, as far as a family has them.

- planted: `known_rewiring.Planted`, one layer per area. Three fits: step 0; after V4 moved to the next layer;
  and with noise of one standard deviation in every token, which rewires nothing.
- demo: every finished run of a study, at step 0 and at its last snapshot, with the tracker's tokens, split
  and seeds. The study is only read.

Families are FactorTopy, the same without its anchor, `free_selectors`, `layer_ridge`, banded ridge, and the
closed-form evidence with its verdict, which fits no mapping (`families_fits.py`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from earlier_recipe import DEMO_BY_DESCENT
from families_fits import (
    FAMILIES,
    VERDICT,
    Change,
    EvidenceOf,
    Fitted,
    change_of,
    compare,
    fit,
    timed,
)
from families_report import CHANGED, DEMO, NOISE, SHIFT, STEP_0, draw, write_tables
from known_rewiring import Planted, add_noise
from machine import describe_machine, write_figures
from torch import Tensor
from validity_report import read_rows

from harness.backbones.backbone import encoder_hash
from harness.backbones.load import load_backbone
from harness.brains.area_groups import group_areas
from harness.brains.load import load_brain
from harness.config.compose import load_config, read_config
from harness.finetuning.methods.tuned import tune
from harness.finetuning.snapshots import read_snapshot
from harness.mappings.data import FitData
from harness.mappings.fit import prepare_tokens
from harness.mappings.splits import load_split, split_stimuli
from harness.measures.verdict_rows import read_verdict
from harness.runs.journal import read_rows as read_journal
from harness.runs.layout import is_finished, list_snapshots, snapshot_folder, split_file
from harness.runs.subjects import Subject
from harness.tokens.extraction import LayerTokens
from harness.tokens.frame import standardize_tokens
from harness.tracking.evidence import EvidenceFiles
from harness.tracking.work_items import WorkItem
from tasks.load import load_task

BACKBONES = ("mini_clip", "mini_supervised")
FIRST_SEED = 1000  # as in rewiring_validity.py: smaller ones were used to choose rules


class PlantedBrain:
    """A planted brain at step 0, after V4 moved, and with noise in every token."""

    def __init__(self, arguments: argparse.Namespace, backbone: str, seed: int) -> None:
        self._arguments, self._backbone, self.seed = arguments, backbone, seed
        self.config = load_config(["study=demo", f"backbone={backbone}", *DEMO_BY_DESCENT])

    @cached_property
    def planted(self) -> Planted:
        """Wiring and tokens."""
        given = self._arguments
        return Planted(given.work, self._backbone, self.seed, given.stimuli, given.voxels, given.ceiling)

    @cached_property
    def data(self) -> dict[str, FitData]:
        """What is fitted, by condition; all share the noise of the responses."""
        planted, wired = self.planted, self.planted.wired
        rng = np.random.default_rng((self.seed, 13))
        noise = torch.from_numpy(rng.standard_normal(tuple(wired.signal.shape), dtype=np.float32))
        still, moved = wired.respond(noise), wired.respond(noise, planted.shifted([self.v4], 1))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noisy = add_noise(planted.tokens, generator)
        return {
            STEP_0: self._see(planted.tokens, still),
            SHIFT: self._see(planted.tokens, moved),
            NOISE: self._see(noisy, still),
        }

    def _see(self, tokens: LayerTokens, responses: Tensor) -> FitData:
        mapping, brain = self.config.mapping, self.planted.brain
        split = split_stimuli(len(responses), mapping.held_out, self.seed)
        standard = standardize_tokens(tokens, torch.from_numpy(split.train), mapping.token_size, "cpu")
        return FitData(standard, responses.numpy(), brain.coords, brain.bounding_box, split)

    @property
    def v4(self) -> int:
        """Index of the area that moves."""
        return self.planted.wired.names.index(CHANGED)

    def measure(self, family: str) -> dict[str, Any]:
        """Fit a family to every condition, and compare."""
        data, rois = self.data, self.planted.brain.rois
        if family == VERDICT:
            evidence, seconds = timed(lambda: EvidenceOf(data[STEP_0], rois, self.config.evidence, self.seed))
            start = evidence.fitted()
            found, more = timed(lambda: {name: evidence.judge(each) for name, each in data.items()})
            changes, seconds = found, seconds + more
        else:
            # a seed of its own for every fit, as in tracking
            fits, seconds = timed(
                lambda: {
                    name: fit(family, each, self.config.mapping, 10 * self.seed + place)
                    for place, (name, each) in enumerate(data.items())
                }
            )
            start = fits[STEP_0]
            changes = {name: compare(start, each, rois) for name, each in fits.items()}
        return {"seconds": seconds, **self._describe(start, changes)}

    def _describe(self, start: Fitted, changes: dict[str, dict[str, Change]]) -> dict[str, Any]:
        planted = self.planted
        later = planted.shifted_layers([self.v4], 1)[self.v4]
        right = start.layer.argmax(axis=1) == planted.layer_of_area[planted.wired.area]
        layers = zip(planted.wired.names, planted.layer_of_area.tolist(), strict=True)
        return {
            "r2": float(start.r2.mean()),
            "voxels_right": float(right.mean()),
            "planted": dict(layers),
            "moved_to": int(later),
            "n_layers": planted.n_layers,
            "changes": write_changes(changes),
        }


class DemoRun:
    """A finished run at step 0 and at its last snapshot."""

    def __init__(self, run: Path, work: Path) -> None:
        self._run, self._work = run, work
        self.config = read_config(run / "config.yaml")
        self._subject = Subject(None, self.config.brain, run)
        self._steps = (0, list_snapshots(run)[-1])

    @cached_property
    def _brain(self) -> Any:
        return load_brain(self.config.brain)

    @cached_property
    def _groups(self) -> dict[str, str]:
        """Whether an area is early, middle or high."""
        return {roi.name: group for group, rois in group_areas(self._brain.rois).items() for roi in rois}

    @cached_property
    def data(self) -> dict[int, FitData]:
        """What the tracker fits, by step."""
        config, brain, run = self.config, self._brain, self._run
        backbone = load_backbone(config.backbone)
        task = load_task(**config.task.model_dump())
        model = tune(backbone, task.n_classes, config.method, config.seed)
        split, data = load_split(split_file(run), brain.stimulus_ids), {}
        for step in self._steps:
            read_snapshot(snapshot_folder(run, step), model, encoder_hash(backbone))
            seen = model.merged_backbone()
            size = config.probes.batch_size
            tokens = prepare_tokens(seen, brain.stimuli, split, config.mapping, size, "cpu", self._work)
            data[step] = FitData(tokens, brain.responses, brain.coords, brain.bounding_box, split)
        return data

    def measure(self, family: str) -> dict[str, Any]:
        """Fit a family to both ends, and compare; the verdict's evidence is the run's own."""
        if family == VERDICT:
            return self._read_verdict()
        data = self.data
        fits, seconds = timed(
            lambda: [
                fit(family, each, self.config.mapping, WorkItem(self._subject, step).seed(self.config))
                for step, each in data.items()
            ]
        )
        r2 = [float(each.r2.mean()) for each in fits]
        return {
            "seconds": seconds,
            "r2": r2,
            "groups": self._groups,
            "changes": write_changes({DEMO: compare(*fits, self._brain.rois)}),
        }

    def _read_verdict(self) -> dict[str, Any]:
        last = self._steps[1]
        files = EvidenceFiles(self._subject, self.config.evidence, self.config.seed)
        named, seconds = timed(lambda: files.name(self._steps, ()))
        found: dict[str, dict[str, float]] = {}
        for name, value in named[last].items():
            if name.startswith("verdict/"):
                _, place, measure = name.split("/")
                found.setdefault(place, {})[measure] = value
        n_layers = sum(name.startswith("evidence/all/layer/") for name in named[0])
        changes = {
            place: change_of(each, n_layers, each["kind"]) for place, each in found.items() if place != "all"
        }
        rows, _ = read_journal(self._run / "results.jsonl")
        logged = read_verdict({row["name"]: row["value"] for row in rows if row["step"] == last})
        ends = [
            float(np.mean([getattr(each, end) for each in changes.values()]))
            for end in ("r2_before", "r2_after")
        ]
        return {
            "seconds": seconds,
            "r2": ends,
            "groups": self._groups,
            "verdict": logged.summarise() if logged else "none",
            "changes": write_changes({DEMO: changes}),
        }


def write_changes(changes: dict[str, dict[str, Change]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Changes as they stand in a line of the checkpoint."""
    return {
        condition: {place: asdict(each) for place, each in places.items()}
        for condition, places in changes.items()
    }


def list_planted(arguments: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Callable[[], Any]]]:
    """Keys of the planted brains, and what makes them."""
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for backbone in arguments.backbones:
            size = {name: getattr(arguments, name) for name in ("stimuli", "voxels", "ceiling")}
            key = {"part": "planted", "backbone": backbone, "seed": seed, **size}
            yield key, lambda backbone=backbone, seed=seed: PlantedBrain(arguments, backbone, seed)


def list_demo(arguments: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Callable[[], Any]]]:
    """Keys of a study's finished runs, and what reads them."""
    for run in filter(is_finished, sorted(arguments.study.iterdir())):
        backbone = read_config(run / "config.yaml").backbone.name
        key = {"part": "demo", "backbone": backbone, "run": run.name}
        yield key, lambda run=run: DemoRun(run, arguments.work)


def measure(arguments: argparse.Namespace) -> None:
    """Measure all brains and families that the file of cells lacks."""
    arguments.work.mkdir(parents=True, exist_ok=True)
    file = arguments.work / "cells.jsonl"
    done = read_rows(file)
    cases = list_planted(arguments) if arguments.what == "planted" else list_demo(arguments)
    for key, make in cases:
        missing = [
            family
            for family in arguments.families
            if not any((key | {"family": family}).items() <= row.items() for row in done)
        ]
        case = make() if missing else None
        for family in missing:
            row = key | {"family": family} | case.measure(family)
            # one write per cell: a killed run leaves whole ones
            with file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
            print(f"{' '.join(map(str, key.values()))}, {family}: {row['seconds']:.1f} s", flush=True)


def main() -> None:
    """Measure, or report on what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("planted", "demo", "report"))
    parser.add_argument("--work", type=Path, required=True, help="folder of tokens and cells")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--stimuli", type=int, default=800)
    parser.add_argument("--voxels", type=int, default=300)
    parser.add_argument("--ceiling", type=float, default=0.6)
    parser.add_argument("--study", type=Path, default=Path("runs/demo"), help="folder of finished runs")
    parser.add_argument("--output", type=Path, help="path without suffix; writes a .json and a .png")
    arguments = parser.parse_args()
    if arguments.what != "report":
        measure(arguments)
        return
    cells = read_rows(arguments.work / "cells.jsonl")
    print(write_tables(cells))
    if arguments.output:
        write_figures({"machine": describe_machine(), "cells": cells}, arguments.output.with_suffix(".json"))
        draw(cells).savefig(arguments.output.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
