"""What a run costs, as plain arithmetic: steps, snapshots, fits, bytes, seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config import (
    Config,
    EmbeddedTaskConfig,
    MappingConfig,
    TaskConfig,
    TrainedMappingConfig,
    tasks_in_order,
)
from harness.finetuning import (
    plan_batches,
    sequence_steps,
)
from harness.runs import list_subjects
from harness.tracking import plan_work

# training images and classes of the tasks that ship with the project
EMBEDDED = {"digits": (1257, 10), "shapes": (1000, 12), "textures": (1000, 6), "counts": (1000, 3)}
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def count_classes(task: TaskConfig) -> int | None:
    """Classes or labels of a task, where they are known before its images are there."""
    if isinstance(task, EmbeddedTaskConfig):
        return EMBEDDED[task.name][1]
    for names in (
        getattr(task, "label_columns", None),
        getattr(task, "classes", None),
        getattr(task, "class_names", None),
    ):
        if names is not None:
            return len(names)
    return None


def count_training_images(task: TaskConfig) -> int | None:
    """Training images, where they are known before the images are there."""
    if task.n_train is not None:
        return task.n_train
    if task.n_per_class is None:
        return EMBEDDED[task.name][0] if isinstance(task, EmbeddedTaskConfig) else None
    n_classes = count_classes(task)
    # an image with several labels counts for each of them
    return None if n_classes is None or getattr(task, "multi_label", False) else task.n_per_class * n_classes


def plan_steps(config: Config) -> tuple[int | None, list[int] | None]:
    """Optimizer steps and the steps of the snapshots; None where they hang on a number that is not known.

    Those of a sequence are all its tasks'.

    An epoch has one step or more, so with as many epochs as ``finetune.max_steps`` the size of the task
    does not matter.

    Raises
    ------
    InputError
        For a batch that is larger than the task.
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
            known = known and not config.snapshots.at_epoch_ends
    n_steps = sum(n_own for n_own, _ in lengths)
    return n_steps, sequence_steps(config.snapshots, lengths) if known else None


def count_fits(config: Config, n_snapshots: int) -> int:
    """Mappings that are fitted: of every subject the snapshots, the refits of step 0, and a warm start's."""
    subjects = list_subjects(config.brain, Path())
    warm = getattr(config.mapping, "warm_steps", None) is not None
    return len(plan_work(config, subjects, range(n_snapshots))) + warm * len(subjects)


def count_fit_steps(config: Config, n_fits: int) -> int | None:
    """Optimizer steps of all fits; None for a family that is solved."""
    mapping = config.mapping
    if not isinstance(mapping, TrainedMappingConfig):
        return None
    if mapping.warm_steps is None:
        return n_fits * mapping.steps
    n_starts = len(list_subjects(config.brain, Path()))
    return n_starts * mapping.steps + (n_fits - n_starts) * mapping.warm_steps


def count_images_seen(config: Config, n_stimuli: int) -> int:
    """Images that a snapshot is shown to be tracked; of what is trained on those whose number is known."""
    tasks = tasks_in_order(config.task)
    probes = set(config.probes.tasks) - {task.name for task in tasks}
    own = sum((count_training_images(task) or 0) + (task.n_test or 0) for task in tasks)
    of_probes = len(probes) * (config.probes.n_train + config.probes.n_test)
    return n_stimuli * len(list_subjects(config.brain, Path())) + of_probes + own


def token_bytes(n_stimuli: int, widths: Sequence[int], mapping: MappingConfig) -> int:
    """Tokens of one snapshot: of each layer token_size² local ones and a global one, in their precision."""
    precision = getattr(mapping, "token_precision", "float32")
    return n_stimuli * sum(widths) * (mapping.token_size**2 + 1) * BYTES[precision]


def mapping_bytes(n_voxels: int, widths: Sequence[int], mapping: MappingConfig) -> int:
    """One mapping on disk, float32: arrays of its voxels and, of trained families, two projections a layer.

    The selectors' networks and the tokens' frame, which are small beside these, are left out.
    """
    n_layers = len(widths)
    if not isinstance(mapping, TrainedMappingConfig):
        return 4 * n_voxels * (n_layers + 2)
    # layer, place, scale, weights, bias, two scores
    of_voxels = n_voxels * (n_layers + 2 + 1 + mapping.n_channels + 1 + 2)
    projections = 2 if mapping.family != "attention" else 4  # keys and values
    return 4 * (of_voxels + projections * sum(widths) * mapping.n_channels)


def training_bytes(n_parameters: int, n_trained: int, n_kept: int = 0) -> int:
    """Weights while a run is fine-tuned, float32, without activations.

    Parameters
    ----------
    n_parameters : int
        Of the whole network: once as pretrained, once as it is tuned.
    n_trained : int
        Each with a gradient and AdamW's two moments.
    n_kept : int
        What the method keeps besides: a teacher, starting points, Fisher information.
    """
    return 4 * (2 * n_parameters + 3 * n_trained + n_kept)


def numbers_kept(method: str, n_encoder: int, n_trained: int) -> int:
    """Numbers that a method's objective keeps beside the model."""
    if method in ("ldifs", "lwf"):
        return n_encoder  # a teacher
    if method in ("l2_sp", "l2_sp_ldifs"):
        return n_trained  # the start
    return 2 * n_trained if method == "ewc" else 0  # start and Fisher information


@dataclass(frozen=True)
class Speed:
    """Seconds of pieces of work, as measured.

    Attributes
    ----------
    forward : float
        Of an image through the network, without gradients.
    train : float
        Of an image forward and backward.
    update : float
        Of the optimizer, once a step.
    fit_step, fit_start : float or None
        Of a step of a fit, and of all of a fit beside its steps; None where fits were not measured.
    """

    forward: float
    train: float
    update: float
    fit_step: float | None = None
    fit_start: float = 0.0


def tuning_seconds(speed: Speed, n_steps: int, batch_size: int, method: str) -> float:
    """Seconds of fine-tuning; teachers see every image once more."""
    teacher = speed.forward if method in ("ldifs", "lwf") else 0.0
    return n_steps * (batch_size * (speed.train + teacher) + speed.update)


def tracking_seconds(
    speed: Speed, n_snapshots: int, n_seen: int, n_fits: int, n_fit_steps: int | None
) -> float | None:
    """Seconds of tracking: of each snapshot `n_seen` images forward, and all fits; None: unknown fits."""
    if speed.fit_step is None or n_fit_steps is None:
        return None
    return n_snapshots * n_seen * speed.forward + n_fits * speed.fit_start + n_fit_steps * speed.fit_step


@dataclass(frozen=True)
class PlannedRun:
    """What one run of a study is expected to do; None: not known before it is begun.

    Attributes
    ----------
    name : str
    finished : bool
    n_steps, n_snapshots, n_fits : int or None
        Of the optimizer; measured; snapshots and refits of all subjects.
    weights, tokens, disk : int or None
        Bytes: in memory for fine-tuning without activations; of one snapshot's tokens; kept on disk.
    seconds : float or None
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
