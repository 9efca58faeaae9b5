"""A disk cache of brains that take long to make or read.

A brain's key hashes everything that it is made from, so a stale one is never found. The cache lies in the
user's cache folder; ``PALIMPSEST_CACHE`` moves it. Deleting it costs only time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from harness.brains.brain import (
    Brain,
    Pictures,
    Roi,
    StoredPictures,
    Surface,
    fingerprint,
)
from harness.storage import (
    InputError,
    cache_folder,
    content_hash,
    hold_cached,
    open_npy,
    read_json,
    write_atomically,
    write_json,
)

log = logging.getLogger(__name__)

OpenStimuli = Callable[[np.ndarray], StoredPictures]
"""Opens a brain's stimuli, given its `stimulus_ids`."""


def kept_at(key: Mapping[str, Any]) -> Path:
    """Return the cache folder of a key, whether or not it exists."""
    return cache_folder() / "brains" / content_hash(key)[:20]


def cached_brain(
    key: Mapping[str, Any], make: Callable[[], Brain], open_stimuli: OpenStimuli | None = None
) -> Brain:
    """Return the cached brain of a key, or make and cache it.

    A cached brain is used only if it is whole and its fingerprint is right. A folder that cannot be written
    logs a warning. If several processes want the same brain, one makes it and the others wait.

    Parameters
    ----------
    key : mapping
        Everything that the brain is made from.
    make : callable
        Makes the brain; its stimuli must be `Pictures`, or `StoredPictures` with `open_stimuli`.
    open_stimuli : callable, optional
        Opens stimuli that stay in their source files and are not copied.
    """
    folder = kept_at(key)
    with hold_cached(folder.name):
        if folder.exists():
            try:
                return _read(folder, open_stimuli)
            except (InputError, OSError, ValueError, KeyError, TypeError) as error:
                log.warning("warning: %s: incomplete brain (%s); making it again", folder, error)
        brain = make()
        try:
            _write(brain, key, folder)
        except OSError as error:
            log.warning("warning: %s: cannot be written (%s); continuing without it", folder, error.strerror)
    return brain


def _write(brain: Brain, key: Mapping[str, Any], folder: Path) -> None:
    assert isinstance(brain.stimuli, Pictures | StoredPictures)
    arrays: dict[str, np.ndarray | None] = {
        "pixels": brain.stimuli.pixels if isinstance(brain.stimuli, Pictures) else None,
        "responses": brain.responses,
        "coords": brain.coords,
        "bounding_box": brain.bounding_box,
        "hemisphere": brain.hemisphere,
        "noise_ceiling": brain.noise_ceiling,
        "stimulus_ids": brain.stimulus_ids,
        "n_repeats": brain.n_repeats,
        "session": brain.session,
        "shared": brain.shared,
    }
    arrays |= {f"roi_{place}": roi.voxels for place, roi in enumerate(brain.rois)}
    if brain.surface is not None:
        arrays |= {f"surface_{name}": getattr(brain.surface, name) for name in _surface_arrays()}
    description = {
        "name": brain.name,
        "rois": [[roi.name, roi.rank] for roi in brain.rois],
        "area_names": None if brain.surface is None else list(brain.surface.area_names),
        "fingerprint": brain.fingerprint,
        "fingerprints": dict(brain.fingerprints),
        "made_from": dict(key),
    }
    with write_atomically(folder) as temporary:
        temporary.mkdir()
        for name, array in arrays.items():
            if array is not None:
                np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        write_json(temporary / "brain.json", description)


def _read(folder: Path, open_stimuli: OpenStimuli | None) -> Brain:
    description = read_json(folder / "brain.json")

    def load(name: str) -> Any:
        path = folder / f"{name}.npy"
        return open_npy(path) if path.exists() else None

    surface = None
    if description["area_names"] is not None:
        arrays = {name: load(f"surface_{name}") for name in _surface_arrays()}
        surface = Surface(**arrays, area_names=tuple(description["area_names"]))
    responses, coords, stimulus_ids = (
        np.array(load(name)) for name in ("responses", "coords", "stimulus_ids")
    )
    stimuli = Pictures(load("pixels")) if open_stimuli is None else open_stimuli(stimulus_ids)
    shown = stimuli.pixels if isinstance(stimuli, Pictures) else stimuli.fingerprint
    found = fingerprint(shown, responses, coords)
    if found != description["fingerprint"]:
        raise ValueError(f"fingerprint {found[:8]}, expected {description['fingerprint'][:8]}")
    return Brain(
        name=description["name"],
        stimuli=stimuli,
        responses=responses,
        coords=coords,
        bounding_box=np.array(load("bounding_box")),
        hemisphere=np.array(load("hemisphere")),
        rois=tuple(
            Roi(name, np.array(load(f"roi_{place}")), rank)
            for place, (name, rank) in enumerate(description["rois"])
        ),
        noise_ceiling=load("noise_ceiling"),
        surface=surface,
        fingerprint=found,
        stimulus_ids=stimulus_ids,
        n_repeats=load("n_repeats"),
        session=load("session"),
        shared=load("shared"),
        fingerprints=description["fingerprints"],
    )


def _surface_arrays() -> list[str]:
    return [field.name for field in fields(Surface) if field.name != "area_names"]
