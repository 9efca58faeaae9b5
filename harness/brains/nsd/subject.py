"""A subject of the Natural Scenes Dataset, read session by session.

Responses are masked while they are read, standardised per voxel and session, and averaged over the repeats of
an image. The result is cached on disk (`harness.brains.cache`) by settings, `VERSION`, and the size and time
of every input file. Images stay in their file.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from harness.brains.algonauts.subject import draw_areas
from harness.brains.brain import (
    Brain,
    fingerprint,
)
from harness.brains.cache import cached_brain
from harness.brains.ceilings import (
    ceiling_from_ncsnr,
    estimate_ceiling,
)
from harness.brains.neuroimages import fingerprint_file
from harness.brains.nsd.design import (
    Design,
    read_design,
)
from harness.brains.nsd.folder import (
    NsdFolder,
    open_folder,
)
from harness.brains.nsd.rois import (
    ATLASES,
    read_rois,
)
from harness.brains.nsd.space import (
    MASKS,
    Space,
)
from harness.brains.nsd.stimuli import BrickPictures
from harness.brains.nsd.volume import open_volume
from harness.brains.repeats import (
    Averaged,
    Rows,
    average_sessions,
    plan_rows,
)
from harness.config import NsdConfig
from harness.storage import (
    InputError,
    progress_bar,
)

log = logging.getLogger(__name__)

VERSION = 2
"""Part of the cache key. Raise it when the same files and settings would give another brain: it covers masks,
averaging, standardisation, noise ceilings, ROIs and everything else in the cache."""


def load_nsd(config: NsdConfig) -> Brain:
    """Load a subject.

    `stimulus_ids` are the 0-based image numbers of the data set. `fingerprints` of files above 16 MiB hash
    their size and samples of their content: a subject has up to 80 GB.

    Raises
    ------
    InputError
        If a file is missing, broken or does not fit the others.
    """
    folder = open_folder(config)
    design = read_design(folder.design, config.subject)
    space = open_space(folder, config.mask)
    sessions = choose_sessions(config, design, space)
    pictures = BrickPictures(folder.stimuli, np.array([design.last_picture]))  # checks the file
    files = folder.fingerprinted(
        [path for paths in sessions.values() for path in paths],
        {*(config.atlases or ATLASES), *([config.mask] if config.mask else MASKS)},
    )

    def make() -> Brain:
        return _make(config, design, space, sessions, files)

    key = cache_key(config, [*files, pictures.path])
    return cached_brain(key, make, lambda rows: BrickPictures(folder.stimuli, rows))


def cache_key(config: NsdConfig, files: Sequence[Path]) -> dict[str, Any]:
    """Everything that the cached brain depends on."""
    return {
        "version": VERSION,
        # applied after loading: rois, min_ceiling
        "settings": config.model_dump(mode="json", exclude={"rois", "min_ceiling", "subjects"}),
        "packages": [f"{name} {version(name)}" for name in ("numpy", "scipy", "nibabel", "h5py")],
        "files": [_identify(path) for path in files],
    }


def choose_sessions(config: NsdConfig, design: Design, space: Space) -> dict[int, list[Path]]:
    """Choose the sessions to use; their files by session number.

    Raises
    ------
    InputError
        If no session or a chosen one is missing, or a file belongs to no session of the design.
    """
    betas, n_planned = space.folder.betas, len(design.sessions)
    for path in sorted(betas.glob("*betas_session*")):
        named = re.search(r"betas_session(\d+)\.", path.name)
        if named is not None and not 1 <= int(named[1]) <= n_planned:
            raise InputError(f"{path}: expected sessions 1 to {n_planned}, those of {design.path}")
    found = {number: space.session_files(number) for number in range(1, n_planned + 1)}
    there = [number for number, files in found.items() if files]
    if not there:
        raise InputError(
            f"{betas}: found no responses, expected betas_session01.nii.gz or .hdf5, or lh.… and rh.…"
        )
    chosen = there if config.sessions is None else sorted(set(config.sessions))
    for number in chosen:
        if number not in there:
            raise InputError(
                f"brain.sessions: found {number}, expected {describe_numbers(there)}, the sessions in {betas}"
            )
    if len(chosen) < n_planned:
        absent = sorted(set(found) - set(there))
        log.warning(
            "warning: %s: using sessions %s%s",
            betas,
            describe_numbers(chosen),
            f"; {describe_numbers(absent)} are missing" if absent else "",
        )
    return {number: found[number] for number in chosen}


def describe_numbers(numbers: list[int]) -> str:
    """Format sorted numbers as ranges: ``"1-37, 39"``."""
    starts = [number for number in numbers if number - 1 not in numbers]
    ends = [number for number in numbers if number + 1 not in numbers]
    return ", ".join(f"{a}-{b}" if a < b else str(a) for a, b in zip(starts, ends, strict=True))


def open_space(folder: NsdFolder, mask: str | None) -> Space:
    """Open the space of a preparation: the volume, or the surface."""
    if folder.preparation.startswith("func"):
        return open_volume(folder, mask)
    from harness.brains.nsd.surface import open_surface

    return open_surface(folder, mask)


def _make(
    config: NsdConfig, design: Design, space: Space, sessions: dict[int, list[Path]], files: list[Path]
) -> Brain:
    folder = space.folder
    rows = plan_rows([design.sessions[number - 1] for number in sessions], list(sessions), config.average)
    averaged = average_sessions(
        _read_sessions(space, sessions, rows), rows, space.n_voxels, config.standardise
    )
    usable = averaged.usable
    stimuli = BrickPictures(folder.stimuli, rows.pictures)
    coords = space.coords[usable]
    rois = read_rois(space, usable, config.atlases)
    return Brain(
        name=f"nsd-{folder.subject}-{folder.preparation}",
        stimuli=stimuli,
        responses=averaged.responses,
        coords=coords,
        bounding_box=space.bounding_box,
        hemisphere=space.hemisphere[usable],
        rois=rois,
        noise_ceiling=_find_ceiling(space, averaged, rows),
        surface=None if space.vertices is None else draw_areas(space.vertices[usable], rois),
        fingerprint=fingerprint(stimuli.fingerprint, averaged.responses, coords),
        stimulus_ids=rows.pictures,
        n_repeats=rows.n_repeats,
        session=rows.session,
        shared=np.isin(rows.pictures, design.shared),
        fingerprints={folder.relative(path): fingerprint_file(path) for path in [*files, folder.stimuli]},
    )


def _read_sessions(
    space: Space, sessions: dict[int, list[Path]], rows: Rows
) -> Iterator[tuple[str, Float[np.ndarray, "_ n_voxels"]]]:
    """Yield the sessions, each in the same buffer as the one before."""
    counts = [len(row) for row in rows.of_session]
    buffer = np.empty((max(counts), space.n_voxels), dtype=np.float32)
    progress = progress_bar(sessions.values(), "reading the brain", unit="session")
    for files, count in zip(progress, counts, strict=True):
        found = buffer[:count]
        space.read_session(files, found)
        yield " and ".join(map(str, files)), found


def _find_ceiling(space: Space, averaged: Averaged, rows: Rows) -> Float[np.ndarray, " n_voxels"] | None:
    """Noise ceiling from the published ncsnr, or else estimated from repeats."""
    ncsnr = space.read_ncsnr()
    if ncsnr is None:
        log.warning(
            "warning: %s: found no ncsnr; estimating the noise ceiling from repeats", space.folder.betas
        )
        return estimate_ceiling(averaged, rows, space.folder.betas)
    ncsnr = ncsnr[averaged.usable]
    unknown = int((~np.isfinite(ncsnr)).sum())
    if unknown:
        log.warning(
            "warning: %s: ncsnr of %d voxels is not finite; their noise ceiling is set to 0",
            space.folder.betas,
            unknown,
        )
    return ceiling_from_ncsnr(ncsnr, rows.n_repeats)


def _identify(path: Path) -> list[Any]:
    """Identify the state of a file without reading gigabytes: path, size, modification time."""
    state = path.stat()
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]
