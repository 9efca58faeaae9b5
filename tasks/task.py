"""`Task`, the common form of every labelled image data set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import datasets
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from PIL import Image
from torch import Tensor

from harness.storage import (
    InputError,
    as_rgb,
    content_hash,
    hash_pixels,
)
from tasks.losses import label_loss
from tasks.shift import Shift

log = logging.getLogger(__name__)

LabelArray = Int[np.ndarray, "_ ..."]
"""[n_images] class indices; or [n_images, n_classes] of 0 and 1, where an image may have several labels."""
Leaks = Literal["report", "drop", "error"]


@dataclass(frozen=True)
class Task:
    """A labelled image data set with splits.

    Attributes
    ----------
    name : str
    train, test : datasets.Dataset
        Columns `image` (decoded on demand) and `label` (a class index, or a list of 0 and 1).
    class_names : tuple of str
        As they read in a sentence.
    templates : tuple of str
        Prompt templates for zero-shot, with ``{}`` for the class name; none: no zero-shot.
    image_hashes : tuple of str
        Of the decoded images, train and test.
    fingerprint : str
        Hash of all images, labels and class names.
    multi_label : bool
        Whether an image may have several labels, or none.
    n_leaked : int
        Test images with the pixels of a training image, before any were dropped.
    shifts : tuple of Shift
        Test images from other distributions; corruptions are made when they are measured.
    corruptions : tuple of str
        Names of the corruptions to measure.
    imagenet : tuple of int
        Index of every class among ImageNet's 1,000, for heads that weights came with; empty if unknown.
    """

    name: str
    train: datasets.Dataset
    test: datasets.Dataset
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    image_hashes: tuple[str, str]
    fingerprint: str
    multi_label: bool = False
    n_leaked: int = 0
    shifts: tuple[Shift, ...] = ()
    corruptions: tuple[str, ...] = ()
    imagenet: tuple[int, ...] = ()

    @classmethod
    def from_images(
        cls,
        train: tuple[Sequence[Image.Image], Any],
        test: tuple[Sequence[Image.Image], Any],
        class_names: Sequence[str],
        *,
        templates: Sequence[str] = (),
        name: str = "images",
        leaks: Leaks = "report",
    ) -> Task:
        """Make a task of images in memory.

        Parameters
        ----------
        train, test : (images, labels)
            PIL images, and an int array [n_images] of class numbers or [n_images, n_classes] of 0 and 1.
        class_names : sequence of str [n_classes]
            As they read in a sentence.
        templates : sequence of str
            Sentences for zero-shot, with ``{}`` for the class name; none: no zero-shot.
        name : str
        leaks : "report", "drop" or "error"
            What to do with test images that are also training images.

        Raises
        ------
        InputError
            If numbers of images and labels differ, a label is no class, or an image has more than 8 bits a
            channel.

        Examples
        --------
        >>> task = harness.Task.from_images((train, [0, 1, 1]), (test, [1, 0]), ["cat", "dog"])
        """
        parts = []
        for split, (images, labels) in (("train", train), ("test", test)):
            array = np.asarray(labels)
            if array.ndim not in (1, 2) or len(array) != len(images) or array.dtype.kind not in "iub":
                raise InputError(
                    f"task {name}: {split}: found labels of shape {array.shape} of {array.dtype}, expected "
                    f"whole numbers [{len(images)}] or [{len(images)}, n_classes]"
                )
            highest = array.shape[1] if array.ndim == 2 else int(array.max(initial=-1)) + 1
            if (
                highest > len(class_names)
                or array.min(initial=0) < 0
                or (array.ndim == 2 and array.max() > 1)
            ):
                raise InputError(
                    f"task {name}: {split}: found labels that are none of {len(class_names)} classes"
                )
            parts.append((list(images), array.astype(np.int64)))
        return build_task(name, parts[0], parts[1], class_names, templates, leaks)

    @property
    def n_classes(self) -> int:
        """Number of classes, or of labels."""
        return len(self.class_names)

    def loss(
        self,
        logits: Float[Tensor, "n_images n_classes"],
        labels: Shaped[Tensor, "n_images *n_classes"],
        smoothing: float = 0.0,
    ) -> Float[Tensor, ""]:
        """Mean loss of a batch (`tasks.losses`)."""
        return label_loss(logits, labels, smoothing)

    def describe(self) -> dict[str, Any]:
        """Describe the task for a run's manifest."""
        shifted = {"shifts": {shift.name: shift.fingerprint for shift in self.shifts}} if self.shifts else {}
        return {
            "fingerprint": self.fingerprint,
            "n_train": len(self.train),
            "n_test": len(self.test),
            "n_classes": self.n_classes,
            "multi_label": self.multi_label,
            "test_images_also_in_train": self.n_leaked,
            **shifted,
        }


