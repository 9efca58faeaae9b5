"""A subject on grayordinates: CIFTI files with one map per presentation, and a table of stimuli.

Vertices are those of fs_LR 32k, so MMP 1.0 areas and surfaces come from `harness.brains.cortex`. Repeats of
an image are averaged; enough repeats also give a noise ceiling.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from harness.brains.brain import (
    Brain,
    Roi,
    fingerprint,
)
from harness.brains.ceilings import estimate_ceiling
from harness.brains.cortex import (
    GAP,
    HEMISPHERES,
    REGIONS,
    Cortex,
    load_cortex,
)
from harness.brains.grayordinates.cifti import (
    CiftiFile,
    Layout,
    open_cifti,
)
from harness.brains.grayordinates.stimulus_table import (
    StimulusTable,
    read_table,
)
from harness.brains.repeats import (
    average_sessions,
    plan_rows,
)
from harness.config import GrayordinatesConfig
from harness.storage import (
    ImageFiles,
    InputError,
    content_hash,
    find_outside,
    hash_files,
    hash_images,
    merge_equal_images,
    user_path,
)

log = logging.getLogger(__name__)

TABLES = ("stimuli.tsv", "stimuli.csv")


def load_grayordinates(config: GrayordinatesConfig) -> Brain:
    """Load a subject from maps and their table.

    `stimulus_ids` are the file names of the images.

    Raises
    ------
    InputError
        If a file is missing, broken or does not fit the others.
    """
    root = user_path(config.root)
    if not root.is_dir():
        raise InputError(f"brain.root: {root}: no such folder")
    files = open_maps(root, config.maps)
    table = read_table(_find_table(root, config.table))
    n_maps = sum(file.n_maps for file in files)
    if n_maps != len(table.image):
        found = ", ".join(f"{file.n_maps} in {file.path.name}" for file in files[:4])
        raise InputError(
            f"{table.path}: found {len(table.image)} rows, expected {n_maps}, one per map ({found})"
        )
    cortex, layout = load_cortex(), files[0].layout
    columns = choose_columns(layout, cortex, config.cortex == "all", config.subcortex)
    if not len(columns):
        raise InputError(f"{files[0].path}: found no grayordinate in the areas of brain.cortex")
    if config.subcortex and not layout.below.any():
        raise InputError(f"brain.subcortex: found true, but {files[0].path} has no subcortical voxels")

    images = user_path(config.images) if config.images else root
    listed = table.image.tolist()
    outside = [] if config.allow_outside_root else find_outside(images, [images / name for name in listed])
    if outside:
        raise InputError(
            f"{table.path}: found {listed[outside[0]]}, which leads out of {images} ({len(outside)} of "
            f"{len(listed)} rows do); expected files in brain.images, by default brain.root: set it to a "
            "folder that holds them, or brain.allow_outside_root=true"
        )
    hashes = hash_images(images, sorted(set(listed)))
    shown = merge_equal_images(table.image, [hashes[name] for name in table.image.tolist()])
    names, picture = np.unique(shown, return_inverse=True)
    maps = _group_maps(files, table)
    rows = plan_rows(
        [picture.ravel()[maps[number]].astype(np.int64) for number in maps], list(maps), config.average
    )
    averaged = average_sessions(_read_sessions(files, maps, columns), rows, len(columns), config.standardise)
    columns = columns[averaged.usable]
    coords, box = place_columns(layout, cortex, columns, config.subcortex)
    sources = [
        path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
        for path in (table.path, *(file.path for file in files))
    ]
    stimulus_ids = names[rows.pictures].tolist()
    return Brain(
        name=f"grayordinates-{root.resolve().name}",
        stimuli=ImageFiles([images / name for name in stimulus_ids]),
        responses=averaged.responses,
        coords=coords,
        bounding_box=box,
        hemisphere=_tell_hemisphere(layout, cortex, columns),
        rois=list_rois(layout, cortex, columns),
        noise_ceiling=estimate_ceiling(averaged, rows, root),
        surface=cortex.surface(layout.vertex[columns]),
        fingerprint=fingerprint(
            content_hash([hashes[name] for name in stimulus_ids]), averaged.responses, coords
        ),
        stimulus_ids=names[rows.pictures],
        n_repeats=rows.n_repeats,
        session=None if table.session is None else rows.session,
        fingerprints=hash_files(root, sources) | {"images/": content_hash(hashes)},
    )


def choose_columns(
    layout: Layout, cortex: Cortex, whole: bool, subcortex: bool
) -> Int[np.ndarray, " n_voxels"]:
    """Choose the columns that become voxels: areas of `REGIONS` or all areas, with or without subcortex."""
    on_cortex = layout.vertex >= 0
    wanted = (cortex.area != "") if whole else (cortex.region >= 0)
    chosen = on_cortex & wanted[layout.vertex]  # -1 indexes a vertex too, masked by on_cortex
    if subcortex:
        chosen |= layout.below
    return np.flatnonzero(chosen)


def list_rois(layout: Layout, cortex: Cortex, columns: Int[np.ndarray, " n_voxels"]) -> tuple[Roi, ...]:
    """List the regions of the visual hierarchy, then all MMP 1.0 areas, then subcortical structures.

    A region of several areas overlaps with them; an area has the rank of its region.
    """
    vertex = layout.vertex[columns]
    on_cortex = vertex >= 0
    region = np.where(on_cortex, cortex.region[vertex], -1)
    area = np.where(on_cortex, cortex.area[vertex], "")
    structure = np.where(on_cortex, "", layout.structure[columns])
    found: list[tuple[str, np.ndarray, float | None]] = [
        (place.name, np.flatnonzero(region == index), float(place.rank))
        for index, place in enumerate(REGIONS)
    ]
    named = {place.name for place in REGIONS}
    ranks = {name: float(place.rank) for place in REGIONS for name in place.areas}
    for labels in (area, structure):
        for name in np.unique(labels[labels != ""]).tolist():
            if name not in named:
                found.append((name, np.flatnonzero(labels == name), ranks.get(name)))
    return tuple(Roi(name, voxels, rank) for name, voxels, rank in found if len(voxels))


def open_maps(root: Path, pattern: str) -> list[CiftiFile]:
    """Open all files of a pattern, in the order of names, with the columns of the first."""
    try:
        paths = sorted(path for path in root.glob(pattern) if path.is_file())
    except (NotImplementedError, ValueError) as error:
        raise InputError(
            f"brain.maps: found {pattern!r}, expected a pattern below {root} ({error})"
        ) from None
    if not paths:
        there = ", ".join(sorted(path.name for path in root.iterdir())[:10]) or "nothing"
        raise InputError(f"brain.maps: found no {pattern} in {root}, only {there}")
    files = [open_cifti(path) for path in paths]
    return [file.arranged_as(files[0]) for file in files]


def _find_table(root: Path, name: str | None) -> Path:
    if name is not None:
        return root / user_path(name)
    there = [root / name for name in TABLES if (root / name).is_file()]
    if len(there) != 1:
        found = "both" if there else "neither"
        raise InputError(
            f"{root}: found {found} of {' and '.join(TABLES)}, expected one of them, or brain.table=NAME"
        )
    return there[0]


def _group_maps(files: Sequence[CiftiFile], table: StimulusTable) -> dict[int, Int[np.ndarray, " _"]]:
    """Map numbers of every session, counted over all files."""
    session = table.session
    if session is None:
        log.warning("warning: %s: no column session; all maps count as one session", table.path)
        session = np.ones(len(table.image), dtype=np.int64)
    return {int(number): np.flatnonzero(session == number) for number in np.unique(session)}


def _read_sessions(
    files: Sequence[CiftiFile], maps: dict[int, Int[np.ndarray, " _"]], columns: Int[np.ndarray, " n_voxels"]
) -> Iterator[tuple[str, Float[np.ndarray, "_ n_voxels"]]]:
    """Yield the sessions, each in the same buffer as the one before."""
    ends = np.cumsum([file.n_maps for file in files])
    buffer = np.empty((max(map(len, maps.values())), len(columns)), dtype=np.float32)
    for number, chosen in maps.items():
        found = buffer[: len(chosen)]
        paths = []
        for file, end in zip(files, ends.tolist(), strict=True):
            first, last = np.searchsorted(chosen, [end - file.n_maps, end]).tolist()
            if first < last:
                file.read(chosen[first:last] - (end - file.n_maps), columns, found[first:last])
                paths.append(str(file.path))
        yield f"{' and '.join(paths)} (session {number})", found


def place_columns(
    layout: Layout, cortex: Cortex, columns: Int[np.ndarray, " n_voxels"], subcortex: bool
) -> tuple[Float[np.ndarray, "n_voxels 3"], Float[np.ndarray, "2 3"]]:
    """Coordinates and their bounding box: both spheres, and the subcortex beside them along x."""
    coords = cortex.sphere[layout.vertex]
    box = [cortex.sphere.min(axis=0), cortex.sphere.max(axis=0)]
    if subcortex:
        beside = layout.place[layout.below]
        beside[:, 0] += box[1][0] + GAP - beside[:, 0].min()
        coords[layout.below] = beside
        box = [np.minimum(box[0], beside.min(axis=0)), np.maximum(box[1], beside.max(axis=0))]
    return coords[columns].astype(np.float32), np.stack(box).astype(np.float32)


def _tell_hemisphere(
    layout: Layout, cortex: Cortex, columns: Int[np.ndarray, " n_voxels"]
) -> Shaped[np.ndarray, " n_voxels"]:
    """Hemisphere of each voxel; subcortical ones by the structure's name, or else by the sign of x."""
    vertex, structure = layout.vertex[columns], layout.structure[columns]
    right = np.strings.endswith(structure, "_RIGHT") | (
        ~np.strings.endswith(structure, "_LEFT") & (layout.place[columns, 0] > 0)
    )
    below = np.where(right, HEMISPHERES[1], HEMISPHERES[0])
    return np.where(vertex >= 0, cortex.hemisphere[vertex], below)
