"""The 1,000 classes of ImageNet-1k, and how the folders of its natural shifts name them.

A class has a WordNet id (``n01440764``), an index (its place among sorted ids) and a name. Folders of
ImageNet, ImageNet-R, -A and -Sketch are WordNet ids, those of ImageNet-V2 are indices, and ObjectNet brings
tables of its own. Ids and descriptions are timm's, names for prompts open_clip's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from harness.storage import InputError, refuse_endless

N_CLASSES = 1000
LABELS_FILE, CLASSES_FILE = "folder_to_objectnet_label.json", "objectnet_to_imagenet_1k.json"
"""ObjectNet's own tables, in its folder ``mappings``."""


@cache
def wordnet_ids() -> tuple[str, ...]:
    """List the WordNet ids of the classes by index."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


@cache
def class_names() -> tuple[str, ...]:
    """List the names for prompts by index, as CLIP's authors curated them; two pairs are equal."""
    from open_clip import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)


@cache
def _index_of_id() -> dict[str, int]:
    return {wnid: index for index, wnid in enumerate(wordnet_ids())}


def find_index(place: str, value: str | int) -> int:
    """Find the index of a class by its WordNet id or its index, as a number or in digits.

    Raises
    ------
    InputError
        Names the `place` of a value that is neither.
    """
    text = str(value)
    if text in _index_of_id():
        return _index_of_id()[text]
    if text.isdecimal() and int(text) < N_CLASSES:
        return int(text)
    raise InputError(
        f"{place}: found class {text!r}, expected a WordNet id of ImageNet's 1,000 classes, such as "
        f"{wordnet_ids()[0]}, or an index from 0 to 999"
    )


def map_folders(root: Path, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Map class folders to indices; ObjectNet's that are no class of ImageNet are left out.

    Parameters
    ----------
    root : Path
        Holds the class folders; ObjectNet's tables are in ``mappings`` inside or beside it.
    names : iterable of str
        The class folders.

    Raises
    ------
    InputError
        If a folder or table names no class.
    """
    for folder in (root / "mappings", root.parent / "mappings"):
        if (folder / CLASSES_FILE).exists():
            known = read_objectnet(folder)
            return {name: known[name] for name in names if name in known}
    return {name: (find_index(str(root / name), name),) for name in names}


def read_objectnet(folder: Path) -> dict[str, tuple[int, ...]]:
    """Read from ObjectNet's tables which classes of ImageNet each of its class folders stands for.

    One table gives the label of every folder, the other the descriptions of ImageNet's classes of a label,
    with semicolons between them. Several classes of ImageNet may be one of ObjectNet's.
    """
    from timm.data.imagenet_info import ImageNetInfo

    places: dict[str, list[int]] = {}
    for index, text in enumerate(ImageNetInfo("imagenet-1k").label_descriptions()):
        places.setdefault(text, []).append(index)
    labels, classes = _read_table(folder / LABELS_FILE), _read_table(folder / CLASSES_FILE)
    found = {}
    for name, label in labels.items():
        if label in classes:
            indices = []
            for text in classes[label].split("; "):
                if len(places.get(text.strip(), ())) != 1:
                    raise InputError(
                        f"{folder / CLASSES_FILE}: found {text.strip()!r} of {label!r}, expected the "
                        "description of one of ImageNet's 1,000 classes"
                    )
                indices += places[text.strip()]
            found[name] = tuple(indices)
    return found


def _read_table(path: Path) -> Mapping[str, str]:
    refuse_endless(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected it among ObjectNet's tables") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise InputError(f"{path}: expected an object with a text for every name")
    return content
