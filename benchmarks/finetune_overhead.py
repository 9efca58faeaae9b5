"""What our loop costs beside a bare PyTorch loop, and what snapshots and tracking cost beside fine-tuning.

    OMP_NUM_THREADS=2 python benchmarks/finetune_overhead.py \
        --output benchmarks/results/finetune_overhead_2cores

Both loops train the same network, from the same weights, on the same batches with AdamW, a warm-up, a cosine
and clipping; they take turns in one process and end with the same weights, which is checked. The bare one
does nothing else. Ours is `harness.finetune.finetune`: accelerate, a journal row per step, gradient norms per
layer, checkpoints and snapshots. The time between the beginnings of two steps is counted, less what snapshots
and checkpoints took; the loops' overhead is the ratio of medians over all steps, and of every turn by itself.

Then one run is made as a user makes it, with snapshots, mappings and probes of the demo, and the seconds of
its parts are held against those of fine-tuning. Last, the settings that may make fine-tuning faster:
data-loader workers, channels-last memory and bfloat16.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from machine import Stolen, describe_machine, write_figures

import harness.finetune
from harness.accelerator import build_accelerator
from harness.backbones import Backbone, load_backbone
from harness.batches import TaskImages, count_workers, learning_rate, plan_batches
from harness.config import load_config
from harness.layout import list_snapshots
from harness.methods import tune
from harness.methods.schedule import group_parameters
from harness.sections import Config
from tasks import load_task
from tasks.task import Task


@dataclass(frozen=True)
class Case:
    """A network and how it is trained."""

    backbone: str
    batch_size: int
    steps: int
    settings: tuple[str, ...] = ()


MINI = Case("mini_clip", 32, 80)
CASES = {
    "cpu": (MINI, Case("imagenet_s16", 8, 10), Case("resnet50", 8, 10)),
    "cuda": (MINI, Case("imagenet_b16", 64, 100, ("finetune.precision=bf16",)), Case("resnet50", 64, 100)),
}
KEPT_APART = ("write_snapshot", "describe", "write_checkpoint")


def configure(case: Case, *settings: str) -> Config:
    """A run of a case's steps on digits."""
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
def clock_steps(*parts: str) -> Iterator[tuple[list[float], dict[str, float]]]:
    """Moments at which our loop begins its steps, on a clock that stands still in what is kept apart.

    Also the seconds of every part: what is kept apart, and other functions that `harness.finetune` calls.
    """
    moments: list[float] = []
    seconds = dict.fromkeys((*KEPT_APART, *parts), 0.0)
    seed_step = harness.finetune.seed_step

    def begin(*arguments: Any) -> None:
        moments.append(time.perf_counter() - sum(seconds[name] for name in KEPT_APART))
        seed_step(*arguments)

    def timed(name: str) -> Callable[..., Any]:
        work = getattr(harness.finetune, name)

        def wrapper(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return work(*arguments, **named)
            finally:
                seconds[name] += time.perf_counter() - start

        return wrapper

    with patch.multiple(harness.finetune, seed_step=begin, **{name: timed(name) for name in seconds}):
        yield moments, seconds


def run_ours(config: Config, task: Task, backbone: Backbone) -> tuple[list[float], dict[str, float], dict]:
    """Seconds of every step, seconds of what is kept apart, and the weights at the end."""
    accelerator = build_accelerator(config.finetune)
    found: dict[str, Any] = {}

    def remember(*arguments: Any, **named: Any) -> Any:
        found["model"] = tune(*arguments, **named)
        return found["model"]

    with (
        tempfile.TemporaryDirectory() as folder,
        clock_steps() as (moments, apart),
        patch.object(harness.finetune, "tune", remember),
    ):
        harness.finetune.finetune(config, Path(folder), task, backbone, accelerator)
        moments.append(time.perf_counter() - sum(apart.values()))
    return _differences(moments), apart, found["model"].changing_state()


def run_bare(
    config: Config, task: Task, backbone: Backbone, device: torch.device
) -> tuple[list[float], dict]:
    """The loop as one would write it by hand: seconds of every step, and the weights at the end."""
    settings = config.finetune
    plan = plan_batches(config, len(task.train), 0, 1)
    model = tune(backbone, task.n_classes, config.method, config.seed).to(device).train()
    model.open(head_only=False)
    groups = group_parameters(model, config.method, settings.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay)
    loader = torch.utils.data.DataLoader(
        TaskImages(task.train, backbone.preprocessing),
        batch_sampler=plan,
        num_workers=count_workers(settings.num_workers, device, 1),
        pin_memory=device.type == "cuda",
    )
    dtype = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[settings.precision]
    moments = []
    for step, (images, labels) in enumerate(loader):
        moments.append(time.perf_counter())
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
    moments.append(time.perf_counter())
    return _differences(moments), model.changing_state()


def _differences(moments: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(moments)]


def measure_overhead(case: Case, turns: int, device: torch.device) -> dict[str, Any]:
    """Both loops, turn by turn; the first steps of each turn, which hand out memory, do not count."""
    config = configure(case)
    task = load_task(**config.task.model_dump())
    backbone = load_backbone(config.backbone, pretrained=case.backbone.startswith("mini_"))
    seconds: dict[str, list[list[float]]] = {"bare": [], "ours": []}
    apart: dict[str, float] = {}
    warm_up = max(case.steps // 10, 2)
    for turn in range(turns):
        bare, expected = run_bare(config, task, backbone, device)
        ours, apart, found = run_ours(config, task, backbone)
        for name, tensor in expected.items():
            if not torch.equal(tensor, found[name]) and device.type == "cpu":
                raise RuntimeError(f"{case.backbone}: the two loops end with different weights at {name}")
        seconds["bare"].append(bare[warm_up:])
        seconds["ours"].append(ours[warm_up:])
        print(f"{case.backbone}, turn {turn + 1}: {_ratio(seconds, turn) - 1:+.1%}", file=sys.stderr)
    all_steps = {name: [one for turn in found for one in turn] for name, found in seconds.items()}
    medians = {name: statistics.median(found) for name, found in all_steps.items()}
    return {
        "case": asdict(case),
        "median_seconds_a_step": medians,
        "overhead": medians["ours"] / medians["bare"] - 1,
        "overhead_by_turn": [_ratio(seconds, turn) - 1 for turn in range(turns)],
        "seconds_apart_in_the_last_turn": apart,
        "seconds": seconds,
    }


def _ratio(seconds: dict[str, list[list[float]]], turn: int) -> float:
    return statistics.median(seconds["ours"][turn]) / statistics.median(seconds["bare"][turn])


def measure_parts() -> dict[str, Any]:
    """Seconds of the parts of a run of the demo, and their share of fine-tuning without snapshots."""
    with (
        tempfile.TemporaryDirectory() as name,
        clock_steps("load_inputs", "describe_run", "finetune", "track") as (_, found),
    ):
        folder = harness.finetune.run(load_config(["study=demo", "backbone=mini_clip", f"runs_dir={name}"]))
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


def measure_settings(case: Case) -> dict[str, float]:
    """Median seconds of our step under settings that may make it faster."""
    found = {}
    for name, settings in {
        "as it is": (),
        "1 worker": ("finetune.num_workers=1",),
        "2 workers": ("finetune.num_workers=2",),
        "channels last": ("finetune.channels_last=true",),
        "bf16": ("finetune.precision=bf16",),
    }.items():
        config = configure(case, *settings)
        task = load_task(**config.task.model_dump())
        backbone = load_backbone(config.backbone, pretrained=case.backbone.startswith("mini_"))
        seconds, _, _ = run_ours(config, task, backbone)
        found[name] = statistics.median(seconds[max(case.steps // 10, 2) :])
        print(f"{case.backbone}, {name}: {found[name]:.3f} s a step", file=sys.stderr)
    return found


def main() -> None:
    """Measure, print the overhead and the shares, and write the figures where asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=CASES)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, help="of every case")
    parser.add_argument("--output", type=Path, help="without suffix: a .json is written")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    cases = [replace(case, steps=arguments.steps or case.steps) for case in CASES[arguments.device]]
    stolen = Stolen()
    figures: dict[str, Any] = {"machine": describe_machine(arguments.device)}
    figures["overhead"] = [measure_overhead(case, arguments.turns, device) for case in cases]
    figures["parts"] = measure_parts()
    figures["settings"] = {case.backbone: measure_settings(case) for case in cases}
    figures["stolen_share"] = stolen.share()
    for row in figures["overhead"]:
        ours, bare = (row["median_seconds_a_step"][name] for name in ("ours", "bare"))
        turns = ", ".join(f"{value:+.1%}" for value in sorted(row["overhead_by_turn"]))
        print(
            f"{row['case']['backbone']:14} {1000 * bare:7.1f} ms bare, {1000 * ours:7.1f} ms ours: "
            f"{row['overhead']:+.1%} (by turn {turns})"
        )
    shares = figures["parts"]["share_of_fine_tuning"]
    print("a run of the demo: " + ", ".join(f"{part} {share:.0%}" for part, share in shares.items()))
    print(json.dumps(figures["settings"], indent=2))
    if figures["stolen_share"] is not None:
        print(f"{figures['stolen_share']:.1%} of the cores' time went to the host's other guests meanwhile")
    if arguments.output:
        write_figures(figures, arguments.output.with_suffix(".json"))


if __name__ == "__main__":
    main()
