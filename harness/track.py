"""Entry point: snapshot → layer tokens → mapping and probes → results; what is done is not done again.

    python -m harness.track runs/<study>/<run>
    accelerate launch harness/track.py runs/<study>/<run>

The work is cut into units, one folder or file each: a mapping and the probes of every snapshot, and the
refits of step 0 that give the noise floor. Processes share the units out; the main one then derives every
row of ``results.jsonl`` from what stands on disk, and forwards them to MLflow.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from scipy.special import expit, softmax

from harness.accelerator import build_accelerator
from harness.backbones import Backbone, TextTower, load_backbone
from harness.brains import load_brain
from harness.brains.brain import Brain
from harness.config import load_config, read_config
from harness.errors import InputError, exit_with_one_line
from harness.families import fit_mapping, prepare_tokens
from harness.features import LayerTokens, extract_features
from harness.files import read_json, write_json
from harness.journal import Journal
from harness.label_scores import score_labels
from harness.layout import list_snapshots, mapping_folder, probes_file, snapshot_folder, start_folder
from harness.mapping import Mapping, load_mapping, save_mapping
from harness.measurements import measure_snapshots
from harness.methods import TunedModel, tune
from harness.probes import knn_probe, linear_probe, zero_shot
from harness.sections import Config, MappingConfig, TrainedMappingConfig
from harness.snapshots import encoder_hash, read_snapshot
from harness.splits import Split, load_split, save_split, split_brain
from harness.tracking import TrackedRun
from tasks import load_task
from tasks.task import Task


@dataclass(frozen=True)
class Unit:
    """One piece of tracking: a snapshot (refit 0), or a refit of it for the noise floor."""

    step: int
    refit: int = 0

    def is_done(self, run: Path) -> bool:
        """Whether everything of it is on disk."""
        fitted = mapping_folder(run, self.step, self.refit).exists()
        return fitted and (self.refit > 0 or probes_file(run, self.step).exists())

    def seed(self, config: Config) -> int:
        """Seed of its mapping: its own, so that a snapshot's fit is drawn as the refits of step 0 are."""
        sequence = np.random.SeedSequence((config.seed, self.step, self.refit))
        return int(sequence.generate_state(1, np.uint32)[0])


def plan_units(config: Config, steps: list[int]) -> list[Unit]:
    """All units of a run: the refits of step 0, then every snapshot."""
    return [Unit(0, refit) for refit in range(1, config.mapping.floor_refits + 1)] + [
        Unit(step) for step in steps
    ]


def load_probes(config: Config) -> list[Task]:
    """The probes of a run; the task that is fine-tuned on is none: what changes there is learning.

    A name is that of a file in ``configs/task``. Where that says nothing of sizes, they are those of
    `probes`, or all that a task has.
    """
    found = []
    for name in config.probes.tasks:
        if name == config.task.name:
            continue
        settings = load_config([f"task={name}"]).task.model_dump()
        settings["n_test"] = settings["n_test"] or config.probes.n_test
        if settings["n_per_class"] is None:
            settings["n_train"] = settings["n_train"] or config.probes.n_train
        found.append(load_task(**(settings | {"name": name, "seed": config.seed}), at_most=True))
    return found


def track(
    config: Config,
    run: Path,
    task: Task,
    backbone: Backbone,
    brain: Brain,
    accelerator: Accelerator,
    probes: Sequence[Task] | None = None,
) -> None:
    """Track all snapshots of a run and write its results; parameters and errors as for `measure`."""
    units = measure(config, run, task, backbone, brain, accelerator, probes)
    if accelerator.is_main_process:
        write_results(config, run, brain, units)
    accelerator.wait_for_everyone()


