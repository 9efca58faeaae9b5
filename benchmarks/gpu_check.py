"""Check on a GPU what the tests check on a CPU, and time fits there, within a few minutes.

    python benchmarks/gpu_check.py --output gpu_check.json --limit-s 470
    python benchmarks/gpu_check.py --device cpu --small --output gpu_check.json

Parts run in order of importance and share `--limit-s`; the file is written after each of them. A part that
fails records its traceback, and the rest goes on. Whatever is computed on the device is compared with the
CPU's values by these rules:

- VALUES: float32 in another order of sums. Differences are at most 1e-4 of the largest value, ten times the
  rounding of a sum of ten thousand products.
- NETWORK: the same behind a network of many layers: 1e-3 of the largest value.
- TRAINED: optimizer steps. AdamW divides by the size of a gradient, so rounding of gradients near zero turns
  into full steps: 2e-2 of the largest value; mean R² and accuracies to within .02.
Ways of a GPU (tiles, steps that stay on the device) are also taken with `--device cpu`, but for the graph.
Convolutions do without TF32 here, whose rounding would hide errors.
"""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import argparse
import atexit
import functools
import gc
import io
import itertools
import logging
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from machine import describe_machine, write_figures
from operations import WAYS, Step, count_operations, count_step, ways_of_a_gpu
from torch import Tensor

from harness.config.mapping import FactorTopyConfig
from harness.mappings.data import FitData
from harness.mappings.families import FAMILIES
from harness.mappings.fit import fit_mapping
from harness.mappings.splits import split_stimuli
from harness.tokens.extraction import LayerTokens
from harness.tokens.frame import StandardTokens, TokenFrame

VALUES, NETWORK, TRAINED = 1e-4, 1e-3, 2e-2


@dataclass
class Check:
    """What one part found.

    Attributes
    ----------
    device : torch.device
    small : bool
        Sizes for a test on a CPU.
    folder : Path
        For files; empty at the start.
    remaining : function
        Seconds left of the limit.
    found : dict
        Figures of the part, for the file.
    failures : list of dict
        What was compared, and the difference or the traceback.
    n_compared : int
    """

    device: torch.device
    small: bool
    folder: Path
    remaining: Callable[[], float]
    found: dict[str, Any] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    n_compared: int = 0

    def compare(self, name: str, found: Any, expected: Any, share: float) -> None:
        """Compare two tensors, arrays or numbers: the difference is at most a share of the largest value."""
        one, other = (torch.as_tensor(part).detach().cpu().double() for part in (found, expected))
        allowed = share * max(float(other.abs().max()), 1e-12)
        self.within(name, float((one - other).abs().max()), allowed)

    def within(self, name: str, difference: float, allowed: float) -> None:
        """Record a failure unless a difference, which may be none, is allowed."""
        self.n_compared += 1
        if not abs(difference) <= allowed:
            self.failures.append({"what": name, "difference": difference, "allowed": allowed})

    @contextmanager
    def item(self, name: str) -> Iterator[None]:
        """Record an error with its traceback and go on after it."""
        try:
            yield
        except Exception:
            self.failures.append({"what": name, "traceback": traceback.format_exc()})


def seconds_per_call(function: Callable[[], object], device: torch.device, n_calls: int) -> float:
    """Measure the median seconds of a call, after two that are not counted."""
    found = []
    for _ in range(n_calls + 2):
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - started)
    return statistics.median(found[2:])


