"""Data sets of the Hugging Face hub: downloaded, cached, or from a local copy."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import constants, snapshot_download

from harness.config import HubTaskConfig
from harness.storage import (
    InputError,
    content_hash,
    hide_passwords,
    hub_answers,
    refuse_endless,
    user_path,
)
from tasks.external import build_external
from tasks.splits import choose_splits
from tasks.task import Task


def build(config: HubTaskConfig, at_most: bool = False) -> Task:
    """Load an image data set of the hub.

    Raises
    ------
    InputError
        If the data set, configuration, split or column does not exist, or the hub does not answer and the
        cache has no copy.
    """
    splits = open_repository(config)
    place = config.root or config.repository
    train, test = choose_splits(place, {name: len(data) for name, data in splits.items()}, config)
    parts = {f"{place}, {name}": splits[name] for name in (train, test) if name is not None}
    for where, data in parts.items():
        feature = data.features.get(config.image_column)
        if feature is not None and not isinstance(feature, datasets.Image):
            raise InputError(
                f"{where}, column {config.image_column}: found {feature}, expected a column of images"
            )
    return build_external(config, place, parts, at_most)


def open_repository(config: HubTaskConfig) -> dict[str, datasets.Dataset]:
    """Open all splits of a data set; rows stay on disk."""
    if config.root is not None:
        root = user_path(config.root)
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; expected a copy of {config.repository}")
        if glob.has_magic(str(root.resolve())):
            raise InputError(
                f"task.root: found {root.resolve()}, expected a path without *, ? and [, which datasets "
                "takes for a pattern"
            )
        key = _mark_files(root)
        with _one_line(str(root)):
            # datasets knows a file by its name and time alone, and would serve what it made of an older one
            cache = Path(datasets.config.HF_DATASETS_CACHE) / "of_folders" / key
            return _load(str(root), config, cache_dir=str(cache))
    if hub_answers():
        with _one_line(config.repository):
            return _load(config.repository, config, revision=config.revision)
    return _load_from_cache(config)


def _load(path: str, config: HubTaskConfig, **more: Any) -> dict[str, datasets.Dataset]:
    # split names are not plain strings
    return {str(name): data for name, data in datasets.load_dataset(path, config.subset, **more).items()}


def _load_from_cache(config: HubTaskConfig) -> dict[str, datasets.Dataset]:
    """Load what an earlier `load_dataset` or download left in the caches."""
    with _no_requests():
        try:
            return _load(config.repository, config, revision=config.revision)
        except Exception:  # the hub's cache may still have it
            pass
        try:
            folder = snapshot_download(
                config.repository, repo_type="dataset", revision=config.revision, local_files_only=True
            )
        except Exception as error:
            raise InputError(
                f"{config.repository}: the hub at {hide_passwords(constants.ENDPOINT)} does not answer and "
                f"neither the cache "
                f"{constants.HF_HUB_CACHE} nor {datasets.config.HF_DATASETS_CACHE} has a copy "
                f"({type(error).__name__}); on a machine with network access, run `hf download "
                f"{config.repository} --repo-type dataset --local-dir DIR` and set task.root=DIR, or use "
                "your own images with task=imagefolder task.root=DIR"
            ) from None
        with _one_line(f"{config.repository} (cache {folder})"):
            return _load(folder, config)


def _mark_files(root: Path) -> str:
    """Hash names, sizes, times and inodes of all files below a folder, which change with the files."""
    marks = {}
    for path in sorted(root.rglob("*")):
        refuse_endless(path)
        if path.is_file():
            found = path.stat()
            marks[path.relative_to(root).as_posix()] = [
                *(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
            ]
    return content_hash(str(root.resolve()), marks)[:32]


@contextmanager
def _one_line(place: str) -> Iterator[None]:
    """Turn every error of datasets and the hub into a one-line `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        said = hide_passwords(" ".join((str(error) or type(error).__name__).split()))
        if "scripts are no longer supported" in said:
            said += "; expected a data set of parquet or image files, such as its branch refs/convert/parquet"
        raise InputError(f"{place}: cannot be loaded: {said}") from error


@contextmanager
def _no_requests() -> Iterator[None]:
    """Set the offline flags that two libraries check before every request."""
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
