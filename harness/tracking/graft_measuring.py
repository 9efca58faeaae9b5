"""Measure one graft: probes, the fine-tuned heads, and a frozen reading of the brain."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from harness.backbones import Backbone
from harness.brains import Brain
from harness.config import Config
from harness.finetuning import TunedModel
from harness.mappings import (
    MIN_R2,
    FrozenReading,
    TooFewStimuliError,
    load_split,
    pool_layers,
)
from harness.runs import (
    Inputs,
    Subject,
    split_file,
)
from harness.tokens import extract_features
from harness.tracking.graft_records import Measured
from harness.tracking.graft_units import graft
from harness.tracking.probing import Prober, score_head

log = logging.getLogger(__name__)


class Grafter:
    """Makes grafts of one run and measures them.

    Parameters
    ----------
    config : Config
    inputs : Inputs
    model : TunedModel
        Tuned by the run's method.
    start, end : mappings of name to tensor
        Changing states of the first and the last snapshot.
    units : mapping of unit to names of tensors
        From `changed_units`.
    device : torch.device
    quiet : bool
        Show no progress bars.
    """

    def __init__(
        self,
        config: Config,
        inputs: Inputs,
        model: TunedModel,
        start: Mapping[str, Tensor],
        end: Mapping[str, Tensor],
        units: Mapping[str, tuple[str, ...]],
        device: torch.device,
        quiet: bool,
    ) -> None:
        self._config, self._model, self._device, self._quiet = config, model, device, quiet
        self._inputs = inputs
        self._start, self._end, self._units = start, end, units
        # heads are scored here, and shifts say nothing of a single layer
        probes = tuple(replace(probe, shifts=(), corruptions=()) for probe in inputs.probes)
        self._prober = Prober(replace(inputs, tasks=(), probes=probes), config, device, quiet)
        self._readings: dict[Subject, _Reading | None] = {}

    def measure(self, chosen: Sequence[str], label: str) -> Measured:
        """Put the pretrained weights of the chosen units back and measure the network."""
        self._model.load_changing_state(graft(self._start, self._end, self._units, chosen))
        backbone = self._model.merged_backbone()
        found, _, _ = self._prober.score_tasks(backbone, label)
        images, scores = dict(found["images"]), {}
        several = list(found["multi_label"])
        for place, task in enumerate(self._inputs.tasks):
            self._model.choose_head(place)
            bar = None if self._quiet else f"{label}, {task.name}"
            features = extract_features(
                backbone, task.test["image"], self._config.probes.batch_size, self._device, bar
            )
            labels = np.array(task.test["label"], dtype=np.int64)
            scored = score_head(self._model, features.numpy(), labels)
            scores[task.name] = scored.named()
            if task.multi_label:
                several.append(task.name)
            if scored.images is not None:
                images[task.name] = {
                    "n": len(labels),
                    "hash": task.image_hashes[1],
                    "right": {"head": scored.images.encode()},
                }
        r2 = {
            subject.label or "all": value
            for subject in self._inputs.brains.subjects
            if (value := self._score_reading(subject, backbone, label)) is not None
        }
        return Measured(tuple(chosen), found["probe"], scores, images, r2, tuple(several))

    def _score_reading(self, subject: Subject, backbone: Backbone, label: str) -> float | None:
        """R² of step 0's reading on held-out stimuli, over the voxels it predicts; None without any."""
        if subject not in self._readings:
            self._readings[subject] = self._read_start(subject)
        reading = self._readings[subject]
        if reading is None:
            return None
        brain = self._inputs.brains.load(subject)
        tokens = self._pool(backbone, brain, reading.held_out, f"{label}, tokens")
        r2 = reading.fitted.score(tokens, brain.responses[reading.held_out])
        return float(r2[reading.voxels].mean(dtype=np.float64))

    def _read_start(self, subject: Subject) -> _Reading | None:
        """Fit the reading of the pretrained backbone; None with too few stimuli, or no predicted voxel."""
        brain = self._inputs.brains.load(subject)
        split = load_split(split_file(subject.folder), brain.stimulus_ids)
        rows, n_train = np.concatenate([split.train, split.held_out]), len(split.train)
        tokens = self._pool(self._inputs.backbone, brain, rows, "graft: step 0, tokens")
        try:
            fitted = FrozenReading(
                [layer[:n_train] for layer in tokens], brain.responses[split.train], split, self._config.seed
            )
        except TooFewStimuliError as error:
            log.warning("warning: grafts have no brain R²: %s", error)
            return None
        r2 = fitted.score([layer[n_train:] for layer in tokens], brain.responses[split.held_out])
        return _Reading(fitted, split.held_out, r2 > MIN_R2) if (r2 > MIN_R2).any() else None

    def _pool(self, backbone: Backbone, brain: Brain, rows: np.ndarray, label: str) -> list[Tensor]:
        batch_size, shown = self._config.probes.batch_size, None if self._quiet else label
        return pool_layers(backbone, brain.stimuli, rows.tolist(), batch_size, self._device, shown)


@dataclass(frozen=True)
class _Reading:
    """A subject's frozen reading, the rows it is scored on, and which voxels count."""

    fitted: FrozenReading
    held_out: Int[np.ndarray, " n_held_out"]
    voxels: Bool[np.ndarray, " n_voxels"]