@contextmanager
def host_reads_fail(device: torch.device) -> Iterator[None]:
    """Raise an error where the host waits for the device."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def check_step(check: Check) -> None:
    """Compare values and gradients of a FactorTopy step, by its ways, with those on the CPU."""
    n_voxels = 400 if check.small else 4000
    # few images per channel, and many: both orders of products
    for n_images, n_channels in ((2, 16), (16, 8)):
        sizes = n_voxels, 3, 24, 8, n_channels, n_images
        step = Step.build(*sizes)
        expected, gradients = value_and_gradients(step, "by cell")
        step = step.on(lambda part: part.to(check.device))
        for way in WAYS:
            name = f"step {way}, {n_images} images, {n_channels} channels"
            with check.item(name):
                value, others = value_and_gradients(step, way)
                check.compare(f"{name}: loss", value, expected, VALUES)
                for parameter, gradient in gradients.items():
                    check.compare(f"{name}: gradient of {parameter}", others[parameter], gradient, VALUES)
        with check.item("host reads"), host_reads_fail(check.device):
            step.loss("in tiles").backward()
    step = Step.build(*((400, 3, 8, 4, 8, 16) if check.small else (5000, 12, 16, 8, 32, 64)))
    step = step.on(lambda part: part.to(check.device))
    check.found["operations of a loss and its gradients"] = {
        way: count_step(step, way).total() for way in WAYS
    }
    data = plant(check.device, *((100, 400, 3, 8, 4) if check.small else (320, 5000, 12, 16, 8)))
    check.found["operations of a fit's step"] = {
        way: count_fit_step(data, check.device, way == "in tiles") for way in WAYS[:2]
    }


def count_fit_step(data: FitData, device: torch.device, ways: bool) -> int:
    """Count the operations of a step of a fit: rows, tokens, loss, gradients, optimizer and check."""
    totals = []
    for steps in (1, 3):  # before a capture
        config = FactorTopyConfig(token_size=data.tokens.local[0].shape[2], steps=steps)
        with ways_of_a_gpu(ways):
            run = functools.partial(fit_mapping, data, config, seed=0, device=device)
            totals.append(count_operations(run).total())
    return (totals[1] - totals[0]) // 2


def value_and_gradients(step: Step, way: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a step's loss and the gradients of all parameters."""
    step.model.zero_grad()
    loss = step.loss(way)
    loss.backward()
    return loss, {name: part.grad.cpu() for name, part in step.model.named_parameters()}


def check_families(check: Check) -> None:
    """Compare short fits of every family with those on the CPU."""
    data = plant(torch.device("cpu"), *((40, 60, 3, 8, 4) if check.small else (400, 1000, 6, 32, 8)))
    reasons = check.found["not captured"] = {}
    for name, family in FAMILIES.items():
        settings: dict[str, Any] = {"token_size": data.tokens.local[0].shape[2]}
        if family.trained:
            settings |= {"steps": 6 if check.small else 40, "n_channels": 8, "batch_size": 16}
        else:
            settings |= {"n_folds": 2, "alphas": [0.1, 10.0]}
        config = family.config(**settings)
        with check.item(f"family {name}"), noted() as lines:
            expected = fit_mapping(data, config, seed=0)
            with ways_of_a_gpu():
                found = fit_mapping(moved(data, check.device), config, seed=0, device=check.device)
            check.within(f"{name}: mean R²", found.r2.mean() - expected.r2.mean(), TRAINED)
            check.within(f"{name}: layers", np.abs(found.layer - expected.layer).mean(), TRAINED)
            if lines:
                reasons[name] = lines


def moved(data: FitData, device: torch.device) -> FitData:
    """Put the tokens of `plant` on a device, those of all layers as one array."""
    tokens = data.tokens
    assert isinstance(tokens, StandardTokens)
    local = torch.stack([layer.movedim(1, -1) for layer in tokens.local]).to(device).movedim(-1, 2)
    global_ = torch.stack(tokens.global_).to(device)
    placed = replace(tokens, local=tuple(local.unbind()), global_=tuple(global_.unbind()), device=device)
    return replace(data, tokens=placed)


