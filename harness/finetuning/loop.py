"""The training loop: fine-tune a backbone, take snapshots, resume from the last checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from harness.backbones import (
    Backbone,
    encoder_hash,
)
from harness.config import (
    Config,
    FinetuneConfig,
)
from harness.finetuning.batch_plans import (
    BatchPlan,
    last_steps,
    plan_sequence,
)
from harness.finetuning.batches import load_batches
from harness.finetuning.boundaries import (
    BoundaryScores,
    evaluation_steps,
)
from harness.finetuning.checkpoints import (
    checkpoint_step,
    find_checkpoint,
    read_checkpoint,
    read_notes,
    remove_checkpoints,
    seed_step,
    write_checkpoint,
)
from harness.finetuning.gradient_norms import GradientNorms
from harness.finetuning.methods.head_start import start_heads
from harness.finetuning.methods.objective import StartMappings
from harness.finetuning.methods.objectives import build_objective
from harness.finetuning.methods.stages import TrainingStage
from harness.finetuning.methods.tuned import tune
from harness.finetuning.schedule import (
    chain_stages,
    group_parameters,
    learning_rate,
)
from harness.finetuning.snapshot_steps import sequence_steps
from harness.finetuning.snapshots import (
    describe,
    write_snapshot,
)
from harness.runs import (
    Journal,
    list_snapshots,
    snapshot_folder,
)
from harness.storage import (
    InputError,
    progress_bar,
)
from tasks import Task

Batches = Iterator[tuple[Tensor, Tensor]]


def finetune(
    config: Config,
    folder: Path,
    tasks: Sequence[Task],
    backbone: Backbone,
    accelerator: Accelerator,
    start: StartMappings | None = None,
) -> None:
    """Fine-tune and write snapshots, resuming from the last checkpoint.

    Several tasks are trained one after the other, each with its own head and optimizers; steps count on.
    Methods that anchor at the brain need `start`, its mappings of step 0.

    Raises
    ------
    InputError
        If the batch cannot be divided among processes, or the loss is no longer finite.
    """
    sizes = [len(one.train) for one in tasks]
    plans = plan_sequence(config, sizes, accelerator.process_index, accelerator.num_processes)
    wanted = sequence_steps(config.snapshots, [(plan.n_steps, plan.steps_per_epoch) for plan in plans])
    if not set(wanted) <= set(list_snapshots(folder)):
        _Training(config, folder, tasks, backbone, accelerator, plans, start).run(wanted)
        accelerator.wait_for_everyone()
    # also those of a process that was killed after its last snapshot
    if accelerator.is_main_process:
        remove_checkpoints(folder / "checkpoints")


class _Training:
    """A run's model, objective and logs while it is trained."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        tasks: Sequence[Task],
        backbone: Backbone,
        accelerator: Accelerator,
        plans: Sequence[BatchPlan],
        start: StartMappings | None,
    ) -> None:
        self.config, self.settings, self.folder = config, config.finetune, folder
        self.tasks, self.backbone, self.accelerator, self.plans = tasks, backbone, accelerator, plans
        self.begins = [0, *last_steps(plans)]
        self.pretrained = encoder_hash(backbone)
        self.model = tune(backbone, [one.n_classes for one in tasks], config.method, config.seed, tasks)
        if self.settings.channels_last:
            self.model.to(memory_format=torch.channels_last)
        # the checkpoint to resume from, cleared once its stage has read it
        self.checkpoint = find_checkpoint(folder / "checkpoints")
        self.start = checkpoint_step(self.checkpoint) if self.checkpoint else 0
        if self.checkpoint is None:
            start_heads(self.model, config.method, backbone, tasks, accelerator.device)
        self.objective = build_objective(config, self.model, tasks, backbone, accelerator, start)
        self.gradients = GradientNorms(self.model.parameters_by_layer())
        self.evaluated = set(evaluation_steps(config.stability, self.begins[1:]))
        self.boundaries = BoundaryScores(
            self.model,
            tasks,
            backbone.preprocessing,
            config.stability,
            config.probes.batch_size,
            accelerator.device,
        )

    def run(self, wanted: Sequence[int]) -> None:
        """Train all stages that are not done yet; take snapshots after the steps in `wanted`."""
        main, first, n_steps = self.accelerator.is_main_process, self.start, self.begins[-1]
        if first == 0:
            self._take_snapshot(0)
        stages = chain_stages(self.config.method, self.settings.lr, [plan.n_steps for plan in self.plans])
        place: int | None = None
        batches: Batches = iter(())
        bar = progress_bar(label="fine-tuning" if main else None, total=n_steps, initial=first, leave=True)
        with bar, Journal(self.folder / "results.jsonl") if main else nullcontext() as journal:
            for stage in stages:
                if stage.stop <= first:
                    continue
                if stage.place != place:
                    place, batches = stage.place, self._load_batches(stage.place)
                for step in self._train_stage(stage, batches, self.evaluated.union(wanted)):
                    if journal is not None:
                        kept = self.gradients.take() if step.done in wanted else {}
                        if step.done in self.evaluated:
                            kept |= self.boundaries.measure(stage.place)
                        journal.log(step.done, step.rows() | kept)
                    bar.set_postfix(loss=f"{step.loss:.3f}", refresh=False)
                    bar.update()
                    if step.done in wanted:
                        self._take_snapshot(step.done)

    def _load_batches(self, place: int) -> Batches:
        """Load a task's batches from the first step that is not done yet."""
        plan = replace(self.plans[place], start=max(self.start - self.begins[place], 0))
        images, preprocessing = self.tasks[place].train, self.backbone.preprocessing
        return load_batches(images, preprocessing, plan, self.settings, self.accelerator.device)

    def _train_stage(self, stage: TrainingStage, batches: Batches, needed: Set[int]) -> Iterator[Step]:
        """Train the steps of a stage that are not done yet, and yield each one.

        On a GPU, a step is read while the next one runs, unless the state after it is `needed`, for a
        snapshot or an evaluation, or kept in a checkpoint.
        """
        accelerator, settings, seed = self.accelerator, self.settings, self.config.seed
        self.objective.task = self.tasks[stage.place]
        self.model.choose_head(stage.place)
        self.model.open(stage.head_only)
        groups = group_parameters(self.model, self.config.method, settings.weight_decay)
        optimizer = torch.optim.AdamW(
            groups,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=accelerator.device.type == "cuda",
        )
        prepared, optimizer = accelerator.prepare(self.objective, optimizer)
        if self.checkpoint:
            read_checkpoint(self.checkpoint, self.model, [optimizer], accelerator.scaler)
            self.gradients.load(read_notes(self.checkpoint))
            self.checkpoint = None
        prepared.train()
        waiting: tuple[int, float, TakenStep] | None = None
        for step in range(max(self.start, stage.start), stage.stop):
            seed_step(seed, step, accelerator.process_index)
            rate = stage.lr_factor * learning_rate(settings, step - stage.start, stage.n_steps)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)
            taken = take_step(prepared, optimizer, batches, settings, accelerator, self.gradients)
            done = step + 1
            # not at the end of a stage: the next one has an optimizer of its own
            resumes = done < stage.stop and done % self.config.snapshots.resume_every == 0
            if waiting is not None:
                yield self._read(*waiting)
            waiting = done, rate, taken
            if not reads_late(accelerator.device) or resumes or done in needed or done == stage.stop:
                yield self._read(*waiting)
                waiting = None
            if resumes:
                self._write_checkpoint(done, optimizer)
        accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
        accelerator.free_memory(prepared, optimizer)

    def _read(self, done: int, rate: float, taken: TakenStep) -> Step:
        """Wait for a step's numbers and add its gradients to the means."""
        terms, norm, squares = taken.read()
        found = Step(done, rate, terms, norm)
        if not math.isfinite(found.loss):
            raise InputError(
                f"fine-tuning diverged at step {done - 1}: the loss is {found.loss}; "
                f"lower finetune.lr={self.settings.lr}"
            )
        self.gradients.add(squares, norm)
        return found

    def _take_snapshot(self, step: int) -> None:
        if not self.accelerator.is_main_process:
            return
        architecture: dict[str, object] = {
            "library": self.config.backbone.library,
            "model": self.config.backbone.model,
            **self.backbone.flags,
        }
        manifest = describe(self.model, step, self.config.method.name, self.pretrained, architecture)
        write_snapshot(snapshot_folder(self.folder, step), self.model, manifest)

    def _write_checkpoint(self, done: int, optimizer: torch.optim.Optimizer) -> None:
        if self.accelerator.is_main_process:
            write_checkpoint(
                self.folder / "checkpoints",
                done,
                self.model.changing_state(),
                [optimizer],
                self.accelerator.scaler,
                self.gradients.state(),
            )