def measure(
    config: Config,
    run: Path,
    task: Task,
    backbone: Backbone,
    brain: Brain,
    accelerator: Accelerator,
    probes: Sequence[Task] | None = None,
) -> list[Unit]:
    """Fit mappings to all snapshots of a folder and probe them; returns the units, all of them done.

    Parameters
    ----------
    config : Config
    run : Path
        The run's folder, with snapshots.
    task : Task
        The one that was fine-tuned on.
    backbone : Backbone
        As pretrained.
    brain : Brain
    accelerator : Accelerator
        Its processes share the units out.
    probes : sequence of Task, optional
        The other tasks; without, they are loaded.

    Raises
    ------
    InputError
        Where there is no snapshot, or one does not fit the backbone.
    """
    steps = list_snapshots(run)
    if not steps:
        raise InputError(
            f"{run / 'snapshots'}: no snapshot to track; accepted: the folder of a fine-tuned run"
        )
    units = plan_units(config, steps)
    missing = [unit for unit in units if not unit.is_done(run)]
    split = _open_split(config, run, brain, accelerator)
    probes = load_probes(config) if probes is None else probes
    tracker = _Tracker(config, run, task, probes, backbone, brain, split, accelerator)
    if missing and accelerator.is_main_process:
        tracker.prepare_start()
    accelerator.wait_for_everyone()
    # by step, so that the refits of one snapshot share its tokens; every process has its own
    own = sorted(missing[accelerator.process_index :: accelerator.num_processes], key=lambda unit: unit.step)
    for place, unit in enumerate(own, 1):
        tracker.track(unit, f"{place}/{len(own)}")
    accelerator.wait_for_everyone()
    return units


def write_results(config: Config, run: Path, brain: Brain, units: list[Unit]) -> None:
    """Derive every row from mappings and probes on disk, write them and forward them to MLflow."""
    with Journal(run / "results.jsonl") as journal:
        for step, values in derive_rows(config, run, brain, units):
            journal.log(step, values)
    forward_rows(config, run)


def derive_rows(
    config: Config, run: Path, brain: Brain, units: list[Unit]
) -> Iterator[tuple[int, dict[str, float]]]:
    """Values by name of every snapshot, from mappings and probes on disk."""
    mappings = {unit.step: load_mapping(mapping_folder(run, unit.step)) for unit in units if not unit.refit}
    refits = [load_mapping(mapping_folder(run, unit.step, unit.refit)) for unit in units if unit.refit]
    probes = {step: read_json(probes_file(run, step)) for step in mappings}
    return measure_snapshots(mappings, refits, probes, brain, config.task.name, config.seed)


def forward_rows(config: Config, run: Path) -> None:
    """Send the rows of a run's journal to MLflow."""
    manifest = read_json(run / "manifest.json")
    with TrackedRun(config, run, {"code_version": manifest["code_version"]}) as tracked:
        tracked.forward()


def _open_split(config: Config, run: Path, brain: Brain, accelerator: Accelerator) -> Split:
    path = run / "split.json"
    if accelerator.is_main_process and not path.exists():
        save_split(split_brain(brain, config.mapping, config.seed), path, brain.stimulus_ids)
    accelerator.wait_for_everyone()
    return load_split(path, brain.stimulus_ids)


