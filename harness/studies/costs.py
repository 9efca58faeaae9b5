"""Costs of a run in steps, snapshots, fits, bytes and seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config import (
    BrainAnchorConfig,
    Config,
    EmbeddedTaskConfig,
    MappingConfig,
    ReplayConfig,
    TaskConfig,
    TrainedMappingConfig,
    chosen_corruptions,
    chosen_world_shifts,
    count_classes,
    probe_tasks,
    tasks_in_order,
)
from harness.finetuning import (
    METHODS,
    plan_batches,
    sequence_steps,
)
from harness.mappings import (
    ARRAYS,
    FAMILIES,
)
from harness.runs import list_subjects
from harness.tracking import plan_work
from tasks import choose_applicable

# training images of the built-in tasks
EMBEDDED = {"digits": 1257, "shapes": 1000, "textures": 1000, "counts": 1000}
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def count_training_images(task: TaskConfig) -> int | None:
    """Count a task's training images; None: unknown before they are loaded."""
    if task.n_per_class is None and task.part is not None:
        return None
    if task.n_train is not None:
        return task.n_train
    if task.n_per_class is None:
        return EMBEDDED[task.name] if isinstance(task, EmbeddedTaskConfig) else None
    n_classes = count_classes(task)
    # a multi-label image counts for each of its labels
    return None if n_classes is None or getattr(task, "multi_label", False) else task.n_per_class * n_classes


def plan_steps(config: Config) -> tuple[int | None, list[int] | None]:
    """Plan the optimizer steps and the snapshots' steps, over all tasks; None: not known yet.

    An epoch has at least one step, so the size of the task does not matter with ``finetune.max_steps`` epochs
    or more.

    Raises
    ------
    InputError
        If the batch is larger than the task.
    """
    settings, lengths, known = config.finetune, [], True
    for place, task in enumerate(tasks_in_order(config.task)):
        n_images = count_training_images(task)
        if n_images is not None:
            plan = plan_batches(config, n_images, 0, 1, place)
            lengths.append((plan.n_steps, plan.steps_per_epoch))
        elif settings.max_steps is None or settings.epochs < settings.max_steps:
            return None, None
        else:
            lengths.append((settings.max_steps, settings.max_steps))
            known = known and (config.snapshots.evenly is not None or not config.snapshots.at_epoch_ends)
    n_steps = sum(n_own for n_own, _ in lengths)
    return n_steps, sequence_steps(config.snapshots, lengths) if known else None


def count_fits(config: Config, n_snapshots: int) -> int:
    """Count the mappings to fit: every subject's snapshots, refits of step 0, and start of warm starts."""
    subjects = list_subjects(config.brain, Path())
    warm = getattr(config.mapping, "warm_steps", None) is not None
    return len(plan_work(config, subjects, range(n_snapshots))) + warm * len(subjects)


def count_start_fits(config: Config) -> int:
    """Count the fits of step 0 that other runs can take over: every subject's mapping, refits and start."""
    if FAMILIES[config.mapping.family].fit_together is not None:
        return 0
    return count_fits(config, 1)


def count_fit_steps(config: Config, n_fits: int) -> int | None:
    """Count the optimizer steps of all fits; None: the family is solved in closed form."""
    mapping = config.mapping
    if not isinstance(mapping, TrainedMappingConfig):
        return None
    if mapping.warm_steps is None:
        return n_fits * mapping.steps
    n_starts = len(list_subjects(config.brain, Path()))
    return n_starts * mapping.steps + (n_fits - n_starts) * mapping.warm_steps


def count_images_seen(config: Config, n_stimuli: int) -> int:
    """Count the images shown to each snapshot, leaving out task images whose number is unknown."""
    tasks = tasks_in_order(config.task)
    probes = set(config.probes.names) - {task.name for task in tasks}
    own = sum((count_training_images(task) or 0) + (task.n_test or 0) for task in tasks)
    of_probes = len(probes) * (config.probes.n_train + config.probes.n_test)
    shifted = sum(count_shifted(config, task, task.n_test or 0, ()) for task in tasks)
    shifted += sum(
        count_shifted(config, task, task.n_test or config.probes.n_test, config.probes.shifts)
        for task in probe_tasks(config)
    )
    return n_stimuli * len(list_subjects(config.brain, Path())) + of_probes + own + shifted


