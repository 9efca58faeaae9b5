"""MedMNIST (Yang et al. 2023, Scientific Data 10:41) as its npz files, one per data set and size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from harness.config import MedmnistTaskConfig
from harness.storage import (
    InputError,
    read_npz,
    unknown_name,
)
from tasks.subsets import choose_rows
from tasks.task import (
    LabelArray,
    Task,
    build_task,
)


def build(config: MedmnistTaskConfig, at_most: bool = False) -> Task:
    """Load a data set; only the images that are used are unpacked into a data set.

    Raises
    ------
    InputError
        If the file is not there or not one of MedMNIST's two-dimensional sets, or `class_names` are not as
        many as its labels.
    """
    root = Path(config.root or "~/.medmnist").expanduser()
    file = root / (f"{config.flag}.npz" if config.size == 28 else f"{config.flag}_{config.size}.npz")
    if not file.is_file():
        others = [path.stem for path in root.glob("*.npz")]
        if others:
            raise unknown_name(f"MedMNIST file in {root}", file.stem, others)
        raise InputError(
            f"{file}: no such file; the files are at zenodo.org/records/10519652, and `pip install medmnist` "
            f"downloads them (python -m medmnist download --size={config.size}); task.root names their folder"
        )
    splits = (config.train, config.test or "test")
    found = read_npz(file, [f"{split}_{part}" for split in splits for part in ("labels", "images")])
    labels, pixels = ([found[f"{split}_{part}"] for split in splits] for part in ("labels", "images"))
    names = [" ".join(name.replace("_", " ").split()) for name in config.class_names or ()]
    arrays = [
        _check(file, array, images, names, config) for array, images in zip(labels, pixels, strict=True)
    ]
    rows = choose_rows(config, arrays, [np.arange(len(array)) for array in arrays], names, at_most)
    parts = [
        ([Image.fromarray(images[row]).convert("RGB") for row in chosen], array[chosen])
        for images, array, chosen in zip(pixels, arrays, rows, strict=True)
    ]
    return build_task(config.name, parts[0], parts[1], names, config.templates, config.leaks)


def _check(
    file: Path, labels: np.ndarray, pixels: np.ndarray, names: list[str], config: MedmnistTaskConfig
) -> LabelArray:
    if pixels.dtype != np.uint8 or pixels.shape[1:] not in (
        (config.size,) * 2,
        (config.size, config.size, 3),
    ):
        raise InputError(
            f"{file}: found images {pixels.dtype} {pixels.shape}, accepted: uint8, {config.size} × "
            f"{config.size} pixels, grey or RGB (not the three-dimensional sets)"
        )
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or len(labels) != len(pixels) or not len(labels):
        raise InputError(f"{file}: found labels {labels.dtype} {labels.shape} for {len(pixels)} images")
    if config.multi_label:
        if labels.shape[1] != len(names) or not np.isin(labels, (0, 1)).all():
            raise InputError(
                f"{file}: found {labels.shape[1]} labels an image, and {len(names)} task.class_names"
            )
        return labels.astype(np.int64)
    if labels.shape[1] != 1 or labels.max() >= len(names):
        found = f"{labels.shape[1]} label(s) an image up to {labels.max()}"
        raise InputError(f"{file}: found {found}, and {len(names)} task.class_names")
    return labels[:, 0].astype(np.int64)
