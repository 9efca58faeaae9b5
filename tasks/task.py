"""What every labelled image data set is turned into: one `Task`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import numpy as np
from jaxtyping import Int
from PIL import Image

from harness.errors import InputError
from harness.files import content_hash


@dataclass(frozen=True)
class Task:
    """A labelled image data set with splits.

    Attributes
    ----------
    name : str
    train, test : datasets.Dataset
        Columns `image` (decoded on demand) and `label` (a class index).
    class_names : tuple of str
        As they read in a sentence.
    templates : tuple of str
        Sentences for zero-shot, with ``{}`` for the class name; none where texts cannot say the classes.
    image_hashes : tuple of str
        Of the images of train and of test.
    fingerprint : str
        Hash of all images and labels.
    """

    name: str
    train: datasets.Dataset
    test: datasets.Dataset
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    image_hashes: tuple[str, str]
    fingerprint: str

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def build_task(
    name: str,
    train: tuple[Sequence[Image.Image], Int[np.ndarray, " n_train"]],
    test: tuple[Sequence[Image.Image], Int[np.ndarray, " n_test"]],
    class_names: Sequence[str],
    templates: Sequence[str],
) -> Task:
    """Build a task from images and class indices of its two splits."""
    parts = [_build_split(images, labels, class_names) for images, labels in (train, test)]
    # not datasets' own fingerprints, which change when a set is saved and loaded
    hashes = [content_hash([np.asarray(image) for image in images]) for images, _ in (train, test)]
    return Task(
        name,
        train=parts[0],
        test=parts[1],
        class_names=tuple(class_names),
        templates=tuple(templates),
        image_hashes=(hashes[0], hashes[1]),
        fingerprint=content_hash(hashes, train[1], test[1], list(class_names)),
    )


def _build_split(
    images: Sequence[Image.Image], labels: Int[np.ndarray, " n_images"], class_names: Sequence[str]
) -> datasets.Dataset:
    columns = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(class_names))}
    )
    return datasets.Dataset.from_dict({"image": list(images), "label": labels.tolist()}, features=columns)


def check_size(task: str, setting: str, wanted: int | None, available: int) -> int:
    """How many images to take: `wanted`, or all there are; more than that is an `InputError`."""
    if wanted is not None and wanted > available:
        raise InputError(f"{setting}: found {wanted}, accepted: at most {available}, all that {task} has")
    return available if wanted is None else wanted
