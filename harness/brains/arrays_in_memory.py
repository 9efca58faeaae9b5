"""A brain from arrays in memory (`Brain.from_arrays`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.brains.array_checks import NEEDED, assemble_brain, check_arrays, check_needed, read_text
from harness.brains.brain import (
    Brain,
    Pictures,
)
from harness.storage import (
    ImageFiles,
    InputError,
    as_rgb,
    check_image_order,
    content_hash,
    decode_image,
    describe_array,
    hash_pixels,
    list_images,
    name_warnings,
    report_remarks,
    unknown_name,
    user_path,
)


def brain_from_arrays(
    responses: Any,
    coordinates: Any,
    stimuli: Any,
    *,
    name: str,
    rois: Any,
    roi_ranks: Mapping[str, float | int] | None,
    standardise: bool,
    **others: Any,
) -> Brain:
    """Make a brain from arrays in memory; see `Brain.from_arrays`."""
    source = f"brain {name}"
    arrays = {"responses": np.asarray(responses), "coordinates": np.asarray(coordinates)}
    for key, array in others.items():
        if array is not None:
            arrays[key] = read_text(np.asarray(array), key, source)
    needed = check_needed(arrays, source)
    if rois is not None:
        arrays |= _list_rois(rois, roi_ranks or {}, needed[0].shape[1], source)
    elif roi_ranks:
        raise InputError(f"{source}: found roi_ranks, expected rois too")
    checked = check_arrays(arrays, needed, source)
    images = _open_stimuli(stimuli, source)
    if len(images) != len(checked.responses):
        raise InputError(
            f"{source}: stimuli: found {len(images)} images, expected {len(checked.responses)}, "
            "one per row of responses"
        )
    hashes = _hash_stimuli(images, source)
    ids = np.array(arrays.get("stimulus_ids", np.arange(len(hashes))))
    known = {key: array for key, array in arrays.items() if key not in NEEDED}
    return assemble_brain(
        arrays,
        checked,
        source,
        name=name,
        stimuli=images,
        ids=ids,
        hashes=hashes,
        fingerprint=content_hash(hashes, checked.responses, checked.coords, known, standardise),
        fingerprints={},
        standardise=standardise,
    )


def _list_rois(
    rois: Any, ranks: Mapping[str, float | int], n_voxels: int, source: object
) -> dict[str, np.ndarray]:
    """ROIs given as a dictionary, or a name per voxel, as the arrays of a file."""
    if not isinstance(rois, Mapping):
        labels = read_text(np.asarray(rois), "rois", source)
        if labels.shape != (n_voxels,) or labels.dtype.kind != "U":
            raise InputError(
                f"{source}: rois: found {describe_array(labels)}, expected a dictionary of voxels by name, "
                f"or {n_voxels} names"
            )
        names = np.unique(labels[labels != ""])
        members = labels == names[:, None]
    else:
        names = np.array(list(rois), dtype=np.str_)
        members = np.zeros((len(names), n_voxels), dtype=bool)
        for row, (name, voxels) in enumerate(rois.items()):
            chosen = np.asarray(voxels)
            whole = chosen.dtype.kind in "iu" and chosen.ndim == 1
            inside = whole and (not len(chosen) or (chosen.min() >= 0 and chosen.max() < n_voxels))
            if not inside and not (chosen.dtype.kind == "b" and chosen.shape == (n_voxels,)):
                raise InputError(
                    f"{source}: rois: {name}: found {describe_array(chosen)}, expected "
                    f"voxel numbers from 0 to {n_voxels - 1}, or {n_voxels} booleans"
                )
            members[row, chosen] = True
    for name in ranks:
        if name not in names:
            raise InputError(f"{source}: roi_ranks: {unknown_name('ROI', name, names.tolist())}")
    return {
        "rois": members,
        "roi_names": names,
        "roi_ranks": np.array([float(ranks.get(str(name), np.nan)) for name in names]),
    }


def _open_stimuli(stimuli: Any, source: object) -> Sequence[Image.Image]:
    """Images in memory (by the rule of `as_rgb`), or those of a folder or of files, decoded on demand."""
    if isinstance(stimuli, str | Path):
        folder = user_path(stimuli)
        names = list_images(folder)
        check_image_order(folder, names)
        return ImageFiles([folder / name for name in names])
    if isinstance(stimuli, np.ndarray):
        if stimuli.ndim != 4 or stimuli.shape[3] != 3 or stimuli.dtype != np.uint8:
            raise InputError(
                f"{source}: stimuli: found {describe_array(stimuli)}, "
                "expected [n_images, height, width, 3] of uint8"
            )
        return Pictures(stimuli)
    images = list(stimuli)
    if images and all(isinstance(image, str | Path) for image in images):
        return ImageFiles([user_path(image) for image in images])
    for image in images:
        if not isinstance(image, Image.Image):
            raise InputError(
                f"{source}: stimuli: found a {type(image).__name__}, expected PIL images, paths, a folder, "
                "or a uint8 array"
            )
    remarks: list[set[str]] = [set() for _ in images]
    names = [f"{source}: stimuli: image {row}" for row in range(len(images))]
    shown = [as_rgb(*triple) for triple in zip(images, names, remarks, strict=True)]
    report_remarks(source, zip(names, remarks, strict=True))
    return shown


def _hash_stimuli(images: Sequence[Image.Image], source: object) -> list[str]:
    """Hash the pixels of the stimuli, and count files that are not shown as stored."""
    if not isinstance(images, ImageFiles):
        return [hash_pixels(image) for image in images]
    hashes = []
    remarks: list[set[str]] = [set() for _ in images.paths]
    with name_warnings():
        for path, found in zip(images.paths, remarks, strict=True):
            hashes.append(hash_pixels(decode_image(path, remarks=found)))
    report_remarks(source, zip(map(str, images.paths), remarks, strict=True))
    return hashes