@contextmanager
def noted() -> Iterator[list[str]]:
    """Collect the warnings of fits, such as why a step was not captured."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("harness.mappings")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


def plant(
    device: torch.device, n_stimuli: int, n_voxels: int, n_layers: int, width: int, edge: int
) -> FitData:
    """Make standard tokens in float16 on a device, and voxels that read one token of one layer each.

    Half of the responses' variance is noise.
    """
    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=dtype)

    local = draw(n_layers, n_stimuli, edge, edge, width, dtype=torch.float16)
    global_ = draw(n_layers, n_stimuli, width, dtype=torch.float16)
    # blocks of neighbours read the same token
    coords = (
        torch.arange(n_voxels, device=device).float()[:, None]
        / n_voxels
        * torch.tensor([100.0, 1.0, 1.0], device=device)
    )
    n_patches = min(n_layers * edge * edge, max(n_voxels // 10, 1))
    patch = torch.arange(n_voxels, device=device) * n_patches // n_voxels
    responses = draw(n_stimuli, n_voxels)
    for number in range(n_patches):
        layer, row, column = number % n_layers, (number * 7) % edge, (number * 3) % edge
        weights = draw(width, int((patch == number).sum())) / width**0.5
        responses[:, patch == number] += local[layer, :, row, column].float() @ weights
    unit = torch.ones(n_layers)
    zeros = tuple(torch.zeros(width) for _ in range(n_layers))
    tokens = StandardTokens(
        tuple(local.movedim(-1, 2).unbind()),
        tuple(global_.unbind()),
        tuple(f"blocks.{place}" for place in range(n_layers)),
        TokenFrame(zeros, unit, zeros, unit),
        device,
    )
    split = split_stimuli(n_stimuli, 0.2, seed=0)
    box = np.array([[0.0, 0.0, 0.0], [100.0, 1.0, 1.0]], dtype=np.float32)
    return FitData(tokens, responses.cpu().numpy(), coords.cpu().numpy(), box, split)


def check_fit(check: Check) -> None:
    """Time a step and a whole fit at full size against ``grid_sample``, of equal sizes."""
    published = (500, 3, 24, 4, 16, 2) if check.small else (37_984, 12, 768, 8, 128, 8)
    step = Step.build(*published).on(lambda part: part.to(check.device))
    for way in ("in tiles", "grid_sample"):
        with check.item(f"step {way}"):
            seconds = seconds_per_call(lambda way=way: step.loss(way).backward(), check.device, 20)
            check.found.setdefault("published step, no graph or optimizer, seconds", {})[way] = seconds
    del step
    config = FactorTopyConfig(token_size=4 if check.small else 8, **({"steps": 8} if check.small else {}))
    sizes = (60, 200, 3, 24, 4) if check.small else (9000, 37_984, 12, 768, 8)
    started = time.perf_counter()
    data = plant(check.device, *sizes)
    check.found["sizes"] = dict(zip(("stimuli", "voxels", "layers", "width", "edge"), sizes, strict=True))
    check.found["seconds to plant"] = time.perf_counter() - started
    with check.item("fit"), noted() as lines, ways_of_a_gpu():
        fits = {}
        for steps in (config.steps // 2, config.steps):
            short = config.model_copy(update={"steps": steps})
            started = time.perf_counter()
            mapping = fit_mapping(data, short, seed=0, device=check.device)
            fits[steps] = time.perf_counter() - started
        (few, half), (many, whole) = fits.items()
        check.found["fit"] = {
            "steps": many,
            "seconds": whole,
            "seconds per step": (whole - half) / (many - few),
            "mean R²": float(mapping.r2.mean()),
            "not captured": lines,
        }
    # the plain version: the same batches, tokens to float32, loss, gradients and optimizer
    with check.item("grid_sample"):
        plain = time_plain_fit(data, config, check.device, 3 if check.small else 12)
        check.found["grid_sample, seconds per step"] = plain
        if "fit" in check.found:
            check.found["times as fast, per step"] = plain / check.found["fit"]["seconds per step"]


def time_plain_fit(data: FitData, config: FactorTopyConfig, device: torch.device, n_steps: int) -> float:
    """Median seconds of a step of the formula by ``grid_sample``."""
    tokens = data.tokens
    assert isinstance(tokens, StandardTokens)
    n_layers, width = len(tokens.layers), tokens.global_[0].shape[1]
    step = Step.build(
        data.n_voxels, n_layers, width, config.token_size, config.n_channels, config.batch_size
    ).on(lambda part: part.to(device))
    responses = torch.from_numpy(data.responses).to(device)
    optimizer = torch.optim.AdamW(step.model.parameters(), lr=1e-3, fused=True)
    rows = itertools.cycle(torch.from_numpy(data.split.train).split(config.batch_size))

    def take() -> None:
        row = next(rows).to(device)
        local, global_ = (
            torch.stack([layer[row] for layer in layers]).float() for layers in (tokens.local, tokens.global_)
        )
        optimizer.zero_grad()
        replace(step, local=local, global_=global_, truth=responses[row]).loss("grid_sample").backward()
        optimizer.step()

    return seconds_per_call(take, device, n_steps)


def train(folder: Path, device: torch.device, *overrides: str) -> None:
    """Fine-tune a mini network on a few digits, on a device."""
    from accelerate.state import AcceleratorState

    from harness.backbones.load import load_backbone
    from harness.config.compose import load_config
    from harness.finetuning.devices import build_accelerator
    from harness.finetuning.loop import finetune
    from tasks.load import load_task

    config = load_config(
        [
            *("backbone=mini_clip", "task.n_train=24", "task.n_test=10", "finetune.batch_size=8"),
            *("finetune.lr=1e-3", "snapshots.ratio=2", "snapshots.resume_every=2"),
            *overrides,
        ]
    )
    AcceleratorState._reset_state(reset_partial_state=True)
    # accelerate takes a GPU that is there
    with patch("torch.cuda.is_available", return_value=False) if device.type == "cpu" else nullcontext():
        accelerator = build_accelerator(config.finetune)
    task = load_task("digits", config.task.n_train, config.task.n_test)
    with redirect_stderr(io.StringIO()):  # progress bars
        finetune(config, folder, [task], load_backbone(config.backbone), accelerator)


def rows_of(folder: Path) -> dict[tuple[str, int], float]:
    """Return a run's journal by name and step."""
    from harness.runs.journal import read_rows

    return {(row["name"], row["step"]): row["value"] for row in read_rows(folder / "results.jsonl")[0]}


