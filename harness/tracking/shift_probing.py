"""Measure a snapshot under distribution shifts, by probes that are fitted on clean images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from harness.config import (
    ALL_CORRUPTIONS,
    ShiftsConfig,
)
from harness.measures import (
    Classifier,
    chance_accuracy,
    name_part,
    score_shift,
)
from harness.storage import content_hash
from tasks import (
    Shift,
    Task,
    corrupt_images,
    spread_rows,
)

# families differ in their number of images
Features = Float[np.ndarray, "_ _"]
Extract = Callable[[Sequence[Image.Image], str], Features]


def list_families(task: Task, config: ShiftsConfig) -> list[Shift]:
    """List a task's families of shifts; that of corruptions has the clean images that are corrupted."""
    if not task.corruptions:
        return list(task.shifts)
    n_images = min(config.n_corrupted, len(task.test))
    rows = spread_rows(len(task.test), n_images)
    labels = np.array(task.test["label"], dtype=np.int64)[rows]
    images = [task.test[int(row)]["image"] for row in rows]
    fingerprint = content_hash(task.image_hashes[1], rows)
    return [Shift(ALL_CORRUPTIONS, images, labels, rows, fingerprint), *task.shifts]


def list_parts(
    task: Task, family: Shift, config: ShiftsConfig
) -> Iterator[tuple[str, Sequence[Image.Image]]]:
    """Yield the parts of a family by name, with their images: each corruption at each severity, or all."""
    if family.name != ALL_CORRUPTIONS:
        yield family.name, family.images
        return
    for corruption in task.corruptions:
        for severity, images in corrupt_images(family.images, corruption, config.severities).items():
            yield name_part(corruption, severity), images


def measure_shifts(
    task: Task,
    clean: Features,
    classifiers: Mapping[str, Classifier],
    extract: Extract,
    config: ShiftsConfig,
) -> tuple[dict[str, Any], dict[str, Features]]:
    """Measure a task's shifts with the probes that were fitted on its clean training images.

    Parameters
    ----------
    task : Task
    clean : float array [n_test, n_channels]
        Features of the task's test images.
    classifiers : dict of str to Classifier
        By kind of probe.
    extract : function of images and a label to features
    config : ShiftsConfig

    Returns
    -------
    dict
        Content of a probes file, by family (`harness.measures.name_shifts` reads it).
    dict of str to float array [n_images, n_channels]
        Features of every part, by ``family/part``, for the heads.
    """
    found: dict[str, Any] = {}
    features: dict[str, Features] = {}
    for family in list_families(task, config):
        labels = family.relabel(np.array(task.test["label"], dtype=np.int64)[family.clean_rows])
        record: dict[str, Any] = {
            "n": len(family.labels),
            "hash": family.fingerprint,
            "n_clean": len(labels),
            "chance": chance_accuracy(family.labels),
            "clean": {},
            "parts": {},
        }
        found[family.name] = record
        for name, images in list_parts(task, family, config):
            features[f"{family.name}/{name}"] = extract(images, name)
            record["parts"][name] = {}
        for scoring, classify in classifiers.items():
            add_scores(record, scoring, classify, task, clean, family, features)
    return found, features


def add_scores(
    record: dict[str, Any],
    scoring: str,
    classify: Classifier,
    task: Task,
    clean: Features,
    family: Shift,
    features: Mapping[str, Features],
) -> None:
    """Add what one way to score got right to a family's record; other parameters as for `measure_shifts`."""
    labels = family.relabel(np.array(task.test["label"], dtype=np.int64)[family.clean_rows])
    record["clean"][scoring] = score_shift(family.project(classify(clean[family.clean_rows])), labels)
    for part, scores in record["parts"].items():
        probabilities = family.project(classify(features[f"{family.name}/{part}"]))
        scores[scoring] = score_shift(probabilities, family.labels)