class _Tracker:
    """Tracks units one after the other; holds the tokens and features of one snapshot at a time."""

    def __init__(
        self,
        config: Config,
        run: Path,
        task: Task,
        probes: Sequence[Task],
        backbone: Backbone,
        brain: Brain,
        split: Split,
        accelerator: Accelerator,
    ) -> None:
        self.config, self.run, self.task, self.probes = config, run, task, probes
        self.brain, self.split = brain, split
        self.device, self.quiet = accelerator.device, not accelerator.is_main_process
        self.text = backbone.text
        self.pretrained = encoder_hash(backbone)
        self.model = tune(backbone, task.n_classes, config.method, config.seed, task)
        self._step: int | None = None
        self._backbone = backbone
        self._tokens: LayerTokens | None = None

    def prepare_start(self) -> None:
        """Fit the mapping that all others begin from, where that is wanted and there is none."""
        if self._warm_steps is not None and not start_folder(self.run).exists():
            # one more fit of step 0, with a seed of its own, which nothing is compared with
            unit = Unit(0, self.config.mapping.floor_refits + 1)
            self._open(unit.step)
            mapping = self._fit(unit, "tracking: step 0, start", self.config.mapping, None)
            save_mapping(mapping, start_folder(self.run))

    @property
    def _warm_steps(self) -> int | None:
        config = self.config.mapping
        return config.warm_steps if isinstance(config, TrainedMappingConfig) else None

    def _open(self, step: int) -> None:
        if self._step != step:
            read_snapshot(snapshot_folder(self.run, step), self.model, self.pretrained)
            self._step, self._backbone, self._tokens = step, self.model.merged_backbone(), None

    def track(self, unit: Unit, label: str) -> None:
        """Do what is missing of one unit."""
        self._open(unit.step)
        mapping, probes = mapping_folder(self.run, unit.step, unit.refit), probes_file(self.run, unit.step)
        name = f"tracking {label}: step {unit.step}" + (f", refit {unit.refit}" if unit.refit else "")
        if not mapping.exists():
            config, start = self.config.mapping, None
            if self._warm_steps is not None:
                start = load_mapping(start_folder(self.run), with_learned=True)
                config = config.model_copy(update={"steps": self._warm_steps})
            save_mapping(self._fit(unit, name, config, start), mapping)
        if not unit.refit and not probes.exists():
            write_json(probes, self._probe(name))

    def _fit(self, unit: Unit, name: str, config: MappingConfig, start: Mapping | None) -> Mapping:
        if self._tokens is None:
            self._tokens = prepare_tokens(
                self._backbone,
                self.brain.stimuli,
                self.split,
                self.config.mapping,
                self.config.probes.batch_size,
                self.device,
                self.run,
                self._label(f"{name}, tokens"),
            )
        return fit_mapping(
            self._tokens,
            self.brain.responses,
            self.brain.coords,
            self.brain.bounding_box,
            self.split,
            config,
            unit.seed(self.config),
            self.config.mapping.bootstrap,
            self.device,
            self._label(f"{name}, mapping"),
            start,
        )

    def _probe(self, name: str) -> dict[str, Any]:
        several = [task.name for task in (self.task, *self.probes) if task.multi_label]
        found: dict[str, Any] = {"probe": {}, "multi_label": several}
        seen: dict[str, Float[np.ndarray, "n_images n_channels"]] = {}
        for task in [self.task, *self.probes]:
            features, labels = [], []
            # two probes may ask other questions of the same images
            for split, key in zip((task.train, task.test), task.image_hashes, strict=True):
                if key not in seen:
                    seen[key] = self._features(split, f"{name}, {task.name}")
                features.append(seen[key])
                labels.append(np.array(split["label"], dtype=np.int64))
            found["probe"][task.name] = probe_features(
                features[0],
                labels[0],
                features[1],
                labels[1],
                self.config,
                None if task is self.task else self.text,
                task,
            )
            if task is self.task:
                found["task"] = score_head(self.model, features[1], labels[1])
        return found

    def _features(self, split: Any, name: str) -> Float[np.ndarray, "n_images n_channels"]:
        images = split["image"]
        return extract_features(
            self._backbone, images, self.config.probes.batch_size, self.device, self._label(name)
        ).numpy()

    def _label(self, text: str) -> str | None:
        return None if self.quiet else text


def probe_features(
    train: Float[np.ndarray, "n_train n_channels"],
    train_labels: Int[np.ndarray, "n_train *n_labels"],
    test: Float[np.ndarray, "n_test n_channels"],
    test_labels: Int[np.ndarray, "n_test *n_labels"],
    config: Config,
    text: TextTower | None,
    task: Task,
) -> dict[str, float]:
    """Linear probe, nearest neighbours and, with a text tower and templates, zero-shot as pretrained."""
    scores = linear_probe(
        train, train_labels, test, test_labels, config.seed, config.probes.steps
    ).scores.named("linear_")
    neighbours = knn_probe(train, train_labels, test, test_labels, config.probes.knn_k)
    scores |= neighbours.scores.named("knn_")
    if text is not None and task.templates:
        head = text.embed_classes(task.class_names, task.templates).numpy()
        scores |= zero_shot(test, head, test_labels, text.logit_scale).scores.named("zero_shot_")
    return scores


def score_head(
    model: TunedModel,
    features: Float[np.ndarray, "n_images n_channels"],
    labels: Int[np.ndarray, "n_images *n_labels"],
) -> dict[str, float]:
    """Accuracy, AUROC and calibration of the fine-tuned head on the task's test images."""
    with torch.no_grad():
        logits = model.classify(torch.from_numpy(features)).numpy()
    probabilities = softmax(logits, axis=1) if labels.ndim == 1 else expit(logits)
    return score_labels(probabilities, labels).named()


def main() -> None:
    """Track the runs whose folders the command line names."""
    parser = argparse.ArgumentParser(prog="python -m harness.track", description=main.__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN_FOLDER")
    for folder in parser.parse_args().folders:
        config = read_config(folder / "config.yaml")
        task = load_task(**config.task.model_dump())
        accelerator = build_accelerator(config.finetune)
        backbone, brain = load_backbone(config.backbone), load_brain(config.brain)
        track(config, folder, task, backbone, brain, accelerator)


if __name__ == "__main__":
    exit_with_one_line(main)
