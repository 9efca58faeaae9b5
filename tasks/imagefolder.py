"""Images in one folder per class, split by folders train/ and test/ or by a seed."""

from __future__ import annotations

from pathlib import Path

import datasets

from harness.config import (
    ImagefolderTaskConfig,
    LabelConfig,
)
from harness.storage import (
    IMAGE_SUFFIXES,
    InputError,
    unknown_name,
)
from tasks.external import build_external
from tasks.splits import choose_splits
from tasks.task import Task


def build(config: ImagefolderTaskConfig, at_most: bool = False) -> Task:
    """Load the images below a folder.

    If it has a subfolder `config.train`, its subfolders are splits and theirs are classes; otherwise its
    subfolders are classes and a test split is drawn. Folders may be nested within a class; hidden files and
    folders and other files are ignored.

    Raises
    ------
    InputError
        If the folder does not exist, or has no class folder or a class without images.
    """
    root = Path(config.root).expanduser()
    folders = _subfolders(root)
    names = [folder.name for folder in folders]
    if config.train in names:
        train, test = choose_splits(f"{root}", names, config)
        splits = {name: root / name for name in (train, test) if name is not None}
    elif "train" in names or (config.test is not None and config.test in names):
        raise unknown_name(f"split in {root}", config.train, names)
    else:
        splits = {config.train: root}
    parts = {place: _list_split(folder) for place, folder in splits.items()}
    classes = sorted({label for part in parts.values() for label in part["label"]})
    columns = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    labels = LabelConfig(
        **config.model_dump(exclude={"source", "root"}),
        # class_names correspond to the folders in sorted order
        classes=tuple(classes) if config.class_names else None,
    )
    data = {
        str(splits[place]): datasets.Dataset.from_dict(part, features=columns)
        for place, part in parts.items()
    }
    return build_external(labels, str(root), data, at_most)


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected a folder with one subfolder per class")
    found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not found:
        raise InputError(f"{folder}: found no subfolders, expected one per class")
    return found


def _list_split(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"image": [], "label": []}
    for of_class in _subfolders(folder):
        files = sorted(
            path
            for path in of_class.rglob("*")
            if path.suffix.lower() in IMAGE_SUFFIXES
            and not any(part.startswith(".") for part in path.relative_to(of_class).parts)
        )
        if not files:
            raise InputError(
                f"{of_class}: found no image, expected files ending in {', '.join(IMAGE_SUFFIXES)}"
            )
        found["image"] += map(str, files)
        found["label"] += [of_class.name] * len(files)
    return found
