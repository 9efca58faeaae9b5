"""Any recording as plain arrays: one npz file, or a folder of npy files of the same names.

Arrays, of which the first two are needed (docs/brains.md says the same with an example):

    responses      [n_images, n_voxels]     numbers
    coordinates    [n_voxels, 3]            millimetres; on a surface, hemispheres moved apart along x
    shown          [n_images]               picture of each row: its file name, or its place among the sorted
                                            names, from 0; not given: row i shows the i-th picture
    stimulus_ids   [n_images]               equal where the picture is the same; not given: the file's name
    noise_ceiling  [n_voxels]               explainable share of the variance, 0 to 1
    hemisphere     [n_voxels]               "L" or "R"; not given: L where x < 0
    rois           [n_voxels] of names, "" for none; or [n_voxels] of places in roi_names, -1 for none; or
                   [n_rois, n_voxels] of bool, which may overlap, one row for each of roi_names
    roi_names, roi_ranks   [n_rois]         names; place in the visual hierarchy, V1 1, NaN for none
    n_repeats, session     [n_images]       whole numbers
    shared         [n_images]               bool: shown to all subjects

Pictures lie in a folder ``stimuli`` beside the npz file or in the folder.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from harness.brains.brain import (
    Brain,
    Pictures,
    Roi,
)
from harness.brains.roi_names import check_roi_names
from harness.brains.usable import (
    check_ceiling,
    keep_usable,
)
from harness.config import ArraysConfig
from harness.storage import (
    ImageFiles,
    InputError,
    check_image_order,
    content_hash,
    describe_array,
    hash_files,
    hash_images,
    list_images,
    merge_equal_images,
    open_npy,
    read_npz,
    unknown_name,
)

log = logging.getLogger(__name__)

NEEDED = ("responses", "coordinates")
# further arrays: their axes, and the kinds of numpy's types that they may be of
OPTIONAL = {
    "shown": (("n_images",), "iuU"),
    "stimulus_ids": (("n_images",), "iuU"),
    "n_repeats": (("n_images",), "iu"),
    "session": (("n_images",), "iu"),
    "shared": (("n_images",), "b"),
    "noise_ceiling": (("n_voxels",), "f"),
    "hemisphere": (("n_voxels",), "U"),
    "roi_names": (("n_rois",), "U"),
    "roi_ranks": (("n_rois",), "fiu"),
}
KINDS = {"i": "int", "u": "int", "U": "str", "f": "float", "b": "bool"}
STIMULI = "stimuli"


def load_arrays(config: ArraysConfig) -> Brain:
    """Load a brain from plain arrays.

    Unusable voxels are dropped (`harness.brains.usable`); with `config.standardise` each of the others gets
    mean 0 and variance 1 over all rows. The brain has no surface.

    Raises
    ------
    InputError
        If an array is missing, unknown or does not fit the others; it names the file.
    """
    root = Path(config.root).expanduser().absolute()
    arrays, files = _read_arrays(root)
    folder = root if root.is_dir() else root.parent
    checked = _check_arrays(arrays, _check_needed(arrays, root), root)
    pictures = folder / STIMULI
    names = list_images(pictures)
    shown = _find_shown(arrays.get("shown"), names, len(checked.responses), pictures, root)
    fingerprints = hash_files(folder, files)
    hashes = hash_images(pictures, sorted(set(shown)))
    fingerprints[f"{STIMULI}/"] = content_hash(hashes)
    return _assemble(
        arrays,
        checked,
        root,
        name=root.name,
        stimuli=ImageFiles([pictures / name for name in shown]),
        ids=np.array(arrays.get("stimulus_ids", shown)),
        hashes=[hashes[name] for name in shown],
        fingerprint=content_hash(fingerprints, config.standardise),
        fingerprints=fingerprints,
        standardise=config.standardise,
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
    arrays |= {key: np.asarray(array) for key, array in others.items() if array is not None}
    needed = _check_needed(arrays, source)
    if rois is not None:
        arrays |= _list_rois(rois, roi_ranks or {}, needed[0].shape[1], source)
    elif roi_ranks:
        raise InputError(f"{source}: found roi_ranks, expected rois too")
    checked = _check_arrays(arrays, needed, source)
    images = _open_stimuli(stimuli, source)
    if len(images) != len(checked.responses):
        raise InputError(
            f"{source}: stimuli: found {len(images)} images, expected {len(checked.responses)}, "
            "one per row of responses"
        )
    hashes = [content_hash(np.asarray(image.convert("RGB"))) for image in images]
    ids = np.array(arrays.get("stimulus_ids", np.arange(len(hashes))))
    known = {key: array for key, array in arrays.items() if key not in NEEDED}
    return _assemble(
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


@dataclass(frozen=True)
class _Checked:
    """Arrays that fit each other."""

    responses: Float[np.ndarray, "n_images n_voxels"]
    coords: Float[np.ndarray, "n_voxels 3"]
    rois: tuple[Roi, ...]
    noise_ceiling: Float[np.ndarray, " n_voxels"] | None
    hemisphere: Shaped[np.ndarray, " n_voxels"]


def _check_arrays(
    arrays: Mapping[str, np.ndarray], needed: tuple[np.ndarray, np.ndarray], source: object
) -> _Checked:
    responses, coords = needed
    n_images, n_voxels = responses.shape
    if "roi_ranks" in arrays and "roi_names" not in arrays:
        raise InputError(f"{source}: found roi_ranks, expected also roi_names")
    sizes = {"n_images": n_images, "n_voxels": n_voxels, "n_rois": len(arrays.get("roi_names", ()))}
    for name, (axes, kinds) in OPTIONAL.items():
        if name in arrays:
            _check(arrays[name], name, tuple(sizes[axis] for axis in axes), kinds, source)
    if "n_repeats" in arrays and arrays["n_repeats"].min() < 1:
        raise InputError(f"{source}: n_repeats: found {arrays['n_repeats'].min()}, expected 1 or more")
    rois = _read_rois(arrays, n_voxels, source)
    ceiling = arrays.get("noise_ceiling")
    return _Checked(
        responses,
        coords,
        rois,
        None if ceiling is None else check_ceiling(ceiling, f"{source}: noise_ceiling"),
        _read_hemisphere(arrays.get("hemisphere"), coords, source),
    )


def _assemble(
    arrays: Mapping[str, np.ndarray],
    checked: _Checked,
    source: object,
    *,
    name: str,
    stimuli: Sequence[Image.Image],
    ids: Shaped[np.ndarray, " n_images"],
    hashes: Sequence[str],
    fingerprint: str,
    fingerprints: Mapping[str, str],
    standardise: bool,
) -> Brain:
    coords = checked.coords
    brain = Brain(
        name=name,
        stimuli=stimuli,
        responses=checked.responses,
        coords=coords,
        bounding_box=np.stack([coords.min(axis=0), coords.max(axis=0)]),
        hemisphere=checked.hemisphere,
        rois=checked.rois,
        noise_ceiling=checked.noise_ceiling,
        surface=None,
        fingerprint=fingerprint,
        stimulus_ids=merge_equal_images(ids, hashes),
        n_repeats=_as(np.int64, arrays.get("n_repeats")),
        session=_as(np.int64, arrays.get("session")),
        shared=_as(np.bool_, arrays.get("shared")),
        fingerprints=fingerprints,
    )
    brain = keep_usable(brain, f"{source}: responses")
    if standardise:
        mean = brain.responses.mean(axis=0, dtype=np.float64)
        brain.responses[:] = (brain.responses - mean) / brain.responses.std(axis=0, dtype=np.float64)
    return brain


def _list_rois(
    rois: Any, ranks: Mapping[str, float | int], n_voxels: int, source: object
) -> dict[str, np.ndarray]:
    """ROIs given as a dictionary, or a name per voxel, as the arrays of a file."""
    if not isinstance(rois, Mapping):
        labels = np.asarray(rois)
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
    """Images in memory, or those of a folder or of files, decoded on demand."""
    if isinstance(stimuli, str | Path):
        folder = Path(stimuli).expanduser()
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
        return ImageFiles([Path(image).expanduser() for image in images])
    for image in images:
        if not isinstance(image, Image.Image):
            raise InputError(
                f"{source}: stimuli: found a {type(image).__name__}, expected PIL images, paths, a folder, "
                "or a uint8 array"
            )
    return images


def _read_arrays(root: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """All arrays by name, and the names of their files."""
    known = [*NEEDED, *OPTIONAL, "rois"]
    if root.is_dir():
        paths = sorted(path for path in root.glob("*.npy") if not path.name.startswith("."))
        arrays = {path.stem: open_npy(path) for path in paths if path.stem in known}
        names, files = [path.stem for path in paths], [path.name for path in paths]
    elif root.exists():
        arrays = read_npz(root)
        names, files = list(arrays), [root.name]
    else:
        raise InputError(
            f"brain.root: {root}: no such file or folder; expected an npz file, or a folder of npy files"
        )
    for name in names:
        if name not in known:
            raise InputError(f"{root}: {unknown_name('array', name, known)}")
    for name in NEEDED:
        if name not in arrays:
            raise InputError(f"{root}: found {', '.join(names) or 'no array'}, expected also {name}")
    return arrays, files


def _check(array: np.ndarray, name: str, shape: tuple[int, ...], kinds: str, source: object) -> None:
    if array.shape != shape or array.dtype.kind not in kinds:
        accepted = " or ".join(dict.fromkeys(KINDS[kind] for kind in kinds))
        raise InputError(
            f"{source}: {name}: found {describe_array(array)}, expected shape {shape} of {accepted}"
        )


def _check_needed(
    arrays: Mapping[str, np.ndarray], source: object
) -> tuple[Float[np.ndarray, "n_images n_voxels"], Float[np.ndarray, "n_voxels 3"]]:
    """Responses and coordinates as float32, copied."""
    responses, coords = (arrays[name] for name in NEEDED)
    if responses.ndim != 2 or not all(responses.shape) or responses.dtype.kind not in "iuf":
        raise InputError(
            f"{source}: responses: found {describe_array(responses)}, expected a table of numbers"
        )
    _check(coords, "coordinates", (responses.shape[1], 3), "fiu", source)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is left out as such
        responses, coords = np.array(responses, dtype=np.float32), np.array(coords, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(coords).all(axis=1))
    if len(bad):
        raise InputError(
            f"{source}: coordinates: {len(bad)} voxels, such as {bad[0]} (counted from 0), have no place; "
            "expected finite numbers"
        )
    shared = len(coords) - len(np.unique(coords, axis=0))
    if shared:
        log.warning(
            "warning: %s: %d voxels have the place of another: a mapping by place cannot tell them apart. On "
            "a surface, move the right hemisphere along x",
            source,
            shared,
        )
    return responses, coords


def _find_shown(
    shown: Shaped[np.ndarray, " n_images"] | None, names: list[str], n_images: int, pictures: Path, root: Path
) -> list[str]:
    """Name of the picture of every row."""
    if shown is None:
        if len(names) != n_images:
            raise InputError(
                f"{root}: responses: found {n_images} rows, but {len(names)} images in {pictures}; expected "
                "as many, or an array `shown` that says which image each row is of"
            )
        check_image_order(pictures, names)
        return names
    if shown.dtype.kind == "U":
        there = set(names)
        for name in shown.tolist():
            if name not in there:
                raise InputError(f"{root}: shown: {unknown_name(f'image of {pictures}', name, names)}")
        return [str(name) for name in shown]
    check_image_order(pictures, names)
    if shown.min() < 0 or shown.max() >= len(names):
        hint = "; they look counted from 1" if shown.min() == 1 and shown.max() == len(names) else ""
        raise InputError(
            f"{root}: shown: found {shown.min()} to {shown.max()}, expected 0 to {len(names) - 1}, places "
            f"among the sorted names in {pictures}{hint}"
        )
    return [names[place] for place in shown.tolist()]


def _read_hemisphere(
    hemisphere: Shaped[np.ndarray, " n_voxels"] | None,
    coords: Float[np.ndarray, "n_voxels 3"],
    source: object,
) -> Shaped[np.ndarray, " n_voxels"]:
    if hemisphere is None:
        return np.where(coords[:, 0] < 0, "L", "R")
    wrong = hemisphere[~np.isin(hemisphere, ["L", "R"])]
    if len(wrong):
        raise InputError(f"{source}: hemisphere: found {str(wrong[0])!r}, expected 'L' or 'R'")
    return np.array(hemisphere)


def _read_rois(arrays: Mapping[str, np.ndarray], n_voxels: int, source: object) -> tuple[Roi, ...]:
    """ROIs of any of the three forms that `rois` may have; those without voxels are left out."""
    labels, names = arrays.get("rois"), arrays.get("roi_names")
    if labels is None:
        if names is not None:
            raise InputError(f"{source}: found roi_names, expected also rois")
        return ()
    if labels.shape == (n_voxels,) and labels.dtype.kind == "U":
        known = np.unique(labels[labels != ""]) if names is None else names
        for name in np.unique(labels[labels != ""]).tolist():
            if name not in known:
                raise InputError(f"{source}: rois: {unknown_name('name of roi_names', name, known.tolist())}")
        members = labels == known[:, None]
    elif names is None:
        raise InputError(
            f"{source}: rois: found {describe_array(labels)}, expected names, or roi_names beside them"
        )
    elif labels.shape == (n_voxels,) and labels.dtype.kind in "iu":
        known = names
        if labels.min() < -1 or labels.max() >= len(names):
            raise InputError(
                f"{source}: rois: found labels {labels.min()} to {labels.max()}, which are not all named; "
                f"expected -1 (none) and 0 to {len(names) - 1}, places in roi_names"
            )
        members = labels == np.arange(len(names))[:, None]
    else:
        known = names
        _check(labels, "rois", (len(names), n_voxels), "b", source)
        members = np.array(labels)
    ranks = arrays.get("roi_ranks", np.full(len(known), np.nan))
    check_roi_names(known.tolist(), f"{source}: rois")
    return tuple(
        Roi(str(name), np.flatnonzero(inside), float(rank) if np.isfinite(rank) else None)
        for name, inside, rank in zip(known, members, ranks, strict=True)
        if inside.any()
    )


def _as(kind: type[np.generic], array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else np.array(array, dtype=kind)
