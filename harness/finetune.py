"""Entry point: fine-tune a backbone on a task, take snapshots, then track what is not tracked yet.

    accelerate launch harness/finetune.py backbone=mini_clip task=digits method=full seed=0

The same command again continues where it was stopped, and ends with the same weights, bit for bit on a CPU.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import filelock
import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from harness.accelerator import build_accelerator
from harness.backbones import Backbone, Preprocessing, load_backbone
from harness.checkpoints import find_checkpoint, read_checkpoint, seed_step, write_checkpoint
from harness.config import load_config, to_yaml
from harness.errors import InputError, exit_with_one_line
from harness.files import remove, write_atomically, write_json
from harness.journal import Journal
from harness.layout import list_snapshots, run_folder, snapshot_folder
from harness.methods import TunedModel, tune
from harness.provenance import describe_run
from harness.sections import Config, FinetuneConfig
from harness.snapshots import describe, encoder_hash, snapshot_steps, write_snapshot
from harness.subjects import Brains, list_subjects
from harness.track import track
from tasks import load_task
from tasks.task import Task


class TaskImages(Dataset):
    """Images of a split, preprocessed for one backbone; items are (image [3, height, width], label)."""

    def __init__(self, split: datasets.Dataset, preprocessing: Preprocessing) -> None:
        self._split = split
        self._preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "3 height width"], int]:
        item = self._split[int(index)]
        return self._preprocessing([item["image"]])[0], item["label"]


@dataclass(frozen=True)
class BatchPlan(Sampler):
    """Which images a process sees, micro-batch by micro-batch, from any step on: a function of the seed.

    Every epoch is a permutation from (seed, epoch), its last incomplete batch left out. A step's batch is
    the same whatever the number of processes and the accumulation.
    """

    n_images: int
    batch_size: int
    accumulation: int
    process: int
    n_processes: int
    seed: int
    n_steps: int
    start: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self.n_images // self.batch_size

    def batch(self, step: int) -> Int[np.ndarray, " batch_size"]:
        """Indices of all images of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(self.n_images)
        return order[place * self.batch_size : (place + 1) * self.batch_size]

    def __len__(self) -> int:
        return (self.n_steps - self.start) * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.n_steps):
            own = self.batch(step)[self.process :: self.n_processes]
            yield from (part.tolist() for part in np.split(own, self.accumulation))


def plan_batches(config: Config, n_images: int, process: int, n_processes: int) -> BatchPlan:
    """Check that the batch can be had and shared out, and plan all steps."""
    settings = config.finetune
    if settings.batch_size > n_images:
        raise InputError(
            f"finetune.batch_size: found {settings.batch_size}, accepted: at most {n_images}, "
            "the training images"
        )
    shares = n_processes * settings.accumulation
    if settings.batch_size % shares:
        raise InputError(
            f"finetune.batch_size: found {settings.batch_size}, accepted: a multiple of {shares}, "
            f"{n_processes} process(es) times accumulation {settings.accumulation}"
        )
    n_steps = settings.epochs * (n_images // settings.batch_size)
    return BatchPlan(
        n_images,
        settings.batch_size,
        settings.accumulation,
        process,
        n_processes,
        config.seed,
        min(n_steps, settings.max_steps or n_steps),
    )


def learning_rate(settings: FinetuneConfig, step: int, n_steps: int) -> float:
    """Linear warm-up to `lr`, then cosine to zero."""
    warmup = round(settings.warmup_fraction * n_steps)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(n_steps - warmup, 1)))


