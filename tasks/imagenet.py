"""ImageNet-1k and its natural shifts (V2, R, A, Sketch, ObjectNet), from folders or the hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from harness.config import (
    HubTaskConfig,
    ImagefolderTaskConfig,
    ImagenetTaskConfig,
    LabelConfig,
)
from harness.storage import (
    InputError,
    content_hash,
    decode_image,
    find_images,
    hash_files,
    user_path,
)
from tasks import imagefolder
from tasks.external import build_external
from tasks.hub import open_repository
from tasks.image_column import TaskImage
from tasks.imagenet_classes import (
    CLASSES_FILE,
    class_names,
    find_index,
    map_folders,
    wordnet_ids,
)
from tasks.pixel_hashes import hash_images
from tasks.shift import Shift
from tasks.splits import choose_splits
from tasks.subsets import draw_rows
from tasks.task import Task

HUB = "hub:"
"""Before the name of a variant's data set on the hub."""
RED_BORDER = 2
"""Pixels that ObjectNet's authors crop from every side: its images have a red border."""


class _Pictures(Sequence[Image.Image]):
    """Images decoded at every access."""

    def __init__(self, n: int, read: Callable[[int], Image.Image]) -> None:
        self._n, self._read = n, read

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> Image.Image:  # type: ignore[override]
        if not 0 <= index < self._n:
            raise IndexError(index)
        return self._read(index)


def build(config: ImagenetTaskConfig, at_most: bool = False) -> Task:
    """Load ImageNet-1k, or the part of its classes that is there, with the shifts among its variants.

    Parameters
    ----------
    config : ImagenetTaskConfig
        With `root`, class folders named by WordNet ids, in folders of splits or alone; with `repository`, a
        data set of the hub whose labels are WordNet ids or indices.
    at_most : bool
        Whether sizes may exceed the images available.

    Raises
    ------
    InputError
        If images, classes or tables are missing or broken.
    """
    general = config.model_dump(
        exclude={"source", "root", "repository", "label_column", "variants", "shifts"}
    )
    if config.root is not None:
        folders = ImagefolderTaskConfig(**general, root=config.root)
        task = imagefolder.build(folders, at_most)
    else:
        hub = HubTaskConfig(**general, repository=str(config.repository), label_column=config.label_column)
        splits = open_repository(hub)
        train, test = choose_splits(
            hub.repository, {name: len(data) for name, data in splits.items()}, config
        )
        parts = {
            f"{hub.repository}, {name}": _with_ids(
                splits[name], f"{hub.repository}, {name}", config.label_column
            )
            for name in (train, test)
            if name is not None
        }
        labels = LabelConfig(**general, label_column="wnid")
        task = build_external(labels, hub.repository, parts, at_most)
    place = str(config.root or config.repository)
    indices = tuple(find_index(place, name) for name in task.class_names)
    task = replace(task, imagenet=indices, class_names=tuple(class_names()[index] for index in indices))
    found = [load_variant(name, where, config, task) for name, where in config.variants.items()]
    return replace(task, shifts=tuple(found))


def load_variant(name: str, place: str, config: ImagenetTaskConfig, task: Task) -> Shift:
    """Load a natural shift of ImageNet's test set: as many images as `config.n_test`, drawn by its seed.

    Classes that the task lacks are left out; clean accuracy is that of the test images of the classes left,
    and probabilities are restricted to them, as in the papers of the variants.
    """
    read = _read_hub if place.startswith(HUB) else _read_folder
    n_images, labels, open_rows = read(place, config)
    column = {index: place for place, index in enumerate(task.imagenet)}
    known = [tuple(column[index] for index in own if index in column) for own in labels]
    kept = np.flatnonzero([len(own) > 0 for own in known])
    if not len(kept):
        raise InputError(
            f"task.variants.{name}: {place}: none of its {n_images} images is of a class of {task.name}"
        )
    rows = kept[draw_rows(len(kept), config.n_test or len(kept), config.seed)]
    columns = tuple(sorted({known[row] for row in rows}))
    label = {own: number for number, own in enumerate(columns)}
    numbers = np.array([label[known[row]] for row in rows], dtype=np.int64)
    there = {one for own in columns for one in own}
    clean = np.flatnonzero([one in there for one in task.test["label"]])
    if not len(clean):
        raise InputError(
            f"task.variants.{name}: {place}: no test image of {task.name} has one of its classes"
        )
    images, hashes = open_rows(rows)
    return Shift(name, images, numbers, clean, content_hash(hashes, numbers, columns), columns)