@dataclass(frozen=True)
class LabelledImages:
    """A split of a task in the making.

    Attributes
    ----------
    data : datasets.Dataset
        Columns `image` and `label`.
    labels : int array [n_images] or [n_images, n_classes]
    pixel_hashes : sequence of str [n_images]
        Of the decoded images.
    """

    data: datasets.Dataset
    labels: LabelArray
    pixel_hashes: Sequence[str]

    def keep(self, kept: Bool[np.ndarray, " n_images"]) -> LabelledImages:
        """Return the split with some of its images."""
        rows = np.flatnonzero(kept)
        return LabelledImages(
            self.data.select(rows), self.labels[rows], [self.pixel_hashes[int(row)] for row in rows]
        )


def build_task(
    name: str,
    train: tuple[Sequence[Image.Image], LabelArray],
    test: tuple[Sequence[Image.Image], LabelArray],
    class_names: Sequence[str],
    templates: Sequence[str],
    leaks: Leaks = "report",
) -> Task:
    """Build a task from images in memory, shown by the rule of `as_rgb`, and the labels of its two splits."""
    parts = []
    for split, (given, labels) in (("train", train), ("test", test)):
        images = [as_rgb(image, f"task {name}, {split}: image {row}") for row, image in enumerate(given)]
        columns = {"image": datasets.Image(), "label": label_feature(class_names, labels.ndim == 2)}
        data = datasets.Dataset.from_dict(
            {"image": images, "label": labels.tolist()}, features=datasets.Features(columns)
        )
        # not datasets' own fingerprints, which change when a set is saved and loaded
        parts.append(LabelledImages(data, labels, [hash_pixels(image) for image in images]))
    return join_splits(name, parts[0], parts[1], class_names, templates, leaks)


def join_splits(
    name: str,
    train: LabelledImages,
    test: LabelledImages,
    class_names: Sequence[str],
    templates: Sequence[str],
    leaks: Leaks = "report",
) -> Task:
    """Join two splits into a task, and handle test images that are also training images.

    Raises
    ------
    InputError
        With `leaks` "error", if there are any; with "drop", if no test image is left.
    """
    _count_contradictions(name, train, test)
    known = set(train.pixel_hashes)
    leaked = np.array([value in known for value in test.pixel_hashes], dtype=bool)
    n_leaked = int(leaked.sum())
    if n_leaked:
        found = f"task {name}: {n_leaked} of {len(leaked)} test images are also training images"
        if leaks == "error":
            raise InputError(f"{found}; expected none with task.leaks=error (drop removes them)")
        if leaks == "drop":
            if leaked.all():
                raise InputError(f"{found}; with task.leaks=drop no test image is left")
            test = test.keep(~leaked)
        done = "dropped from the test images" if leaks == "drop" else "task.leaks=drop drops them"
        log.warning("warning: %s, pixel by pixel; %s", found, done)
    hashes = (content_hash(list(train.pixel_hashes)), content_hash(list(test.pixel_hashes)))
    return Task(
        name,
        train=train.data,
        test=test.data,
        class_names=tuple(class_names),
        templates=tuple(templates),
        image_hashes=hashes,
        fingerprint=content_hash(hashes, train.labels, test.labels, list(class_names)),
        multi_label=train.labels.ndim == 2,
        n_leaked=n_leaked,
    )


def _count_contradictions(name: str, *parts: LabelledImages) -> None:
    """Warn of images with the same pixels and different labels."""
    labels_of: dict[str, set[bytes]] = {}
    for part in parts:
        for value, label in zip(part.pixel_hashes, part.labels, strict=True):
            labels_of.setdefault(value, set()).add(label.tobytes())
    torn = {value for value, labels in labels_of.items() if len(labels) > 1}
    if torn:
        n_images = sum(value in torn for part in parts for value in part.pixel_hashes)
        log.warning(
            "warning: task %s: %d images, equal pixel by pixel to another one, have another label than it "
            "(%d different pictures); all are kept",
            *(name, n_images, len(torn)),
        )


def label_feature(class_names: Sequence[str], multi_label: bool) -> Any:
    """Return the feature type of the column `label`."""
    if multi_label:
        return datasets.Sequence(datasets.Value("float32"), length=len(class_names))
    return datasets.ClassLabel(names=list(class_names))


def check_size(task: str, setting: str, wanted: int | None, available: int, at_most: bool = False) -> int:
    """Return how many images to take: `wanted`, or all.

    More than there are is an `InputError`, or all of them with `at_most`.
    """
    if wanted is not None and wanted > available and not at_most:
        raise InputError(f"{setting}: found {wanted}, expected at most {available}, all that {task} has")
    return available if wanted is None else min(wanted, available)
