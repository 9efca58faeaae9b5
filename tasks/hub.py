"""Data sets of the Hugging Face hub: from there, from its caches, or from a copy in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import constants, snapshot_download

from harness.config import HubTaskConfig
from harness.storage import (
    InputError,
    hub_answers,
)
from tasks.external import build_external
from tasks.splits import choose_splits
from tasks.task import Task


def build(config: HubTaskConfig, at_most: bool = False) -> Task:
    """Load an image data set of the hub.

    Raises
    ------
    InputError
        If there is no such data set, configuration, split or column, or the hub cannot be reached and
        nothing of it is in the cache.
    """
    splits = open_repository(config)
    place = config.root or config.repository
    train, test = choose_splits(place, list(splits), config)
    parts = {f"{place}, {name}": splits[name] for name in (train, test) if name is not None}
    for where, data in parts.items():
        feature = data.features.get(config.image_column)
        if feature is not None and not isinstance(feature, datasets.Image):
            raise InputError(
                f"{where}, column {config.image_column}: found {feature}, accepted: a column of images"
            )
    return build_external(config, place, parts, at_most)


def open_repository(config: HubTaskConfig) -> dict[str, datasets.Dataset]:
    """All splits of a data set, on disk until they are asked for."""
    if config.root is not None:
        root = Path(config.root).expanduser()
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; accepted: a copy of {config.repository}")
        with _one_line(str(root)):
            return _load(str(root), config)
    if hub_answers():
        with _one_line(config.repository):
            return _load(config.repository, config, revision=config.revision)
    return _load_from_cache(config)


def _load(path: str, config: HubTaskConfig, **more: Any) -> dict[str, datasets.Dataset]:
    # names of splits are a class of their own
    return {str(name): data for name, data in datasets.load_dataset(path, config.subset, **more).items()}


def _load_from_cache(config: HubTaskConfig) -> dict[str, datasets.Dataset]:
    """What an earlier `load_dataset`, or else an earlier download, left behind."""
    with _no_requests():
        try:
            return _load(config.repository, config, revision=config.revision)
        except Exception:  # whatever it is, the hub's cache may still do
            pass
        try:
            folder = snapshot_download(
                config.repository, repo_type="dataset", revision=config.revision, local_files_only=True
            )
        except Exception as error:
            raise InputError(
                f"{config.repository}: the hub at {constants.ENDPOINT} does not answer and neither the cache "
                f"{constants.HF_HUB_CACHE} nor {datasets.config.HF_DATASETS_CACHE} has a copy "
                f"({type(error).__name__}); where there is a network, run `hf download {config.repository} "
                "--repo-type dataset --local-dir DIR` and give task.root=DIR here, or use images of your own "
                "with task=imagefolder task.root=DIR"
            ) from None
        with _one_line(f"{config.repository} (cache {folder})"):
            return _load(folder, config)


@contextmanager
def _one_line(place: str) -> Iterator[None]:
    """Whatever datasets and the hub say about what they cannot load, as an `InputError` of one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # what is raised last is mostly wrapping; the first cause says what is wrong
        said = " ".join((str(error) or type(error).__name__).split())
        if "scripts are no longer supported" in said:
            said += "; accepted: data sets of parquet or image files, such as its branch refs/convert/parquet"
        raise InputError(f"{place}: cannot be loaded: {said}") from error


@contextmanager
def _no_requests() -> Iterator[None]:
    """Two libraries look at a flag of their own before every request."""
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
