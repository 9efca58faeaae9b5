"""Overhead of our loop over a bare PyTorch loop, and of snapshots and tracking over fine-tuning.

    OMP_NUM_THREADS=2 python benchmarks/finetune_overhead.py \
        --output benchmarks/results/finetune_overhead_2cores

Both loops train the same network, from the same weights, on the same batches, with AdamW, warm-up, a cosine
schedule and gradient clipping. They run in lockstep in one process, with a bare step before each of ours, so
that other load affects both. On a CPU, the script checks that they end with the same weights. The bare loop
does nothing else. Ours is `loop.finetune`: accelerate, a journal row per step, gradient norms per layer,
checkpoints and snapshots. Checkpoints and snapshots are timed separately. The overhead is the ratio of the
median step times; quartiles of the ratio of single steps are also given.

Next, one full run of the demo, with its snapshots, mappings and probes, gives the time of each stage
relative to fine-tuning. Last come settings that may speed up fine-tuning: data-loader workers, channels-last
memory and, on a GPU, bfloat16.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from accelerate.state import AcceleratorState
from machine import Stolen, describe_machine, write_figures

import harness.finetuning
import harness.runs
import harness.tracking
from harness.backbones.backbone import Backbone
from harness.backbones.load import load_backbone
from harness.commands.finetune import run
from harness.config.compose import load_config
from harness.config.run import Config
from harness.finetuning import loop
from harness.finetuning.batch_plans import plan_batches
from harness.finetuning.batches import (
    TaskImages,
    count_workers,
)
from harness.finetuning.devices import build_accelerator
from harness.finetuning.methods.tuned import tune
from harness.finetuning.schedule import (
    group_parameters,
    learning_rate,
)
from harness.runs.layout import list_snapshots
from tasks.load import load_task
from tasks.task import Task


@dataclass(frozen=True)
class Case:
    """A network and its training settings."""

    backbone: str
    batch_size: int
    steps: int
    settings: tuple[str, ...] = ()


MINI = Case("mini_clip", 32, 100)
CASES = {
    "cpu": (MINI, Case("imagenet_s16", 8, 44), Case("resnet50", 8, 44)),
    "cuda": (MINI, Case("imagenet_b16", 64, 100, ("finetune.precision=bf16",)), Case("resnet50", 64, 100)),
}
KEPT_APART = ("write_snapshot", "describe", "write_checkpoint")


def configure(case: Case, *settings: str) -> Config:
    """Configure a case: its network, fine-tuned on digits."""
    return load_config(
        [
            f"backbone={case.backbone}",
            "task=digits",
            "method=full",
            f"finetune.batch_size={case.batch_size}",
            f"finetune.max_steps={case.steps}",
            *case.settings,
            *settings,
        ]
    )


@contextmanager
def clock_steps(
    bare: Iterator[float] | None = None, **parts: ModuleType
) -> Iterator[tuple[list[float], dict[str, float]]]:
    """Record when our loop starts each step, on a clock that excludes the functions in `KEPT_APART`.

    Also yields the seconds spent in those functions and in `parts`, by name: the package whose interface
    the caller looks a function up in.
    `bare` takes a step before each of ours, while the clock is stopped.
    """
    moments: list[float] = []
    places = dict.fromkeys(KEPT_APART, loop) | parts
    seconds = dict.fromkeys(places, 0.0)
    aside = 0.0
    seed_step = loop.seed_step

    def begin(*arguments: Any) -> None:
        nonlocal aside
        moments.append(time.perf_counter() - aside - sum(seconds[name] for name in KEPT_APART))
        if bare is not None:
            start = time.perf_counter()
            next(bare)
            aside += time.perf_counter() - start
        seed_step(*arguments)

    def timed(name: str) -> Callable[..., Any]:
        work = getattr(places[name], name)

        def wrapper(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return work(*arguments, **named)
            finally:
                seconds[name] += time.perf_counter() - start

        return wrapper

    with ExitStack() as patches:
        patches.enter_context(patch.object(loop, "seed_step", begin))
        for name, place in places.items():
            patches.enter_context(patch.object(place, name, timed(name)))
        yield moments, seconds
        # the end of the last step
        moments.append(time.perf_counter() - aside - sum(seconds[name] for name in KEPT_APART))


def run_ours(
    config: Config, task: Task, backbone: Backbone, bare: Iterator[float] | None = None
) -> tuple[list[float], dict[str, float], dict[str, torch.Tensor]]:
    """Return seconds per step, seconds of the functions timed separately, and the final weights."""
    accelerator = build_accelerator(config.finetune)
    found: dict[str, Any] = {}

    def remember(*arguments: Any, **named: Any) -> Any:
        found["model"] = tune(*arguments, **named)
        return found["model"]

    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(loop, "tune", remember),
        clock_steps(bare=bare) as (moments, apart),
    ):
        loop.finetune(config, Path(folder), [task], backbone, accelerator)
    return [after - before for before, after in pairwise(moments)], apart, found["model"].changing_state()


class BareLoop:
    """A hand-written training loop; each iteration takes one step."""

    def __init__(self, config: Config, task: Task, backbone: Backbone, device: torch.device) -> None:
        self.model = tune(backbone, task.n_classes, config.method, config.seed).to(device).train()
        self.model.open(head_only=False)
        self.seconds: list[float] = []
        self._config, self._task, self._device = config, task, device
        self._preprocessing = backbone.preprocessing

    def __iter__(self) -> Iterator[float]:
        """Yield the seconds of each step."""
        settings, device, model = self._config.finetune, self._device, self.model
        plan = plan_batches(self._config, len(self._task.train), 0, 1)
        groups = group_parameters(model, self._config.method, settings.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay)
        loader = torch.utils.data.DataLoader(
            TaskImages(self._task.train, self._preprocessing),
            batch_sampler=plan,
            num_workers=count_workers(settings.num_workers, device, 1),
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),
        )
        dtype = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[settings.precision]
        batches = iter(loader)
        for step in range(plan.n_steps):
            start = time.perf_counter()
            images, labels = next(batches)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step, plan.n_steps)
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                scores = model(images.to(device, non_blocking=True))
                loss = torch.nn.functional.cross_entropy(scores, labels.to(device, non_blocking=True))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm or float("inf"))
            optimizer.step()
            optimizer.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize()
            self.seconds.append(time.perf_counter() - start)
            yield self.seconds[-1]


def measure_overhead(case: Case, device: torch.device) -> dict[str, Any]:
    """Run both loops in lockstep; the first steps, which allocate memory, are discarded."""
    config = configure(case)
    task = load_task(**config.task.model_dump())
    backbone = load_backbone(config.backbone, pretrained=case.backbone.startswith("mini_"))
    loop = BareLoop(config, task, copy.deepcopy(backbone), device)
    ours, apart, found = run_ours(config, task, backbone, iter(loop))
    for name, tensor in loop.model.changing_state().items():
        if device.type == "cpu" and not torch.equal(tensor, found[name]):
            raise RuntimeError(f"{case.backbone}: the two loops end with different weights at {name}")
    warm_up = max(case.steps // 10, 2)
    seconds = {"bare": loop.seconds[warm_up:], "ours": ours[warm_up:]}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = [ours / bare - 1 for ours, bare in zip(seconds["ours"], seconds["bare"], strict=True)]
    return {
        "case": asdict(case),
        "median_seconds_a_step": medians,
        "overhead": medians["ours"] / medians["bare"] - 1,
        "overhead_of_single_steps_quartiles": statistics.quantiles(ratios),
        "seconds_apart": apart,
        "seconds": seconds,
    }


def measure_parts() -> dict[str, Any]:
    """Time the stages of a demo run, also relative to fine-tuning without snapshots."""
    with (
        tempfile.TemporaryDirectory() as name,
        clock_steps(
            load_inputs=harness.runs,
            describe_run=harness.runs,
            finetune=harness.finetuning,
            track=harness.tracking,
        ) as (_, found),
    ):
        folder = run(load_config(["study=demo", "backbone=mini_clip", f"runs_dir={name}"]))
        n_snapshots = len(list_snapshots(folder))
    seconds = {
        "loading and checking": found["load_inputs"] + found["describe_run"],
        "fine-tuning": found["finetune"] - sum(found[name] for name in KEPT_APART),
        "snapshots": found["describe"] + found["write_snapshot"],
        "checkpoints": found["write_checkpoint"],
        "tracking": found["track"],
    }
    return {
        "n_snapshots": n_snapshots,
        "seconds": seconds,
        "share_of_fine_tuning": {part: value / seconds["fine-tuning"] for part, value in seconds.items()},
    }


def measure_settings(case: Case, device: torch.device) -> dict[str, float]:
    """Measure the median seconds of our step under settings that may speed it up."""
    found = {}
    case = replace(case, steps=min(case.steps, 6))
    for name, settings in {
        "as it is": (),
        "1 worker": ("finetune.num_workers=1",),
        "2 workers": ("finetune.num_workers=2",),
        "channels last": ("finetune.channels_last=true",),
        "bf16": ("finetune.precision=bf16",),
    }.items():
        if name == "bf16" and device.type == "cpu":
            continue  # emulated on processors without it: 18 times as slow
        config = configure(case, *settings)
        task = load_task(**config.task.model_dump())
        backbone = load_backbone(config.backbone, pretrained=case.backbone.startswith("mini_"))
        AcceleratorState._reset_state(reset_partial_state=True)  # it allows one precision per process
        seconds, _, _ = run_ours(config, task, backbone)
        found[name] = statistics.median(seconds[max(case.steps // 10, 2) :])
        print(f"{case.backbone}, {name}: {found[name]:.3f} s per step", file=sys.stderr)
    return found


def main() -> None:
    """Measure, print the overhead and shares, and write the results if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=CASES)
    parser.add_argument("--steps", type=int, help="steps per case; default: each case's own number")
    parser.add_argument("--output", type=Path, help="path without suffix; writes a .json")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    cases = [replace(case, steps=arguments.steps or case.steps) for case in CASES[arguments.device]]
    stolen = Stolen()
    figures: dict[str, Any] = {"machine": describe_machine(arguments.device)}

    def save() -> None:
        if arguments.output:
            write_figures(figures, arguments.output.with_suffix(".json"))

    figures["overhead"] = [measure_overhead(case, device) for case in cases]
    for row in figures["overhead"]:
        ours, bare = (row["median_seconds_a_step"][name] for name in ("ours", "bare"))
        low, middle, high = row["overhead_of_single_steps_quartiles"]
        print(
            f"{row['case']['backbone']:14} {1000 * bare:7.1f} ms bare, {1000 * ours:7.1f} ms ours: "
            f"{row['overhead']:+.1%} (single steps {middle:+.1%}, quartiles {low:+.1%} and {high:+.1%})"
        )
    save()
    figures["parts"] = measure_parts()
    shares = figures["parts"]["share_of_fine_tuning"]
    print("demo, share of fine-tuning: " + ", ".join(f"{part} {share:.0%}" for part, share in shares.items()))
    save()
    figures["settings"] = {case.backbone: measure_settings(case, device) for case in cases}
    print(json.dumps(figures["settings"], indent=2))
    figures["stolen_share"] = stolen.share()
    if figures["stolen_share"] is not None:
        print(f"{figures['stolen_share']:.1%} of core time was stolen by other guests of the host")
    save()


if __name__ == "__main__":
    main()
