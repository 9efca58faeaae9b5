"""Handwritten digits: the UCI test set of Alpaydin and Kaynak (1998), 1,797 images of 8 × 8, from sklearn."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from harness.config import EmbeddedTaskConfig
from tasks.subsets import draw_per_class
from tasks.task import (
    Task,
    build_task,
    check_size,
)

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHARE_OF_TEST = 0.3


@lru_cache(maxsize=8)  # of runs in one process, many ask for the same task
def build(config: EmbeddedTaskConfig, at_most: bool = False) -> Task:
    """Split the digits by seed, stratified by class, and enlarge them.

    Parameters
    ----------
    config : EmbeddedTaskConfig
        Sizes of None take all images of each split (1,257 and 540).
    at_most : bool
        Whether sizes may exceed the images available.
    """
    data = load_digits()
    train, test = train_test_split(
        np.arange(len(data.target)), test_size=SHARE_OF_TEST, stratify=data.target, random_state=config.seed
    )
    # the split is shuffled by the seed, so its first images are a random subset
    train = train[: check_size("digits", "task.n_train", config.n_train, len(train), at_most)]
    test = test[: check_size("digits", "task.n_test", config.n_test, len(test), at_most)]
    if config.n_per_class is not None:
        train = train[draw_per_class(data.target[train], config.n_per_class, None, WORDS)]
    grey = np.round(data.images * (255 / 16)).astype(np.uint8)
    size = (config.image_size, config.image_size)

    def enlarge(indices: np.ndarray) -> list[Image.Image]:
        small = map(Image.fromarray, grey[indices])
        return [image.resize(size, Image.Resampling.BICUBIC).convert("RGB") for image in small]

    labels = data.target.astype(np.int64)
    return build_task(
        "digits",
        (enlarge(train), labels[train]),
        (enlarge(test), labels[test]),
        class_names=WORDS,
        templates=("a photo of the number {}", "a handwritten digit {}"),
        leaks=config.leaks,
    )
