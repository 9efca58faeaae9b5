"""Entry point: snapshot → layer tokens → mapping and probes → results; what is done is not done again.

    python -m harness.track runs/<study>/<run>
    accelerate launch harness/track.py runs/<study>/<run>

The work is cut into units, one folder or file each: a mapping and the probes of every snapshot, and the
refits of step 0 that give the noise floor; of several subjects, mappings and refits of each. Processes share
the units out; the main one then derives every row of ``results.jsonl`` from what stands on disk, and forwards
them to MLflow.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from scipy.special import expit, softmax

from harness.backbones import (
    Backbone,
    encoder_hash,
)
from harness.config import (
    Config,
    MappingConfig,
    TrainedMappingConfig,
)
from harness.finetuning import (
    TunedModel,
    read_snapshot,
    tune,
)
from harness.mappings import (
    Mapping,
    Split,
    fit_mapping,
    load_mapping,
    load_split,
    prepare_tokens,
    save_mapping,
    save_split,
    split_brain,
)
from harness.measures import (
    ProbedTask,
    probe_features,
    representation_drift,
    score_labels,
    weight_distance,
)
from harness.runs import (
    Brains,
    Inputs,
    Subject,
    list_snapshots,
    probes_file,
    snapshot_folder,
    split_file,
    start_folder,
)
from harness.storage import (
    InputError,
    write_json,
)
from harness.tokens import (
    LayerTokens,
    extract_features,
    extract_layer_means,
)
from harness.tracking.results import write_results
from harness.tracking.work_items import (
    Unit,
    plan_units,
)


def track(config: Config, run: Path, inputs: Inputs, accelerator: Accelerator) -> None:
    """Track all snapshots of a run and write its results; parameters and errors as for `measure`."""
    steps = measure(config, run, inputs, accelerator)
    if accelerator.is_main_process:
        write_results(config, run, inputs, steps)
    accelerator.wait_for_everyone()


def measure(config: Config, run: Path, inputs: Inputs, accelerator: Accelerator) -> list[int]:
    """Fit mappings to all snapshots of a folder and probe them; returns their steps.

    Parameters
    ----------
    config : Config
    run : Path
        The folder, with snapshots.
    inputs : Inputs
        The folders of its subjects are below `run`.
    accelerator : Accelerator
        Its processes share the units out.

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
    brains = inputs.brains
    tracker = _Tracker(config, run, inputs, accelerator)
    missing = [unit for unit in plan_units(config, brains.subjects, steps) if not tracker.is_done(unit)]
    if accelerator.is_main_process:
        for subject in brains.subjects:
            _prepare_split(config, subject, brains)
    accelerator.wait_for_everyone()
    process, n_processes = accelerator.process_index, accelerator.num_processes
    unfitted = [subject for subject in brains.subjects if any(unit.subject == subject for unit in missing)]
    for subject in unfitted[process::n_processes]:
        tracker.prepare_start(subject)
    accelerator.wait_for_everyone()
    # by subject and step, so that the refits of one snapshot share its tokens; every process has its own
    place_of = {subject: place for place, subject in enumerate(brains.subjects)}
    own = sorted(missing[process::n_processes], key=lambda unit: (place_of[unit.subject], unit.step))
    for place, unit in enumerate(own, 1):
        tracker.track(unit, f"{place}/{len(own)}")
    accelerator.wait_for_everyone()
    return steps


def _prepare_split(config: Config, subject: Subject, brains: Brains) -> None:
    """Split a subject's stimuli, or check that the split that is there is of its stimuli."""
    brain, path = brains.load(subject), split_file(subject.folder)
    if not path.exists():
        save_split(split_brain(brain, config.mapping, config.seed), path, brain.stimulus_ids)
    load_split(path, brain.stimulus_ids)