def count_shifted(config: Config, task: TaskConfig, n_test: int, more: Sequence[str]) -> int:
    """Count a task's images under shifts: those that it names, and `more` that apply to it."""
    shifts = [*task.shifts, *choose_applicable(more, task)]
    n_corrupted = min(config.shifts.n_corrupted, n_test or config.shifts.n_corrupted)
    n_corruptions = len(chosen_corruptions(shifts)) * len(config.shifts.severities)
    n_others = len(chosen_world_shifts(shifts)) + len(getattr(task, "variants", ()))
    return n_corrupted * n_corruptions + n_test * n_others


def count_images_per_step(config: Config) -> int:
    """Count the images of a step, mean over tasks.

    All tasks but the first have replayed ones, if any; an anchor at the brain reads unlabelled ones in every
    backward pass.
    """
    new, method = config.finetune.batch_size, config.method
    if isinstance(method, BrainAnchorConfig):
        per_pass = method.batch or new // config.finetune.accumulation
        return new + config.finetune.accumulation * min(per_pass, method.n_images)
    if not isinstance(method, ReplayConfig):
        return new
    n_tasks = len(tasks_in_order(config.task))
    return round(new * (1 + method.share / (1 - method.share) * (n_tasks - 1) / n_tasks))


def token_bytes(
    n_stimuli: int, widths: Sequence[int], mapping: MappingConfig, n_snapshots: int | None = None
) -> int | None:
    """Size of the tokens that are held at a time: token_size² local ones and a global one per layer.

    One snapshot's, or those of all for a family that fits them together; None if their number is unknown.
    """
    if FAMILIES[mapping.family].fit_together is None:
        n_snapshots = 1
    if n_snapshots is None:
        return None
    precision = getattr(mapping, "token_precision", "float32")
    return n_snapshots * n_stimuli * sum(widths) * (mapping.token_size**2 + 1) * BYTES[precision]


def mapping_bytes(n_voxels: int, widths: Sequence[int], mapping: MappingConfig) -> int:
    """Size of one mapping on disk in bytes, float32: its voxels' arrays and its projections of tokens.

    Selector networks and the tokens' frame are left out, being small in comparison.
    """
    family, n_layers = FAMILIES[mapping.family], len(widths)
    n_channels = getattr(mapping, "n_channels", 0)
    numbers = dict.fromkeys(ARRAYS, 1) | {"space": 2, "layer": n_layers, "weights": n_channels}
    per_voxel = sum(numbers[name] for name in family.arrays) + family.learned_per_voxel(n_layers, n_channels)
    return 4 * (n_voxels * per_voxel + family.n_projections * sum(widths) * n_channels)


def training_bytes(n_parameters: int, n_trained: int, n_kept: int = 0) -> int:
    """Memory for weights while fine-tuning, in bytes, float32, without activations.

    Parameters
    ----------
    n_parameters : int
        Of the whole network, which is in memory twice: pretrained and tuned.
    n_trained : int
        Each has a gradient and AdamW's two moments.
    n_kept : int
        From `numbers_kept`.
    """
    return 4 * (2 * n_parameters + 3 * n_trained + n_kept)


def numbers_kept(method: str, n_encoder: int, n_trained: int) -> int:
    """Count the numbers that a method's objective keeps: a teacher, starting points, Fisher information."""
    record = METHODS[method]
    # an anchor needs its pretrained copy before the first step alone, which is when memory must suffice too
    return (record.teacher or record.anchors) * n_encoder + record.copies_of_trained * n_trained