def check_methods(check: Check) -> None:
    """Compare two steps of every fine-tuning method with those on the CPU."""
    from harness.finetuning.methods.records import METHODS

    # not a user's own; in a test, those that differ most
    names = ("lora", "flyp") if check.small else [name for name in METHODS if name != "python"]
    for name in names:
        with check.item(f"method {name}"):
            rows = []
            for device in (torch.device("cpu"), check.device):
                folder = check.folder / f"{name}-{device.type}-{len(rows)}"
                train(folder, device, f"method={name}", f"finetune.max_steps={1 if check.small else 2}")
                rows.append(rows_of(folder))
            if rows[0].keys() != rows[1].keys():
                raise AssertionError(f"other rows: {sorted(rows[0].keys() ^ rows[1].keys())}")
            for (row, step), value in rows[0].items():
                if row.startswith("train/"):
                    share = NETWORK if step == 1 else TRAINED
                    check.compare(f"{name}: {row} at step {step}", rows[1][row, step], value, share)
    if check.device.type == "cuda":
        for precision in ("bf16", "fp16"):
            with check.item(f"precision {precision}"):
                train(check.folder / precision, check.device, f"finetune.precision={precision}")


def check_resume(check: Check) -> None:
    """Kill a process that fine-tunes, go on from its checkpoint, and compare with a run left alone."""
    from harness.finetuning.snapshots import snapshot_folder
    from harness.runs.layout import list_snapshots
    from harness.storage.files import read_weights

    overrides = ["backbone=mini_random", "finetune.epochs=60"]
    if check.small:
        overrides += ["finetune.max_steps=12", "finetune.batch_size=2"]
    folder, whole = check.folder / "killed", check.folder / "whole"
    command = [sys.executable, __file__, "--device", check.device.type, "--train", str(folder), *overrides]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    train(whole, check.device, *overrides)
    while not (folder / "checkpoints").exists() and process.poll() is None and check.remaining() > 0:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    _, message = process.communicate()
    last = list_snapshots(whole)[-1]
    check.found["snapshots when killed"] = list_snapshots(folder)
    if process.returncode != -signal.SIGKILL or last in list_snapshots(folder):
        raise AssertionError(f"not killed while it trained: {process.returncode} {message[-2000:]}")
    train(folder, check.device, *overrides)
    ours, theirs = (
        read_weights(snapshot_folder(one, last) / "weights.safetensors") for one in (folder, whole)
    )
    check.found["equal in every bit"] = all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for name, expected in theirs.items():
        check.compare(f"killed and resumed: {name}", ours[name], expected, TRAINED)


def check_tokens(check: Check) -> None:
    """Compare layer tokens with the CPU's, and read them from every place they can be in."""
    from harness.backbones.load import load_backbone
    from harness.config.compose import load_config
    from harness.tokens.extraction import extract_tokens
    from harness.tokens.store import store_tokens
    from tasks.load import load_task

    backbone = load_backbone(load_config(["backbone=mini_clip"]).backbone)
    images = load_task("shapes", 32, 8).train["image"][: 12 if check.small else 32]
    expected = extract_tokens(backbone, images, 8, 8)
    found = extract_tokens(backbone, images, 8, 8, check.device)
    for kind in ("local", "global_"):
        for name, one, other in zip(found.layers, getattr(found, kind), getattr(expected, kind), strict=True):
            check.compare(f"{kind} tokens of {name}", one, other, NETWORK)
    train = np.arange(len(images) - 2)
    batches = torch.tensor([3, 0, 3, 9, 5]).split(2)
    stored: dict[str, LayerTokens] = {}
    for place in ("device", "memory", "disk"):
        with check.item(f"tokens in {place}"):
            config = FactorTopyConfig(token_place=place)
            store = store_tokens(backbone, images, train, config, 8, check.device, check.folder)
            parts = list(store.stream(batches))
            stored[place] = LayerTokens(
                tuple(map(torch.cat, zip(*(part.local for part in parts), strict=True))),
                tuple(map(torch.cat, zip(*(part.global_ for part in parts), strict=True))),
                store.layers,
            )
            for one, other in zip(stored[place].local, stored["device"].local, strict=True):
                check.compare(f"tokens read from {place}", one, other, 0)


