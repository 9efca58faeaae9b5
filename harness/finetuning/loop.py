"""Fine-tune a backbone and take snapshots, resuming from the last checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from harness.backbones import (
    Backbone,
    encoder_hash,
)
from harness.config import (
    Config,
    FinetuneConfig,
)
from harness.finetuning.batches import (
    last_steps,
    load_batches,
    plan_sequence,
)
from harness.finetuning.checkpoints import (
    checkpoint_step,
    find_checkpoint,
    read_checkpoint,
    read_notes,
    seed_step,
    write_checkpoint,
)
from harness.finetuning.gradient_norms import GradientNorms
from harness.finetuning.methods.objectives import build_objective
from harness.finetuning.methods.tuned import tune
from harness.finetuning.schedule import (
    chain_stages,
    group_parameters,
    learning_rate,
)
from harness.finetuning.snapshots import (
    describe,
    sequence_steps,
    write_snapshot,
)
from harness.runs import (
    Journal,
    list_snapshots,
    snapshot_folder,
)
from harness.storage import (
    InputError,
    remove_path,
)
from tasks import Task


def finetune(
    config: Config,
    folder: Path,
    tasks: Sequence[Task],
    backbone: Backbone,
    accelerator: Accelerator,
) -> None:
    """Train and write snapshots, from wherever an earlier try got to.

    Several tasks are trained one after the other, each under a head of its own and with optimizers of its
    own; steps count on.

    Raises
    ------
    InputError
        For a batch that cannot be shared out, or a loss that is no longer finite.
    """
    settings = config.finetune
    sizes = [len(one.train) for one in tasks]
    plans = plan_sequence(config, sizes, accelerator.process_index, accelerator.num_processes)
    wanted = sequence_steps(config.snapshots, [(plan.n_steps, plan.steps_per_epoch) for plan in plans])
    if set(wanted) <= set(list_snapshots(folder)):
        return
    pretrained = encoder_hash(backbone)
    architecture: dict[str, object] = {
        "library": config.backbone.library,
        "model": config.backbone.model,
        **backbone.flags,
    }
    model = tune(backbone, [one.n_classes for one in tasks], config.method, config.seed, tasks)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    objective = build_objective(config, model, tasks[0], backbone, accelerator)
    gradients = GradientNorms(model.parameters_by_layer())
    checkpoint = find_checkpoint(folder / "checkpoints")
    start = checkpoint_step(checkpoint) if checkpoint else 0

    def keep(step: int) -> None:
        if accelerator.is_main_process and step in wanted:
            manifest = describe(model, step, config.method.name, pretrained, architecture)
            write_snapshot(snapshot_folder(folder, step), model, manifest)

    if start == 0:
        keep(0)
    stages = chain_stages(config.method, settings.lr, [plan.n_steps for plan in plans])
    begins = [0, *last_steps(plans)]
    loaded: int | None = None
    batches: Iterator[tuple[Tensor, Tensor]] = iter(())
    bar = tqdm(initial=start, total=begins[-1], desc="fine-tuning", disable=not accelerator.is_main_process)
    with bar, Journal(folder / "results.jsonl") if accelerator.is_main_process else nullcontext() as journal:
        for stage in stages:
            if stage.stop <= start:
                continue
            if stage.place != loaded:
                loaded = stage.place
                plan = replace(plans[loaded], start=max(start - begins[loaded], 0))
                train = tasks[loaded].train
                batches = load_batches(train, backbone.preprocessing, plan, settings, accelerator.device)
            objective.task = tasks[stage.place]
            model.choose_head(stage.place)
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
        remove_path(folder / "checkpoints")


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
                terms = objective(images, labels)
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
