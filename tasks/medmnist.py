"""MedMNIST (Yang et al. 2023, Scientific Data 10:41), read from its npz files, one per data set and size."""

from __future__ import annotations

import numpy as np
from PIL import Image

from harness.config import MedmnistTaskConfig
from harness.storage import (
    InputError,
    read_npz,
    refuse_endless,
    unknown_name,
    user_path,
)
from tasks.subsets import choose_rows
from tasks.task import (
    LabelArray,
    Task,
    build_task,
)


def build(config: MedmnistTaskConfig, at_most: bool = False) -> Task:
    """Load a data set; only the images in use are converted.

    Raises
    ------
    InputError
        If the file is missing or not a two-dimensional set of MedMNIST, or a label is none of `class_names`.
    """
    root = user_path(config.root or "~/.medmnist")
    file = root / (f"{config.flag}.npz" if config.size == 28 else f"{config.flag}_{config.size}.npz")
    refuse_endless(file)
    if not file.is_file():
        others = [path.stem for path in root.glob("*.npz")]
        if others:
            raise unknown_name(f"MedMNIST file in {root}", file.stem, others)
        raise InputError(
            f"{file}: no such file; download it from zenodo.org/records/10519652, or `pip install medmnist` "
            f"and `python -m medmnist download --size={config.size}`, and set task.root to its folder"
        )
    splits = (config.train, config.test or "test")
    found = read_npz(file, [f"{split}_{part}" for split in splits for part in ("labels", "images")])
    labels, pixels = ([found[f"{split}_{part}"] for split in splits] for part in ("labels", "images"))
    names = [" ".join(name.replace("_", " ").split()) for name in config.class_names or ()]
    arrays = [
        _check(f"{file}, {split}", array, images, names, config)
        for split, array, images in zip(splits, labels, pixels, strict=True)
    ]
    rows = choose_rows(config, arrays, [np.arange(len(array)) for array in arrays], names, at_most)
    parts = [
        ([Image.fromarray(images[row]).convert("RGB") for row in chosen], array[chosen])
        for images, array, chosen in zip(pixels, arrays, rows, strict=True)
    ]
    return build_task(config.name, parts[0], parts[1], names, config.templates, config.leaks)


def _check(
    place: str, labels: np.ndarray, pixels: np.ndarray, names: list[str], config: MedmnistTaskConfig
) -> LabelArray:
    if pixels.dtype != np.uint8 or pixels.shape[1:] not in (
        (config.size,) * 2,
        (config.size, config.size, 3),
    ):
        raise InputError(
            f"{place}: found images {pixels.dtype} {pixels.shape}, expected uint8, {config.size} × "
            f"{config.size} pixels, grey or RGB (not the three-dimensional sets)"
        )
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or len(labels) != len(pixels) or not len(labels):
        raise InputError(
            f"{place}: found labels {labels.dtype} {labels.shape}, expected integers "
            f"({len(pixels)}, n_labels)"
        )
    if labels.shape[1] != (len(names) if config.multi_label else 1):
        expected = f"{len(names)}, one for each" if config.multi_label else "one, a number"
        raise InputError(
            f"{place}: found {labels.shape[1]} label(s) per image, expected {expected} of task.class_names"
        )
    highest = 1 if config.multi_label else len(names) - 1
    wrong = ((labels < 0) | (labels > highest)).any(axis=1)
    if wrong.any():
        raise InputError(
            f"{place}: found labels from {labels.min()} to {labels.max()}, out of range in "
            f"{wrong.sum()} of {len(labels)} images; expected 0 to {highest}, "
            + ("whether an image has each label" if config.multi_label else "places in task.class_names")
        )
    return labels.astype(np.int64) if config.multi_label else labels[:, 0].astype(np.int64)