class _Tracker:
    """Tracks units one after the other; holds the tokens of one snapshot and subject at a time."""

    def __init__(
        self,
        config: Config,
        run: Path,
        inputs: Inputs,
        accelerator: Accelerator,
    ) -> None:
        self.config, self.run, self.tasks, self.probes = config, run, inputs.tasks, inputs.probes
        self.brains = inputs.brains
        self.device, self.quiet = accelerator.device, not accelerator.is_main_process
        self.text = inputs.backbone.text
        self.pretrained = encoder_hash(inputs.backbone)
        widths = [task.n_classes for task in self.tasks]
        self.model = tune(inputs.backbone, widths, config.method, config.seed, self.tasks)
        self._step: int | None = None
        self._backbone = inputs.backbone
        self._seen: tuple[Subject, Split, LayerTokens] | None = None
        self._pretrained = inputs.backbone

    def is_done(self, unit: Unit) -> bool:
        """Whether everything of a unit is on disk."""
        return unit.mapping.exists() and not self._lacks_probes(unit)

    def _lacks_probes(self, unit: Unit) -> bool:
        # they are of no subject: the first one's units have them to do
        probing = unit.refit == 0 and unit.subject == self.brains.subjects[0]
        return probing and not probes_file(self.run, unit.step).exists()

    def prepare_start(self, subject: Subject) -> None:
        """Fit the mapping that all others of a subject begin from, where that is wanted and there is none."""
        if self._warm_steps is not None and not start_folder(subject.folder).exists():
            # one more fit of step 0, with a seed of its own, which nothing is compared with
            unit = Unit(subject, 0, self.config.mapping.floor_refits + 1)
            self._open(unit.step)
            name = f"tracking: {_name(subject)}step 0, start"
            save_mapping(self._fit(unit, name, self.config.mapping, None), start_folder(subject.folder))

    @property
    def _warm_steps(self) -> int | None:
        config = self.config.mapping
        return config.warm_steps if isinstance(config, TrainedMappingConfig) else None

    def _open(self, step: int) -> None:
        if self._step != step:
            read_snapshot(snapshot_folder(self.run, step), self.model, self.pretrained)
            self._step, self._backbone, self._seen = step, self.model.merged_backbone(), None

    def track(self, unit: Unit, label: str) -> None:
        """Do what is missing of one unit."""
        self._open(unit.step)
        name = f"tracking {label}: {_name(unit.subject)}step {unit.step}"
        name += f", refit {unit.refit}" if unit.refit else ""
        if not unit.mapping.exists():
            config, start = self.config.mapping, None
            if self._warm_steps is not None:
                start = load_mapping(start_folder(unit.subject.folder), with_learned=True)
                config = config.model_copy(update={"steps": self._warm_steps})
            save_mapping(self._fit(unit, name, config, start), unit.mapping)
        if self._lacks_probes(unit):
            write_json(probes_file(self.run, unit.step), self._probe(name))

    def _fit(self, unit: Unit, name: str, config: MappingConfig, start: Mapping | None) -> Mapping:
        brain = self.brains.load(unit.subject)
        split, tokens = self._see(unit.subject, name)
        return fit_mapping(
            tokens,
            brain.responses,
            brain.coords,
            brain.bounding_box,
            split,
            config,
            unit.seed(self.config),
            self.config.mapping.bootstrap,
            self.device,
            self._label(f"{name}, mapping"),
            start,
        )

    def _see(self, subject: Subject, name: str) -> tuple[Split, LayerTokens]:
        """The split of a subject's stimuli, and what the snapshot that is open makes of them."""
        if self._seen is None or self._seen[0] != subject:
            self._seen = None  # before the next tokens come
            brain = self.brains.load(subject)
            split = load_split(split_file(subject.folder), brain.stimulus_ids)
            tokens = prepare_tokens(
                self._backbone,
                brain.stimuli,
                split,
                self.config.mapping,
                self.config.probes.batch_size,
                self.device,
                self.run,
                self._label(f"{name}, tokens"),
            )
            self._seen = (subject, split, tokens)
        return self._seen[1:]

    def _probe(self, name: str) -> dict[str, Any]:
        several = [task.name for task in (*self.tasks, *self.probes) if task.multi_label]
        alone = len(self.tasks) == 1
        found: dict[str, Any] = {"probe": {}, "multi_label": several}
        seen: dict[str, Float[np.ndarray, "n_images n_channels"]] = {}
        for place, task in enumerate([*self.tasks, *self.probes]):
            trained = place < len(self.tasks)
            features, labels = [], []
            # two probes may ask other questions of the same images
            for split, key in zip((task.train, task.test), task.image_hashes, strict=True):
                if key not in seen:
                    seen[key] = self._features(split, f"{name}, {task.name}")
                features.append(seen[key])
                labels.append(np.array(split["label"], dtype=np.int64))
            # in a sequence, later tasks are not trained yet
            text = None if trained and alone else self.text
            probed = ProbedTask(features[0], labels[0], features[1], labels[1], task, text)
            found["probe"][task.name] = probe_features(probed, self.config)
            if trained:
                self.model.choose_head(place)
                scores = score_head(self.model, features[1], labels[1])
                if alone:
                    found["task"] = scores
                else:
                    found.setdefault("heads", {})[task.name] = scores
        return found | {"drift": self._measure_drift(name)}

    def _measure_drift(self, name: str) -> dict[str, dict[str, float]]:
        """How far layers have moved since step 0: weights, and answers to the first subject's stimuli."""
        before, after = (dict(part.encoder.named_parameters()) for part in (self._pretrained, self._backbone))
        layers = {
            name: layer for name, layer in self._pretrained.parameter_layers().items() if name in before
        }
        found = weight_distance(_to_numpy(before), _to_numpy(after), layers)
        now = self._see_layers(self._backbone, f"{name}, drift")
        for layer, measures in representation_drift(self._layers_at_start, now).items():
            found.setdefault(layer, {}).update(measures)
        return found

    @cached_property
    def _layers_at_start(self) -> dict[str, Float[np.ndarray, "n_images _"]]:
        return self._see_layers(self._pretrained, "tracking: drift, step 0")

    def _see_layers(self, backbone: Backbone, name: str) -> dict[str, Float[np.ndarray, "n_images _"]]:
        stimuli = self.brains.load(self.brains.subjects[0]).stimuli
        n_images = min(self.config.probes.n_drift, len(stimuli))
        order = np.linspace(0, len(stimuli) - 1, n_images).round().astype(int).tolist()
        batch_size = self.config.probes.batch_size
        return extract_layer_means(backbone, stimuli, order, batch_size, self.device, self._label(name))

    def _features(self, split: Any, name: str) -> Float[np.ndarray, "n_images n_channels"]:
        images = split["image"]
        return extract_features(
            self._backbone, images, self.config.probes.batch_size, self.device, self._label(name)
        ).numpy()

    def _label(self, text: str) -> str | None:
        return None if self.quiet else text


def _to_numpy(tensors: dict[str, torch.nn.Parameter]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().float().numpy() for name, tensor in tensors.items()}


def _name(subject: Subject) -> str:
    return "" if subject.label is None else f"{subject.label}, "


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