Rows = np.ndarray
Opened = tuple[int, list[tuple[int, ...]], Callable[[Rows], tuple[Sequence[Image.Image], list[str]]]]


def _read_folder(place: str, config: ImagenetTaskConfig) -> Opened:
    root = find_class_folders(user_path(place))
    names = [name for name in find_images(root)[0] if "/" in name]
    if not names:
        raise InputError(f"{root}: found no image in class folders, expected one folder per class")
    classes = map_folders(root, sorted({name.split("/")[0] for name in names}))
    border = RED_BORDER if any(_has_tables(folder) for folder in (root, root.parent)) else 0

    def open_rows(rows: Rows) -> tuple[Sequence[Image.Image], list[str]]:
        chosen = [names[row] for row in rows]

        def read(row: int) -> Image.Image:
            image = decode_image(root / chosen[row])
            edges = (border, border, image.width - border, image.height - border)
            return image.crop(edges) if border else image

        hashes = hash_files(root, chosen)
        return _Pictures(len(chosen), read), [hashes[name] for name in chosen]

    return len(names), [classes.get(name.split("/")[0], ()) for name in names], open_rows


def find_class_folders(root: Path) -> Path:
    """Find the folder that holds the class folders: `root`, its ``images``, or a folder alone in it."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected the class folders of a variant of ImageNet")
    if (root / "images").is_dir() and _has_tables(root):
        return root / "images"
    inside = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return find_class_folders(inside[0]) if len(inside) == 1 and any(inside[0].glob("*/*")) else root


def _has_tables(folder: Path) -> bool:
    return (folder / "mappings" / CLASSES_FILE).exists()


def _read_hub(place: str, config: ImagenetTaskConfig) -> Opened:
    repository, _, column = place.removeprefix(HUB).partition(":")
    column = column or config.label_column
    # a variant has a single split, whatever it is called
    folder = user_path(repository) if user_path(repository).is_dir() else None
    hub = HubTaskConfig(
        name="variant", repository="copy" if folder else repository, root=str(folder) if folder else None
    )
    parts = open_repository(hub)
    data = datasets.concatenate_datasets(list(parts.values()))
    labelled = _with_ids(data, repository, column)
    labels: list[tuple[int, ...]] = [(find_index(repository, wnid),) for wnid in labelled["wnid"]]

    def open_rows(rows: Rows) -> tuple[Sequence[Image.Image], list[str]]:
        chosen = data.select(rows).select_columns(["image"]).cast_column("image", TaskImage())
        return chosen["image"], hash_images(chosen, repository)

    return len(data), labels, open_rows


def _with_ids(data: datasets.Dataset, place: str, column: str) -> datasets.Dataset:
    """Add a column ``wnid`` of the classes' WordNet ids, from ids or indices in another column."""
    if column not in data.column_names:
        raise InputError(f"{place}: found columns {', '.join(data.column_names)}, expected {column}")
    feature, values = data.features[column], data[column][:]
    names = getattr(feature, "names", None)
    if names is not None and set(names) <= set(wordnet_ids()):
        values = [names[value] for value in values]
    ids = [wordnet_ids()[find_index(place, value)] for value in values]
    if column == "wnid":
        return data
    return data.add_column("wnid", ids)