@dataclass(frozen=True)
class Step:
    """One optimizer step, as logged.

    Attributes
    ----------
    done : int
        Steps done, this one included.
    rate : float
        Learning rate.
    terms : dict of str to float
        Terms of the loss, over all images of the step.
    norm : float
        Of the gradient, before clipping.
    """

    done: int
    rate: float
    terms: dict[str, float]
    norm: float

    @property
    def loss(self) -> float:
        """Sum of the terms."""
        return sum(self.terms.values())

    def rows(self) -> dict[str, float]:
        """Rows of ``results.jsonl``."""
        rows = {"train/loss": self.loss, "train/lr": self.rate}
        # a float16 step whose gradients overflow has no norm; the scaler skips it
        rows |= {"train/grad_norm": self.norm} if math.isfinite(self.norm) else {}
        if len(self.terms) > 1:
            rows |= {f"train/{name}": value for name, value in self.terms.items()}
        return rows


def reads_late(device: torch.device) -> bool:
    """Whether the numbers of a step on this device are read only after the next one is under way."""
    return device.type == "cuda"


class TakenStep:
    """The numbers of a step, on their way from the device to the host.

    Parameters
    ----------
    names : sequence of str
        Terms of the loss.
    terms : float tensor [n_terms]
    norm : float tensor, a scalar
        Of the gradient, before clipping.
    squares : float tensor [n_layers]
        From `GradientNorms.squares`.
    """

    def __init__(self, names: Sequence[str], terms: Tensor, norm: Tensor, squares: Tensor) -> None:
        self._names = names
        # one copy, to pinned memory; on a CPU it is none
        together = torch.cat([terms, norm.reshape(1).to(terms.device), squares.to(terms.device)])
        self._numbers = together.to("cpu", non_blocking=True)
        self._copied = torch.cuda.Event() if together.is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def read(self) -> tuple[dict[str, float], float, Tensor]:
        """Wait for the copy; return the terms by name, the norm, and the squares."""
        if self._copied is not None:
            self._copied.synchronize()
        terms, norm, squares = self._numbers.split(
            [len(self._names), 1, len(self._numbers) - len(self._names) - 1]
        )
        return dict(zip(self._names, terms.tolist(), strict=True)), float(norm), squares


def take_step(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    settings: FinetuneConfig,
    accelerator: Accelerator,
    gradients: GradientNorms,
) -> TakenStep:
    """Take one optimizer step; return the terms of its loss over all images, and norms of its gradient."""
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
    terms = accelerator.reduce(torch.stack(list(totals.values())), "mean")
    return TakenStep(list(totals), terms, norm, squares)