def finetune(config: Config, folder: Path, task: Task, backbone: Backbone, accelerator: Accelerator) -> None:
    """Train and write snapshots, from wherever an earlier try got to.

    Raises
    ------
    InputError
        For a batch that cannot be shared out, or a loss that is no longer finite.
    """
    settings = config.finetune
    plan = plan_batches(config, len(task.train), accelerator.process_index, accelerator.num_processes)
    wanted = snapshot_steps(config.snapshots, plan.n_steps, plan.steps_per_epoch)
    if set(wanted) <= set(list_snapshots(folder)):
        return
    pretrained = encoder_hash(backbone)
    architecture = config.backbone.model_dump(include={"library", "model"})
    model = tune(backbone, task.n_classes, config.method, config.seed)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.lr, weight_decay=settings.weight_decay)
    model, optimizer = accelerator.prepare(model, optimizer)
    inner: TunedModel = accelerator.unwrap_model(model)
    checkpoint = find_checkpoint(folder / "checkpoints")
    start = read_checkpoint(checkpoint, inner, [optimizer], accelerator.scaler) if checkpoint else 0

    def keep(step: int) -> None:
        if accelerator.is_main_process and step in wanted:
            manifest = describe(inner, step, config.method.name, pretrained, architecture)
            write_snapshot(snapshot_folder(folder, step), inner, manifest)

    if start == 0:
        keep(0)
    plan = replace(plan, start=start)
    loader = DataLoader(
        TaskImages(task.train, backbone.preprocessing),
        batch_sampler=plan,
        num_workers=settings.num_workers,
        pin_memory=accelerator.device.type == "cuda",
        # workers draw nothing, but without a generator of its own the loader would move torch's
        generator=torch.Generator(),
    )
    batches = iter(loader)
    model.train()
    with Journal(folder / "results.jsonl") if accelerator.is_main_process else nullcontext() as journal:
        bar = tqdm(
            range(start, plan.n_steps),
            "fine-tuning",
            plan.n_steps,
            initial=start,
            disable=not accelerator.is_main_process,
        )
        for step in bar:
            seed_step(config.seed, step, accelerator.process_index)
            rate = learning_rate(settings, step, plan.n_steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            total = torch.zeros((), device=accelerator.device)
            for _ in range(settings.accumulation):
                images, labels = next(batches)
                with accelerator.accumulate(model):
                    with accelerator.autocast():
                        logits = model(images.to(accelerator.device, non_blocking=True))
                    loss = functional.cross_entropy(logits.float(), labels.to(accelerator.device))
                    accelerator.backward(loss)
                    total += loss.detach() / settings.accumulation
                    if accelerator.sync_gradients:
                        norm = accelerator.clip_grad_norm_(trained, settings.clip_norm or math.inf)
                    optimizer.step()
                    optimizer.zero_grad()
            value = accelerator.reduce(total, "mean").item()
            if not math.isfinite(value):
                raise InputError(
                    f"fine-tuning diverged at step {step}: the loss is {value}; "
                    f"lower finetune.lr={settings.lr}"
                )
            done = step + 1
            if journal is not None:
                # a float16 step whose gradients overflowed has no norm: the scaler skips it
                norms = {"train/grad_norm": norm} if math.isfinite(norm) else {}
                journal.log(done, {"train/loss": value, "train/lr": rate, **norms})
            bar.set_postfix(loss=f"{value:.3f}")
            keep(done)
            if (
                accelerator.is_main_process
                and done % config.snapshots.resume_every == 0
                and done < plan.n_steps
            ):
                write_checkpoint(
                    folder / "checkpoints", done, inner.changing_state(), [optimizer], accelerator.scaler
                )
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        remove(folder / "checkpoints")


def run(config: Config) -> Path:
    """Fine-tune, snapshot and track one run; returns its folder."""
    accelerator = build_accelerator(config.finetune)
    folder = run_folder(config)
    lock = filelock.FileLock(folder / ".lock")
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise InputError(f"{folder}: another process is at work on this run") from None
    try:
        task = load_task(**config.task.model_dump())
        backbone = load_backbone(config.backbone)
        brains = Brains(list_subjects(config.brain, folder))
        fingerprints = brains.fingerprint()  # before hours of training: data may not be as they should be
        if accelerator.is_main_process:
            with write_atomically(folder / "config.yaml") as temporary:
                temporary.write_text(to_yaml(config), encoding="utf-8")
            write_json(folder / "manifest.json", describe_run(task, backbone, fingerprints))
        finetune(config, folder, task, backbone, accelerator)
        track(config, folder, task, backbone, brains, accelerator)
        if accelerator.is_main_process:
            write_json(folder / "finished.json", {"steps": list_snapshots(folder)})
    finally:
        lock.release()
    return folder


def main() -> None:
    """Run the configuration that the command line gives."""
    run(load_config(sys.argv[1:]))


if __name__ == "__main__":
    # accelerate launch sets one thread a process for several processes; alone, all cores may work
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("WORLD_SIZE", "1"))))
    exit_with_one_line(main)
