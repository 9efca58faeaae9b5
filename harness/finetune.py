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
import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from harness.accelerator import build_accelerator
from harness.backbones import Backbone, Preprocessing
from harness.checkpoints import (
    checkpoint_step,
    find_checkpoint,
    read_checkpoint,
    read_notes,
    seed_step,
    write_checkpoint,
)
from harness.config import load_config, to_yaml
from harness.errors import InputError, exit_with_one_line
from harness.files import remove, write_atomically, write_json
from harness.gradient_norms import GradientNorms
from harness.inputs import load_inputs
from harness.journal import Journal
from harness.layout import hold_run, list_snapshots, run_folder, snapshot_folder
from harness.methods import tune
from harness.methods.objectives import build_objective
from harness.methods.schedule import group_parameters, plan_stages
from harness.provenance import describe_run
from harness.sections import Config, FinetuneConfig
from harness.snapshots import describe, encoder_hash, snapshot_steps, write_snapshot
from harness.track import track
from tasks.task import Task


class TaskImages(Dataset):
    """Images of a split, preprocessed for one backbone; items are (image [3, height, width], label)."""

    def __init__(self, split: datasets.Dataset, preprocessing: Preprocessing) -> None:
        self._split = split
        self._preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "3 height width"], Shaped[Tensor, "*n_classes"]]:
        item = self._split[int(index)]
        return self._preprocessing([item["image"]])[0], torch.as_tensor(item["label"])


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
    architecture: dict[str, object] = {
        "library": config.backbone.library,
        "model": config.backbone.model,
        **backbone.flags,
    }
    model = tune(backbone, task.n_classes, config.method, config.seed, task)
    objective = build_objective(config, model, task, backbone, accelerator)
    gradients = GradientNorms(model.parameters_by_layer())
    checkpoint = find_checkpoint(folder / "checkpoints")
    start = checkpoint_step(checkpoint) if checkpoint else 0

    def keep(step: int) -> None:
        if accelerator.is_main_process and step in wanted:
            manifest = describe(model, step, config.method.name, pretrained, architecture)
            write_snapshot(snapshot_folder(folder, step), model, manifest)

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
    bar = tqdm(initial=start, total=plan.n_steps, desc="fine-tuning", disable=not accelerator.is_main_process)
    with bar, Journal(folder / "results.jsonl") if accelerator.is_main_process else nullcontext() as journal:
        for stage in plan_stages(config.method, settings.lr, plan.n_steps):
            if stage.stop <= start:
                continue
            model.open(stage.head_only)
            groups = group_parameters(model, config.method, settings.weight_decay)
            optimizer = torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay)
            prepared, optimizer = accelerator.prepare(objective, optimizer)
            if checkpoint:
                read_checkpoint(checkpoint, model, [optimizer], accelerator.scaler)
                gradients.load(read_notes(checkpoint))
                checkpoint = None
            prepared.train()
            for step in range(max(start, stage.start), stage.stop):
                seed_step(config.seed, step, accelerator.process_index)
                rate = stage.lr_factor * learning_rate(settings, step - stage.start, stage.n_steps)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group.get("lr_scale", 1.0)
                terms, norm = take_step(prepared, optimizer, batches, settings, accelerator, gradients)
                loss = sum(terms.values())
                if not math.isfinite(loss):
                    raise InputError(
                        f"fine-tuning diverged at step {step}: the loss is {loss}; "
                        f"lower finetune.lr={settings.lr}"
                    )
                done = step + 1
                if journal is not None:
                    rows = {"train/loss": loss, "train/lr": rate}
                    # a float16 step whose gradients overflowed has no norm: the scaler skips it
                    rows |= {"train/grad_norm": norm} if math.isfinite(norm) else {}
                    if len(terms) > 1:
                        rows |= {f"train/{name}": value for name, value in terms.items()}
                    journal.log(done, rows | (gradients.take() if done in wanted else {}))
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                bar.update()
                keep(done)
                # not at the end of a stage: the next one begins with an optimizer of its own
                if (
                    accelerator.is_main_process
                    and done % config.snapshots.resume_every == 0
                    and done < stage.stop
                ):
                    write_checkpoint(
                        folder / "checkpoints",
                        done,
                        model.changing_state(),
                        [optimizer],
                        accelerator.scaler,
                        gradients.state(),
                    )
            accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
            prepared, optimizer = accelerator.free_memory(prepared, optimizer)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        remove(folder / "checkpoints")


def take_step(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[tuple[Tensor, Tensor]],
    settings: FinetuneConfig,
    accelerator: Accelerator,
    gradients: GradientNorms,
) -> tuple[dict[str, float], float]:
    """One optimizer step; the terms of its loss, over all images of the step, and the gradient's norm."""
    totals: dict[str, Tensor] = {}
    for _ in range(settings.accumulation):
        images, labels = next(batches)
        with accelerator.accumulate(objective):
            with accelerator.autocast():
                terms = objective(
                    images.to(accelerator.device, non_blocking=True), labels.to(accelerator.device)
                )
            loss = torch.stack(list(terms.values())).sum()
            accelerator.backward(loss)
            for name, term in terms.items():
                totals[name] = totals.get(name, 0.0) + term.detach() / settings.accumulation
            if accelerator.sync_gradients:
                trained = [part for group in optimizer.param_groups for part in group["params"]]
                norm = accelerator.clip_grad_norm_(trained, settings.clip_norm or math.inf)
                squares = gradients.squares()
            optimizer.step()
            optimizer.zero_grad()
    values = accelerator.reduce(torch.stack(list(totals.values())), "mean").tolist()
    gradients.add(squares, float(norm))
    return dict(zip(totals, values, strict=True)), float(norm)


def run(config: Config) -> Path:
    """Fine-tune, snapshot and track one run; returns its folder."""
    accelerator = build_accelerator(config.finetune)
    folder = run_folder(config)
    with hold_run(folder) if accelerator.is_main_process else nullcontext():
        inputs = load_inputs(config, folder)
        manifest = describe_run(inputs)  # before hours of training: brains may not be as they should be
        if accelerator.is_main_process:
            with write_atomically(folder / "config.yaml") as temporary:
                temporary.write_text(to_yaml(config), encoding="utf-8")
            write_json(folder / "manifest.json", manifest)
        finetune(config, folder, inputs.task, inputs.backbone, accelerator)
        track(config, folder, inputs, accelerator)
        if accelerator.is_main_process:
            write_json(folder / "finished.json", {"steps": list_snapshots(folder)})
    return folder


def main() -> None:
    """Run the configuration that the command line gives."""
    run(load_config(sys.argv[1:]))


if __name__ == "__main__":
    # accelerate launch sets one thread a process for several processes; alone, all cores may work
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("WORLD_SIZE", "1"))))
    exit_with_one_line(main)
