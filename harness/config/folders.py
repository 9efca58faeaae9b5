"""Where configurations are found: the built-in ones, and folders of the user's own.

``PALIMPSEST_CONFIGS`` (or ``--config-dir``, which sets it) lists folders with groups like those of
``configs/``: ``DIR/backbone/mine.yaml``, ``DIR/study/mine.yaml``. Their options add to the built-in ones and
may name them in their ``defaults``. A file that hides another is an error: an option's name is part of run
names and reports, so it must mean the same everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from harness.storage import (
    InputError,
    refuse_endless,
    unknown_name,
    user_path,
)

GROUPS = ("backbone", "task", "method", "brain", "mapping", "study")
VARIABLE = "PALIMPSEST_CONFIGS"

PACKAGE_FOLDER = Path(__file__).parents[1]
REPOSITORY = PACKAGE_FOLDER.parent
# A wheel holds configs/ inside the package; a checkout has it beside the package.
CONFIGS = next(
    (path for path in (PACKAGE_FOLDER / "configs", REPOSITORY / "configs") if path.is_dir()),
    PACKAGE_FOLDER / "configs",
)


def add_config_folder(folder: Path, setting: str = "--config-dir") -> None:
    """Add a folder of configurations for this process and those it starts.

    Raises
    ------
    InputError
        If `folder` is missing or holds no group. The message names `setting`.
    """
    folder = _checked(folder, setting)
    others = [str(other) for other in own_folders() if other != folder]
    if os.pathsep in str(folder):
        raise InputError(f"{setting}: found {folder}, expected a path without {os.pathsep!r}")
    os.environ[VARIABLE] = os.pathsep.join([*others, str(folder)])


def own_folders() -> tuple[Path, ...]:
    """Return the user's folders of configurations, each once; an `InputError` for a missing one."""
    places = filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))
    return tuple(dict.fromkeys(_checked(Path(place), VARIABLE) for place in places))


def group_options(group: str) -> list[str]:
    """Return the names of a group's options, built-in and the user's, as the command line takes them."""
    return sorted({name for folder in _all_folders() for name in _names_in(folder, group)})


def own_options(group: str) -> list[str]:
    """Return the names of the options that come from the user's folders."""
    return sorted({name for folder in own_folders() for name in _names_in(folder, group)})


def locate_option(group: str, name: str) -> Path:
    """Return the file of an option: ``configs/task/digits.yaml``, or a path in one of the user's folders."""
    for folder in _all_folders():
        if name in _names_in(folder, group):
            return (Path("configs") if folder == CONFIGS else folder) / group / f"{name}.yaml"
    raise unknown_name(group, name, group_options(group))


def list_files() -> list[Path]:
    """Return all files of configurations.

    Raises
    ------
    InputError
        If a file of the user's hides another one. The message names both.
    """
    found: dict[str, Path] = {}
    for folder in _all_folders():
        options = (f"{group}/{name}.yaml" for group in GROUPS for name in _names_in(folder, group))
        for name in sorted((*(path.name for path in folder.glob("*.yaml")), *options)):
            path = folder / name
            refuse_endless(path)
            if name in found:
                raise InputError(f"{path}: hides {found[name]}, expected another file name")
            found[name] = path
    return list(found.values())


def find_file(name: str) -> Path | None:
    """Return the file of a name within a folder of configurations, such as ``backbone/mini_clip.yaml``."""
    return next((path for folder in _all_folders() if (path := folder / name).is_file()), None)


def _all_folders() -> tuple[Path, ...]:
    return CONFIGS, *own_folders()


def _names_in(folder: Path, group: str) -> Iterator[str]:
    """Yield the options of a group in a folder; a thousand runs ask often, and pathlib is slow."""
    top = str(folder / group)
    for place, _, files in os.walk(top):
        below = place[len(top) + 1 :].replace(os.sep, "/")
        for file in files:
            if file.endswith(".yaml"):
                yield f"{below}/{file[:-5]}" if below else file[:-5]


def _checked(folder: Path, setting: str) -> Path:
    folder = user_path(folder).absolute()
    if not folder.is_dir():
        raise InputError(f"{setting}: found {folder}, expected an existing folder")
    if not any((folder / group).is_dir() for group in GROUPS):
        groups = ", ".join(GROUPS)
        raise InputError(f"{setting}: found {folder} without groups, expected one or more of {groups}")
    return folder
