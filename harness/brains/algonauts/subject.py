"""Subjects of the Algonauts 2023 challenge: responses of visual cortex to natural scenes, on fsaverage.

A subject's folder as the challenge distributes it (Gifford et al. 2023, arXiv:2301.03198):

    training_split/training_images/train-0001_nsd-00013.png …   number from 1, id in NSD from 0
    training_split/training_fmri/{lh,rh}_training_fmri.npy      float32 [n_images, n_vertices]
    roi_masks/{lh,rh}.all-vertices_fsaverage_space.npy          [163842], not 0 where measured
    roi_masks/{lh,rh}.<class>_{challenge,fsaverage}_space.npy   labels; names in mapping_<class>.npy
    test_split/test_images/, test_fmri/, noise_ceiling/         all optional

Rows of the responses are the images in sorted order. Responses are z-scored per session and averaged over
repeats; the data do not say how many, or in which sessions. The number of vertices is that of the files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from harness.brains.algonauts.rois import (
    SIDES,
    read_rois,
)
from harness.brains.brain import (
    Brain,
    Roi,
    Surface,
)
from harness.brains.fsaverage import (
    N_VERTICES,
    load_fsaverage,
)
from harness.brains.usable import (
    check_ceiling,
    keep_usable,
)
from harness.config import Algonauts2023Config
from harness.storage import (
    ImageFiles,
    InputError,
    content_hash,
    describe_array,
    hash_files,
    hash_images,
    list_images,
    merge_equal_images,
    open_npy,
    user_path,
)

N_PICTURES = 73_000
"""Images of the Natural Scenes Dataset; ids count from 0."""
SUBJECT = re.compile(r"subj\d\d")


def load_algonauts2023(config: Algonauts2023Config) -> Brain:
    """Load a subject with its training images and, with `config.test_images`, its test images as stimuli.

    Voxels are the measured vertices of the left, then of the right hemisphere, with coordinates on the sphere
    of fsaverage. Unusable voxels are dropped (`harness.brains.usable`).

    Raises
    ------
    InputError
        If a file is missing or broken, or files do not belong together.
    """
    folder = find_subject(user_path(config.root).absolute(), config.subject)
    measured = {side: folder / f"roi_masks/{side}.all-vertices_fsaverage_space.npy" for side in SIDES}
    masks = {side: _read_mask(path) for side, path in measured.items()}
    n_voxels = {side: int(np.count_nonzero(mask)) for side, mask in masks.items()}
    rois, used = read_rois(folder / "roi_masks", masks)
    splits = [_open_split(folder, "training_split/training", "train", n_voxels)]
    if config.test_images:
        splits.append(_open_split(folder, "test_split/test", "test", n_voxels))
    ceiling, ceiling_files = _read_ceiling(folder, n_voxels)
    used += [*measured.values(), *ceiling_files, *(path for split in splits for path in split.responses)]

    names = sorted(path.relative_to(folder).as_posix() for path in used)
    fingerprints = hash_files(folder, names, progress=f"reading {folder.name}")
    hashes: list[str] = []
    for split in splits:
        found = hash_images(split.images, split.names)
        fingerprints[f"{split.images.relative_to(folder).as_posix()}/"] = content_hash(found)
        hashes += [found[name] for name in split.names]
    vertices = np.concatenate([np.flatnonzero(masks["lh"]), N_VERTICES + np.flatnonzero(masks["rh"])])
    cortex = load_fsaverage()
    coords = cortex.sphere[vertices]
    brain = Brain(
        name=f"algonauts2023-{folder.name}",
        stimuli=ImageFiles([split.images / name for split in splits for name in split.names]),
        responses=_read_responses(splits, n_voxels),
        coords=coords,
        bounding_box=cortex.bounding_box,
        hemisphere=np.repeat(["L", "R"], list(n_voxels.values())),
        rois=rois,
        noise_ceiling=ceiling,
        surface=draw_areas(vertices, rois),
        fingerprint=content_hash(fingerprints, coords),
        stimulus_ids=_identify(np.concatenate([split.ids for split in splits]), hashes, folder),
        fingerprints=fingerprints,
    )
    return keep_usable(brain, folder)


def find_subject(root: Path, subject: int | None) -> Path:
    """Find the folder of a subject, at or in `root`; `InputError` says what was found instead."""
    if not root.is_dir():
        raise InputError(f"brain.root: {root}: no such folder; expected a subject of Algonauts 2023")
    inside = sorted(path.name for path in root.iterdir() if path.is_dir() and SUBJECT.fullmatch(path.name))
    here = (root / "training_split").is_dir()
    if subject is not None:
        name = f"subj{subject:02d}"
        if name in inside:
            return root / name
        if here and root.name == name:
            return root
        found = ", ".join(inside) or "no folder subj01 to subj08"
        raise InputError(f"brain.subject: {root}: found {found}, expected {name}")
    if here:
        return root
    if inside:
        raise InputError(
            f"brain.subject: {root}: found {', '.join(inside)}; choose one, as in "
            f"brain.subject={inside[0][-1]}"
        )
    above = [path for path in root.parents if (path / "training_split").is_dir()]
    hint = f"; did you mean {above[0]}?" if above else ""
    raise InputError(f"brain.root: {root}: found neither training_split nor subj01 to subj08{hint}")


def _read_mask(path: Path) -> Int[np.ndarray, " n_vertices"]:
    """Read the mask of a hemisphere: nonzero at measured vertices."""
    mask = open_npy(path)
    if mask.shape != (N_VERTICES,) or mask.dtype.kind not in "iub" or not mask.any():
        raise InputError(
            f"{path}: found {describe_array(mask)}, expected shape ({N_VERTICES},) of int, not all 0"
        )
    return np.array(mask).astype(np.int64)


@dataclass(frozen=True)
class _Split:
    """Images and the responses to them, not read yet."""

    images: Path
    names: list[str]
    ids: Int[np.ndarray, " n_images"]
    responses: list[Path]


def _open_split(folder: Path, stem: str, prefix: str, n_voxels: dict[str, int]) -> _Split:
    """Find images and responses, and check that they fit each other and the vertices."""
    kind = stem.rpartition("/")[2]
    images = folder / f"{stem}_images"
    names, ids = _read_names(images, prefix)
    paths = []
    for side in SIDES:
        path = folder / f"{stem}_fmri" / f"{side}_{kind}_fmri.npy"
        responses = open_npy(path)
        if responses.ndim != 2 or responses.dtype.kind != "f":
            raise InputError(
                f"{path}: found {describe_array(responses)}, expected (images, vertices) of float"
            )
        if len(responses) != len(names):
            raise InputError(
                f"{path}: found {len(responses)} rows, but {len(names)} images in {images}; expected as many"
            )
        if responses.shape[1] != n_voxels[side]:
            raise InputError(
                f"{path}: found {responses.shape[1]} vertices, but {n_voxels[side]} in "
                f"roi_masks/{side}.all-vertices_fsaverage_space.npy; expected as many"
            )
        paths.append(path)
    return _Split(images, names, ids, paths)


def _read_names(folder: Path, prefix: str) -> tuple[list[str], Int[np.ndarray, " n_images"]]:
    """Names of images in the order of rows, and their ids in the Natural Scenes Dataset."""
    names = list_images(folder)
    form = re.compile(rf"{prefix}-(\d{{4,}})_nsd-(\d{{5}})\.png")
    parts = []
    for name in names:
        match = form.fullmatch(name)
        if match is None:
            raise InputError(f"{folder / name}: expected a name such as {prefix}-0001_nsd-00013.png")
        parts.append((int(match[1]), int(match[2])))
    numbers, ids = np.array(parts).T
    wrong = np.flatnonzero(numbers != np.arange(1, len(numbers) + 1))
    if len(wrong):
        raise InputError(
            f"{folder}: found {names[wrong[0]]}, expected {prefix}-{wrong[0] + 1:04d}: images are numbered "
            "from 1, each once, as they are the rows of the responses"
        )
    if ids.max() >= N_PICTURES:
        raise InputError(
            f"{folder / names[ids.argmax()]}: found id {ids.max()}, expected 0 to {N_PICTURES - 1} "
            "(ids count from 0)"
        )
    return names, ids


def _identify(
    ids: Int[np.ndarray, " n_images"], hashes: list[str], folder: Path
) -> Shaped[np.ndarray, " n_images"]:
    """Ids of images; refuses one id for two different images."""
    order = np.argsort(ids, kind="stable")
    for one, other in pairwise(order):
        if ids[one] == ids[other] and hashes[one] != hashes[other]:
            raise InputError(
                f"{folder}: images {one + 1} and {other + 1} differ, but both have id nsd-{ids[one]:05d}; "
                "expected one image per id"
            )
    return merge_equal_images(ids, hashes)


def _read_responses(splits: list[_Split], n_voxels: dict[str, int]) -> Float[np.ndarray, "n_images n_voxels"]:
    """Read all responses, each copied once: they are too large to hold twice."""
    n_images = sum(len(split.names) for split in splits)
    responses = np.empty((n_images, sum(n_voxels.values())), dtype=np.float32)
    first = 0
    for split in splits:
        rows = slice(first, first + len(split.names))
        for path, columns in zip(
            split.responses, (slice(0, n_voxels["lh"]), slice(n_voxels["lh"], None)), strict=True
        ):
            responses[rows, columns] = open_npy(path)
        first = rows.stop
    return responses


def _read_ceiling(
    folder: Path, n_voxels: dict[str, int]
) -> tuple[Float[np.ndarray, " n_voxels"] | None, list[Path]]:
    """Read noise ceilings and list their files; None if neither hemisphere has them."""
    paths = [folder / "test_split" / "noise_ceiling" / f"{side}_noise_ceiling.npy" for side in SIDES]
    if not any(path.exists() for path in paths):
        return None, []
    parts = []
    for path, count in zip(paths, n_voxels.values(), strict=True):
        part = open_npy(path)
        if part.shape != (count,) or part.dtype.kind != "f":
            raise InputError(f"{path}: found {describe_array(part)}, expected shape ({count},) of float")
        parts.append(np.array(part))
    return check_ceiling(np.concatenate(parts), paths[0].parent), paths


def draw_areas(vertices: Int[np.ndarray, " n_voxels"], rois: tuple[Roi, ...]) -> Surface:
    """Flat map with the areas of the hierarchy outlined; where areas overlap, the first one."""
    parts = {roi.name for roi in rois if roi.name[:-1] in {whole.name for whole in rois}}
    areas = [roi for roi in rois if roi.rank is not None and roi.name not in parts]
    if not areas:
        return load_fsaverage().surface(vertices)
    area = np.full(len(vertices), -1, dtype=np.int64)
    for index, roi in reversed(list(enumerate(areas))):
        area[roi.voxels] = index
    return load_fsaverage().surface(vertices, area, tuple(roi.name for roi in areas))
