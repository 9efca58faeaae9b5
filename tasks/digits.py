"""Handwritten digits: the UCI test set of Alpaydin and Kaynak (1998), 1,797 images of 8×8, as in sklearn."""

from __future__ import annotations

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tasks.task import Task, build_task, check_size

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHARE_OF_TEST = 0.3


def build(n_train: int | None, n_test: int | None, seed: int, image_size: int) -> Task:
    """Split the digits by seed, with equal shares of the classes, and enlarge them.

    Parameters
    ----------
    n_train, n_test : int or None
        Images of each split; None: all (1,257 and 540).
    seed : int
        Of the split and of which images are taken.
    image_size : int
        Edge of the images, pixels.
    """
    data = load_digits()
    train, test = train_test_split(
        np.arange(len(data.target)), test_size=SHARE_OF_TEST, stratify=data.target, random_state=seed
    )
    # the split's order is already shuffled by the seed, so its beginning is a random subset
    train = train[: check_size("digits", "task.n_train", n_train, len(train))]
    test = test[: check_size("digits", "task.n_test", n_test, len(test))]
    grey = np.round(data.images * (255 / 16)).astype(np.uint8)
    images = [
        Image.fromarray(grey[index]).resize((image_size, image_size), Image.Resampling.BICUBIC).convert("RGB")
        for index in range(len(grey))
    ]
    labels = data.target.astype(np.int64)
    return build_task(
        "digits",
        ([images[index] for index in train], labels[train]),
        ([images[index] for index in test], labels[test]),
        class_names=WORDS,
        templates=("a photo of the number {}", "a handwritten digit {}"),
    )