def check_probes(check: Check) -> None:
    """Compare features and every kind of probe with the CPU's."""
    from harness.backbones.load import load_backbone
    from harness.config.compose import load_config
    from harness.measures.probes.linear import linear_probe
    from harness.measures.probes.probed_task import ProbedTask, probe_features
    from harness.tokens.extraction import extract_features
    from tasks.load import load_task

    config = load_config(["backbone=mini_clip", f"probes.steps={5 if check.small else 200}"])
    backbone = load_backbone(config.backbone)
    task = load_task("shapes", *((36, 24) if check.small else (300, 200)))
    scores = []
    features = []
    for device in (torch.device("cpu"), check.device):
        train, test = (
            extract_features(backbone, split["image"], 32, device).numpy()
            for split in (task.train, task.test)
        )
        labels = [np.array(split["label"]) for split in (task.train, task.test)]
        features.append(test)
        scores.append(
            probe_features(ProbedTask(train, labels[0], test, labels[1], task, backbone.text), config)
        )
        one = linear_probe(train, labels[0], test, labels[1], 0, steps=20, device=device)
        scores[-1]["linear probe on the device"] = one.scores.named()["accuracy"]
    check.compare("features", features[1], features[0], NETWORK)
    for name, value in scores[0].items():
        # one image more or less right is a rounding error too
        check.within(f"{name} of shapes", scores[1][name] - value, TRAINED + 1 / len(labels[1]))
    check.found["scores"] = scores[1]


PARTS: dict[str, Callable[[Check], None]] = {
    "step": check_step,
    "families": check_families,
    "fit": check_fit,
    "methods": check_methods,
    "tokens": check_tokens,
    "probes": check_probes,
    "resume": check_resume,
}
"""In order of importance."""


def run_parts(names: Sequence[str], device: torch.device, small: bool, limit_s: float, output: Path) -> bool:
    """Run the parts, write what they found after each, and return whether nothing failed."""
    started = time.perf_counter()
    report: dict[str, Any] = {
        "machine": describe_machine(device.type) | {"python": sys.version.split()[0], "small": small},
        "limit_s": limit_s,
        "parts": {},
    }

    def remaining() -> float:
        return limit_s - (time.perf_counter() - started)

    for name in names:
        if remaining() <= 0:
            report["parts"][name] = {"skipped": "the time limit is used up", "failures": []}
            continue
        begun = time.perf_counter()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            check = Check(device, small, Path(folder), remaining)
            with check.item(name):
                PARTS[name](check)
        seconds = time.perf_counter() - begun
        report["parts"][name] = {
            "seconds": seconds,
            "share_of_limit": seconds / limit_s,
            "compared": check.n_compared,
            "failures": check.failures,
            **({"gigabytes": torch.cuda.max_memory_allocated() / 1e9} if device.type == "cuda" else {}),
            **check.found,
        }
        write_figures(report, output)
        print(
            f"{name}: {seconds:.0f} s, {check.n_compared} compared, {len(check.failures)} failed", flush=True
        )
    report["used_share_of_limit"] = 1 - remaining() / limit_s
    report["failed"] = sorted(name for name, part in report["parts"].items() if part["failures"])
    write_figures(report, output)
    return not report["failed"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; return 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="sizes for a test on a CPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--limit-s", type=float, default=470.0, help="seconds; the rest is skipped")
    parser.add_argument("--output", type=Path, default=Path("gpu_check.json"))
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)  # for the process to be killed
    chosen, overrides = parser.parse_known_args(arguments)
    gc.freeze()  # or every fine-tuning would search all imported modules for garbage
    atexit.register(gc.unfreeze)
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device(chosen.device)
    if chosen.train is not None:
        train(chosen.train, device, *overrides)
        return 0
    return 0 if run_parts(chosen.parts, device, chosen.small, chosen.limit_s, chosen.output) else 1


if __name__ == "__main__":
    sys.exit(main())
