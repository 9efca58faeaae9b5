"""Measure a snapshot beside its mappings: head, probes, drift and collapse."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from scipy.special import expit, softmax

from harness.backbones import (
    Backbone,
    PretrainedHead,
    load_pretrained_head,
)
from harness.config import (
    Config,
    SequenceConfig,
)
from harness.finetuning import (
    TunedModel,
)
from harness.measures import (
    Classifier,
    LabelScores,
    ProbedTask,
    describe_features,
    fit_classifiers,
    name_scores,
    representation_drift,
    score_joint,
    score_labels,
    score_probes,
    weight_distance,
)
from harness.runs import (
    Inputs,
)
from harness.storage import (
    read_arrays,
    read_record,
    write_arrays,
    write_record,
)
from harness.tokens import (
    extract_features,
    extract_layer_means,
)
from harness.tracking.fitter import choose_drift_images
from harness.tracking.shift_probing import (
    Features,
    add_scores,
    list_families,
    measure_shifts,
)
from tasks import Task

LayerFeatures = dict[str, Float[np.ndarray, "n_images _"]]

# files of step 0's probes
PROBES, FEATURES, MEANS = "probes.json", "features.safetensors", "means.safetensors"


class Prober:
    """Probes the snapshots of a run and measures their drift from step 0.

    Parameters
    ----------
    inputs : Inputs
        Tasks, probes, the pretrained backbone, and brains. Drift is measured on the first subject's stimuli.
    config : Config
    device : torch.device
    quiet : bool
        Show no progress bars.
    """

    def __init__(self, inputs: Inputs, config: Config, device: torch.device, quiet: bool) -> None:
        self._tasks, self._probes = inputs.tasks, inputs.probes
        self._pretrained, self._brains = inputs.backbone, inputs.brains
        self._config, self._device, self._quiet = config, device, quiet

    def probe(
        self, model: TunedModel, backbone: Backbone, name: str, means: LayerFeatures | None = None
    ) -> dict[str, Any]:
        """Content of a snapshot's probes file (`harness.measures.name_probes` reads it).

        Parameters
        ----------
        model : TunedModel
            The snapshot, with its heads.
        backbone : Backbone
            The same with adapters merged.
        name : str
            Label of the progress bars.
        means : dict of layer to float array [n_images, n_channels], optional
            Of `choose_drift_images` (`harness.tokens.LayerMeans`); extracted if None.
        """
        found, features = self.probe_backbone(backbone, name, means)
        return self.add_heads(found, features, model)

    def write_start(
        self, backbone: Backbone, name: str, folder: Path, means: LayerFeatures | None = None
    ) -> None:
        """Measure the pretrained backbone and write all but the heads' scores into a new folder."""
        found, features = self.probe_backbone(backbone, name, means, at_start=True)
        folder.mkdir()
        write_record(folder / PROBES, found, "")
        for file, arrays in ((FEATURES, features), (MEANS, self._means_at_start)):
            write_arrays(folder / file, arrays, "")

    def read_start(self, folder: Path, model: TunedModel) -> dict[str, Any]:
        """Content of the probes file of step 0, from a folder of `write_start` and the heads."""
        means = read_arrays(folder / MEANS, "")
        # safetensors sorts by name
        layers = (*self._pretrained.layers, "features")
        self._means_at_start = {layer: means[layer] for layer in layers}
        return self.add_heads(read_record(folder / PROBES, ""), read_arrays(folder / FEATURES, ""), model)

    def add_heads(
        self,
        found: dict[str, Any],
        features: dict[str, Features],
        model: TunedModel,
    ) -> dict[str, Any]:
        """Add the scores of fine-tuned heads to what `probe_backbone` returns."""
        for place, task in enumerate(self._tasks):
            model.choose_head(place)
            self._add_head_under_shifts(found, features, model, task)
            scored = score_head(model, features[task.name], np.array(task.test["label"], dtype=np.int64))
            if len(self._tasks) == 1:
                found["task"] = scored.named()
            else:
                found.setdefault("heads", {})[task.name] = scored.named()
            if scored.images is not None:
                found["images"][task.name]["right"]["head"] = scored.images.encode()
        if isinstance(self._config.task, SequenceConfig) and self._config.task.whole is not None:
            found["joint"] = self._score_joint(features, model)
        return found

    def _add_head_under_shifts(
        self,
        found: dict[str, Any],
        features: dict[str, Features],
        model: TunedModel,
        task: Task,
    ) -> None:
        """Add the scores of a fine-tuned head to the records of its task's shifts."""
        records = found.get("shifts", {}).get(task.name)
        if not records:
            return
        start = f"{task.name}/"
        own = {name.removeprefix(start): part for name, part in features.items() if name.startswith(start)}

        def classify(images: np.ndarray) -> np.ndarray:
            return softmax(predict_logits(model, images), axis=1)

        for family in list_families(task, self._config.shifts):
            add_scores(records[family.name], "head", classify, task, features[task.name], family, own)

    def _score_joint(
        self, features: dict[str, Float[np.ndarray, "n_images n_channels"]], model: TunedModel
    ) -> list[list[float]]:
        """Score the heads of all stages of a task together (`harness.measures.score_joint`)."""
        logits: list[list[Float[np.ndarray, "n_images _"]]] = [[] for _ in self._tasks]
        for place in range(len(self._tasks)):
            model.choose_head(place)
            for stage, task in enumerate(self._tasks):
                logits[stage].append(predict_logits(model, features[task.name]))
        return score_joint(logits, [np.array(task.test["label"], dtype=np.int64) for task in self._tasks])

    def probe_backbone(
        self, backbone: Backbone, name: str, means: LayerFeatures | None = None, at_start: bool = False
    ) -> tuple[dict[str, Any], dict[str, Features]]:
        """Measure everything but the heads; return the features of fine-tuned tasks' test images too.

        `at_start`: the backbone is the pretrained one, so drift needs no images seen by another.
        """
        found, of_test, chance = self.score_tasks(backbone, name)
        health: dict[str, Any] = {"chance": chance}
        now = self._layer_means(backbone, f"{name}, drift") if means is None else means
        if at_start:
            self._means_at_start = now
        health["features"] = describe_features(now["features"])
        health["weights_finite"] = measure_finite(backbone.encoder)
        found |= {"drift": self._measure_drift(backbone, now), "health": health}
        return found, of_test

    def score_tasks(
        self, backbone: Backbone, name: str
    ) -> tuple[dict[str, Any], dict[str, Features], dict[str, float]]:
        """Score all probes of all tasks, without drift.

        Returns
        -------
        found : dict
            Part of a probes file: ``probe``, ``images``, ``multi_label`` and, if measured, ``shifts``.
        features : dict of task to float array [n_images, n_channels]
            Of fine-tuned tasks' test images, also shifted ones.
        chance : dict of task to float
            Share of the most frequent class, of fine-tuned tasks.
        """
        multi_label = [task.name for task in (*self._tasks, *self._probes) if task.multi_label]
        single = len(self._tasks) == 1
        found: dict[str, Any] = {"probe": {}, "multi_label": multi_label, "images": {}}
        chance: dict[str, float] = {}
        seen: dict[str, Features] = {}
        of_test: dict[str, Features] = {}
        for place, task in enumerate([*self._tasks, *self._probes]):
            tuned = place < len(self._tasks)
            features, labels = [], []
            for split, key in zip((task.train, task.test), task.image_hashes, strict=True):
                # probes may ask different questions about the same images
                if key not in seen:
                    seen[key] = self._features(backbone, split, f"{name}, {task.name}")
                features.append(seen[key])
                labels.append(np.array(split["label"], dtype=np.int64))
            # a sequence's later tasks are not trained yet: zero-shot says something about them
            text = None if tuned and single else self._pretrained.text
            probed = ProbedTask(features[0], labels[0], features[1], labels[1], task, text, self._head(task))
            shifted = bool(task.shifts or task.corruptions)
            fitted = fit_classifiers(probed, self._config) if shifted else None
            scored = score_probes(probed, self._config, fitted)
            if fitted is not None:
                records, seen_shifted = self._measure_shifts(backbone, task, features[1], fitted, name)
                found.setdefault("shifts", {})[task.name] = records
                if tuned:
                    of_test |= {f"{task.name}/{part}": array for part, array in seen_shifted.items()}
            found["probe"][task.name] = name_scores(scored)
            if tuned:
                if not task.multi_label:
                    chance[task.name] = float(np.bincount(labels[1]).max() / len(labels[1]))
                of_test[task.name] = features[1]
            found["images"][task.name] = {
                "n": len(labels[1]),
                "hash": task.image_hashes[1],
                "right": {
                    name: one.images.encode() for name, one in scored.items() if one.images is not None
                },
            }
        return found, of_test, chance

    def _measure_shifts(
        self,
        backbone: Backbone,
        task: Task,
        clean: Float[np.ndarray, "n_images n_channels"],
        fitted: dict[str, Classifier],
        name: str,
    ) -> tuple[dict[str, Any], dict[str, Features]]:
        batch_size, label = self._config.probes.batch_size, f"{name}, {task.name}"

        def extract(images: Sequence[Image.Image], part: str) -> Float[np.ndarray, "n_images n_channels"]:
            shown = self._label(f"{label}, {part}")
            return extract_features(backbone, images, batch_size, self._device, shown).numpy()

        return measure_shifts(task, clean, fitted, extract, self._config.shifts)

    def _head(self, task: Task) -> PretrainedHead | None:
        """The classifier that the weights came with, for tasks of ImageNet's classes."""
        return self._pretrained_head if task.imagenet else None

    @cached_property
    def _pretrained_head(self) -> PretrainedHead | None:
        return load_pretrained_head(self._config.backbone, self._pretrained.n_features)

    def _measure_drift(self, backbone: Backbone, now: LayerFeatures) -> dict[str, dict[str, float]]:
        before, after = (dict(part.encoder.named_parameters()) for part in (self._pretrained, backbone))
        layers = {
            name: layer for name, layer in self._pretrained.parameter_layers().items() if name in before
        }
        found = weight_distance(_to_numpy(before), _to_numpy(after), layers)
        for layer, measures in representation_drift(self._means_at_start, now).items():
            found.setdefault(layer, {}).update(measures)
        return found

    @cached_property
    def _means_at_start(self) -> LayerFeatures:
        return self._layer_means(self._pretrained, "tracking: drift, step 0")

    def _layer_means(self, backbone: Backbone, name: str) -> LayerFeatures:
        stimuli = self._brains.load(self._brains.subjects[0]).stimuli
        order, batch_size = choose_drift_images(self._config, self._brains), self._config.probes.batch_size
        return extract_layer_means(backbone, stimuli, order, batch_size, self._device, self._label(name))

    def _features(
        self, backbone: Backbone, split: Any, name: str
    ) -> Float[np.ndarray, "n_images n_channels"]:
        batch_size = self._config.probes.batch_size
        return extract_features(backbone, split["image"], batch_size, self._device, self._label(name)).numpy()

    def _label(self, text: str) -> str | None:
        return None if self._quiet else text


def _to_numpy(tensors: dict[str, torch.nn.Parameter]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().float().numpy() for name, tensor in tensors.items()}


def measure_finite(encoder: torch.nn.Module) -> float:
    """Share of an encoder's weights that are finite."""
    weights = [weight.detach() for weight in encoder.parameters()]
    finite = sum(int(weight.isfinite().sum()) for weight in weights)
    return finite / max(sum(weight.numel() for weight in weights), 1)


@torch.no_grad()
def predict_logits(
    model: TunedModel, features: Float[np.ndarray, "n_images n_channels"]
) -> Float[np.ndarray, "n_images n_classes"]:
    """Compute the current head's logits."""
    return model.classify(torch.from_numpy(features)).numpy()


def score_head(
    model: TunedModel,
    features: Float[np.ndarray, "n_images n_channels"],
    labels: Int[np.ndarray, "n_images *n_labels"],
) -> LabelScores:
    """Score the fine-tuned head on a task's test images: accuracy, AUROC, calibration."""
    logits = predict_logits(model, features)
    probabilities = softmax(logits, axis=1) if labels.ndim == 1 else expit(logits)
    return score_labels(probabilities, labels)