@dataclass(frozen=True)
class FitSpeed:
    """Measured durations of a fit's parts, in seconds.

    Attributes
    ----------
    step : float
        One optimizer step.
    start : float
        What depends on no stimuli.
    stimulus : float
        Per stimulus, for whatever reads all of them: weights in closed form, scores.
    compared : float
        Per stimulus, for closed forms that compare `MOST_PICTURES` training stimuli at most.
    ridge : float
        The ridge regression beside a mapping, for `ridge_stimuli` stimuli.
    ridge_stimuli, n_features : int
        It grows with the square of the stimuli, and linearly once they outnumber its features.
    """

    step: float
    start: float = 0.0
    stimulus: float = 0.0
    compared: float = 0.0
    ridge: float = 0.0
    ridge_stimuli: int = 1
    n_features: int = 1

    def seconds(self, n_fits: int, n_steps: int, n_stimuli: int, held_out: float) -> float:
        """Estimate the seconds of fits with `n_steps` in all."""
        # torch takes seconds to import, and a plan without times needs none
        from harness.mappings import MOST_PICTURES

        n_compared = min(n_stimuli, MOST_PICTURES / (1 - held_out))
        each = self.start + n_stimuli * self.stimulus + n_compared * self.compared
        return n_fits * each + n_steps * self.step

    def ridge_seconds(self, n_stimuli: int) -> float:
        """Estimate the seconds of one ridge regression."""
        size, measured = (n * min(n, self.n_features) for n in (n_stimuli, self.ridge_stimuli))
        return self.ridge * size / measured


@dataclass(frozen=True)
class Speed:
    """Measured durations of pieces of work, in seconds.

    Attributes
    ----------
    forward : float
        Forward pass of one image, without gradients.
    train : float
        Forward and backward pass of one image.
    update : float
        One optimizer step.
    fit : FitSpeed or None
        None: not measured.
    evidence : float
        Evidence of all layers, once.
    begin : float
        From the start of a process to the beginning of its work.
    """

    forward: float
    train: float
    update: float
    fit: FitSpeed | None = None
    evidence: float = 0.0
    begin: float = 0.0


def tuning_seconds(speed: Speed, n_steps: int, n_images: int, method: str) -> float:
    """Estimate the seconds of fine-tuning on `n_images` a step; a teacher adds a forward pass per image."""
    teacher = speed.forward if METHODS[method].teacher else 0.0
    return n_steps * (n_images * (speed.train + teacher) + speed.update)


def count_evidence(config: Config, n_snapshots: int, from_others: bool) -> int:
    """Count how often a subject's evidence is computed: for snapshots, and for penalties and controls.

    Parameters
    ----------
    from_others : bool
        Whether step 0 is taken over from another run, with penalties and controls.
    """
    from harness.mappings import PENALTIES
    from harness.measures import LEVELS, NOISES

    # noise that evidence is computed with once takes about as long as the evidence
    at_start = len(PENALTIES) + 2 + config.evidence.n_draws * len(LEVELS) * len(NOISES)
    return n_snapshots - 1 + at_start * (not from_others)


def tracking_seconds(
    config: Config, speed: Speed, n_stimuli: int, n_snapshots: int, n_fits: int, from_others: bool = False
) -> float | None:
    """Estimate the seconds of tracking; None: the family is solved in closed form, or was not measured.

    The sum of, for every snapshot, forward passes (`count_images_seen`), evidence per layer and a ridge
    regression; at step 0 the controls; and all fits.

    Parameters
    ----------
    n_stimuli : int
        Of a subject.
    n_fits : int
        That this run does itself.
    from_others : bool
        Whether it takes over step 0.
    """
    n_steps = count_fit_steps(config, n_fits)
    if speed.fit is None or n_steps is None:
        return None
    n_own, n_subjects = n_snapshots - from_others, len(list_subjects(config.brain, Path()))
    seen = n_own * count_images_seen(config, n_stimuli) * speed.forward
    compared = count_evidence(config, n_snapshots, from_others) * speed.evidence
    ridges = n_snapshots * speed.fit.ridge_seconds(n_stimuli)
    fits = speed.fit.seconds(n_fits, n_steps, n_stimuli, config.mapping.held_out)
    return seen + n_subjects * (compared + ridges) + fits


@dataclass(frozen=True)
class PlannedRun:
    """The expected work of one run; None: unknown before the run starts.

    Attributes
    ----------
    name : str
    finished : bool
    n_steps, n_snapshots, n_fits : int or None
        Optimizer steps, snapshots, and fits of all subjects' mappings.
    weights, tokens, disk : int or None
        Bytes of memory for weights while fine-tuning, of tokens (`token_bytes`), and of files.
    seconds : float or None
    snapshots : int or None
        Bytes of files of snapshots, a part of `disk`.
    """

    name: str
    finished: bool
    n_steps: int | None
    n_snapshots: int | None
    n_fits: int | None
    weights: int
    tokens: int | None
    disk: int | None
    seconds: float | None = None
    snapshots: int | None = None
