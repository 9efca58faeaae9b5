"""Files of options merged into one configuration, in which values are set.

Hydra takes a tenth of a second for a combination of options, and OmegaConf milliseconds for a value: minutes
for a study of a thousand runs. So plain files and values are merged here, to the same result. Hydra composes
files with ``defaults``, interpolations or a package of their own, and broken ones: it has the words for them.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config.folders import (
    CONFIGS,
    GROUPS,
    find_file,
    list_files,
    own_folders,
)

ROOT = "config.yaml"
_GLOBAL = "# @package _global_"
_BROKEN = (
    yaml.YAMLError,
    OmegaConfBaseException,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    OSError,
    RecursionError,
)
# interpolations, and OmegaConf's mark for a value that is missing
_SPECIAL = ("${", "???")


class OptionFiles:
    """The files of configurations as they are when this is made."""

    def __init__(self) -> None:
        self._own = own_folders()
        found = ((path, path.stat()) for path in list_files())
        self._stamps = tuple((str(path), stat.st_mtime_ns, stat.st_size) for path, stat in found)
        self._checked: list[Any] = []

    def compose(self, chosen: Mapping[str, str]) -> dict[str, Any]:
        """Compose the chosen options and the default ones; interpolations stay unresolved.

        Parameters
        ----------
        chosen : mapping of group to option
        """
        return copy.deepcopy(_compose(CONFIGS, self._own, self._stamps, tuple(chosen.items())))

    def check_once(self, what: Any, check: Callable[[Any], None]) -> None:
        """Check what depends on these files, unless the same was checked before."""
        if what not in self._checked:
            check(what)
            self._checked.append(what)


def set_values(composed: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Set values by their dotted names, merge mappings, and resolve interpolations.

    Parameters
    ----------
    composed : dict
        As `OptionFiles.compose` returns it, which this may change.
    values : mapping of str to value
    """
    whole = copy.deepcopy(composed)
    if not is_special(composed) and all(set_plainly(whole, *item) for item in values.items()):
        return whole
    config = OmegaConf.create(composed)
    for name, value in values.items():
        # force_add: no file may mention the setting
        OmegaConf.update(config, name, value, merge=True, force_add=True)
    container: Any = OmegaConf.to_container(config, resolve=True)
    return container


@functools.lru_cache(maxsize=256)
def _compose(
    folder: Path, own: tuple[Path, ...], stamps: tuple[object, ...], chosen: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    """Compose; `stamps` are those of all files, so that a changed file is composed again."""
    composed = compose_plainly(dict(chosen))
    return compose_by_hydra(folder, own, chosen) if composed is None else composed


def compose_by_hydra(
    folder: Path, own: tuple[Path, ...], chosen: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Let Hydra compose the chosen options from a folder and the user's own ones."""
    places = ",".join(json.dumps(f"file://{path.as_posix()}", ensure_ascii=False) for path in own)
    overrides = [f"{group}={option}" for group, option in chosen]
    with initialize_config_dir(str(folder), version_base="1.3"):
        found = compose("config", [*overrides, *([f"hydra.searchpath=[{places}]"] if own else [])])
    container: Any = OmegaConf.to_container(found, resolve=False)
    return container


def compose_plainly(chosen: Mapping[str, str]) -> dict[str, Any] | None:
    """Merge the chosen options and the default ones as Hydra would; None where that is Hydra's work.

    Parameters
    ----------
    chosen : mapping of group to option
    """
    root = find_file(ROOT)
    content = None if root is None else _read(root)
    if content is None or set(content) != {"defaults"} or not isinstance(content["defaults"], list):
        return None
    known: dict[str, str] = {}
    for entry in content["defaults"]:
        if isinstance(entry, dict):
            known |= entry
    if not set(chosen) <= set(known) or not set(known) <= set(GROUPS):
        return None
    composed: dict[str, Any] = {}
    for group, option in (known | dict(chosen)).items():
        file = find_file(f"{group}/{option}.yaml")
        # the package of a file in a folder of a group is another one
        if file is None or "/" in option:
            return None
        content = _read(file)
        if content is None or "defaults" in content:
            return None
        is_global = content.pop(_GLOBAL, False)
        if not merge(composed, content if is_global else {group: content}):
            return None
    return composed


def set_plainly(composed: dict[str, Any], name: str, value: Any) -> bool:
    """Set a value by its dotted name as `OmegaConf.update` would; False if that is not certain."""
    *parents, last = name.split(".")
    if is_special(value) or "[" in name or "" in (*parents, last):
        return False
    place: Any = composed
    for part in parents:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            return False
    return merge(place, {last: value})


def merge(into: dict[str, Any], content: Mapping[Any, Any]) -> bool:
    """Merge mappings, nested ones too; False if a mapping would be replaced, or a name is no text."""
    for name, value in content.items():
        if not isinstance(name, str):
            return False
        known = into.get(name)
        if isinstance(value, dict):
            if not isinstance(known, dict):
                known = into[name] = {}
            if not merge(known, value):
                return False
        elif isinstance(known, dict):
            return False
        else:
            into[name] = copy.deepcopy(value)
    return True


def is_special(value: Any) -> bool:
    """Whether OmegaConf would see more than a value in some text of it."""
    if isinstance(value, dict):
        return any(map(is_special, value)) or any(map(is_special, value.values()))
    if isinstance(value, list):
        return any(map(is_special, value))
    return isinstance(value, str) and any(mark in value for mark in _SPECIAL)


def _read(file: Path) -> dict[str, Any] | None:
    """Read a file as OmegaConf does, which takes 1e-3 for a number; None if it is not plain."""
    stat = file.stat()
    return copy.deepcopy(_read_once(file, (stat.st_mtime_ns, stat.st_size)))


@functools.lru_cache(maxsize=512)
def _read_once(file: Path, stamp: tuple[int, int]) -> dict[str, Any] | None:
    try:
        text = file.read_text(encoding="utf-8")
        content: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except _BROKEN:
        return None
    is_global = text.startswith(f"{_GLOBAL}\n")
    if (
        "@package" in text.removeprefix(f"{_GLOBAL}\n")
        or not isinstance(content, dict)
        or is_special(content)
    ):
        return None
    return {**content, _GLOBAL: True} if is_global else content
