"""Images in one folder per class, split by folders train/ and test/ or by a seed."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import datasets

from harness.config import (
    ImagefolderTaskConfig,
    LabelConfig,
)
from harness.storage import (
    InputError,
    by_number,
    find_images,
    no_image,
    report_left_out,
    unknown_name,
    user_path,
)
from tasks.external import build_external
from tasks.splits import (
    SPLIT_NAMES,
    choose_splits,
    find_split,
    split_kind,
)
from tasks.task import Task

log = logging.getLogger(__name__)

TRAIN, TEST = SPLIT_NAMES[0][0], SPLIT_NAMES[1][0]


def build(config: ImagefolderTaskConfig, at_most: bool = False) -> Task:
    """Load the images below a folder.

    If it has a subfolder for `config.train`, its subfolders are splits and theirs are classes; otherwise its
    subfolders are classes and a test split is drawn. Folders may be nested within a class, and linked. Hidden
    files and folders are ignored. Warnings count other files, and images outside the class folders in use.

    Raises
    ------
    InputError
        If the folder does not exist, has no class folder or a class without images, its folders look like
        splits but cannot be read as such, or the order of its classes is not certain but needed.
    """
    root = user_path(config.root)
    folders = _subfolders(root)
    names, left_out = find_images(root)
    report_left_out(root, left_out)
    sizes = Counter({folder.name: 0 for folder in folders})
    sizes.update(name.split("/")[0] for name in names if "/" in name)
    splits = _find_splits(root, sizes, config)
    strays = [name for name in names if name.count("/") < (1 if splits == [""] else 2)]
    strays = [name for name in strays if "/" not in name or name.split("/")[0] in splits]
    if strays:
        log.warning(
            "warning: %s: %d images are left out: they are in no class folder, such as %s",
            *(root, len(strays), strays[0]),
        )
    parts = {split: _list_split(root / split, split, names) for split in splits}
    labels = LabelConfig(
        **config.model_dump(exclude={"source", "root", "classes"}),
        classes=config.classes or _order_classes(root, parts, config),
    )
    columns = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    data = {
        str(root / split): datasets.Dataset.from_dict(part, features=columns) for split, part in parts.items()
    }
    return build_external(labels, str(root), data, at_most)


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected a folder with one subfolder per class")
    found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not found:
        raise InputError(f"{folder}: found no subfolders, expected one per class")
    return found


def _find_splits(root: Path, sizes: Counter[str], config: ImagefolderTaskConfig) -> list[str]:
    """Folders of the training split and of the test split, if there is one; [""] if folders are classes."""
    if config.classes is not None and set(config.classes) & set(sizes):
        return [""]
    nested = [name for name in sizes if any(path.is_dir() for path in (root / name).glob("[!.]*"))]
    if find_split(str(root), config.train, nested) is not None:
        train, test = choose_splits(str(root), {name: sizes[name] for name in nested}, config)
        flat = {name: size for name, size in sizes.items() if name not in nested and size}
        if flat:
            log.warning(
                "warning: %s: %d images are left out, of folders without class folders: %s",
                *(root, sum(flat.values()), ", ".join(flat)),
            )
        return [name for name in (train, test) if name is not None]
    for setting, default in ((config.train, TRAIN), (config.test or TEST, TEST)):
        if setting != default and find_split(str(root), setting, sizes) is None:
            raise unknown_name(f"split in {root}", setting, sizes)
    kinds = {name: split_kind(name) for name, size in sizes.items() if size or name in nested}
    listed = ", ".join(f"{name} ({sizes[name]} images)" for name in kinds)
    if None not in kinds.values() and len(kinds) > 1 and len({*kinds.values()}) > 1:
        raise InputError(
            f"{root}: found folders {listed}, which look like splits; expected "
            + ("folders of classes in them" if not nested else "their names as task.train and task.test")
        )
    lone = [
        name for name in nested if find_split(str(root), TEST, [name]) or find_split(str(root), "val", [name])
    ]
    if lone or config.train != TRAIN or config.test is not None:
        raise InputError(
            f"{root}: found no training split with class folders among {listed}; expected one, as task.train"
        )
    if len(kinds) == 1 and nested:
        raise InputError(
            f"{root}: found a single folder, {listed}, expected one per class; did you mean "
            f"task.root={root / nested[0]}?"
        )
    return [""]


def _order_classes(
    root: Path, parts: dict[str, dict[str, list[str]]], config: ImagefolderTaskConfig
) -> tuple[str, ...] | None:
    """Classes in the order that `config.class_names` go with; None if there are no such names.

    Names of folders 1, 2, 10 could be meant in the order of names (1, 10, 2) or of numbers.
    """
    if config.class_names is None:
        return None
    classes = sorted({label for part in parts.values() for label in part["label"]})
    counted = sorted(classes, key=by_number)
    if classes != counted:
        raise InputError(
            f"task.class_names: {root} has the folders {', '.join(classes[:3])}, … in the order of names and "
            f"{', '.join(counted[:3])}, … in that of numbers; expected also task.classes, the folders in the "
            "order of task.class_names"
        )
    return tuple(classes)


def _list_split(folder: Path, split: str, names: list[str]) -> dict[str, list[str]]:
    """Files and labels of a split, from the names of all images below the root."""
    found: dict[str, list[str]] = {"image": [], "label": []}
    prefix = f"{split}/" if split else ""
    inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    of_class: dict[str, list[str]] = {path.name: [] for path in _subfolders(folder)}
    for name in inside:
        label, _, rest = name.partition("/")
        if rest:
            of_class[label].append(str(folder / name))
    for label, files in of_class.items():
        if not files:
            raise no_image(folder / label, find_images(folder / label)[1])
        found["image"] += files
        found["label"] += [label] * len(files)
    return found
