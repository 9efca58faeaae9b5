"""Check that arrays describe one brain, and assemble it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from harness.brains.brain import (
    Brain,
    Roi,
)
from harness.brains.roi_names import check_roi_names
from harness.brains.usable import (
    check_ceiling,
    keep_usable,
)
from harness.storage import (
    InputError,
    describe_array,
    merge_equal_images,
    unknown_name,
)

log = logging.getLogger(__name__)

KINDS = {"i": "int", "u": "int", "U": "str", "f": "float", "b": "bool"}


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


NEEDED = ("responses", "coordinates")


@dataclass(frozen=True)
class CheckedArrays:
    """Arrays that fit each other."""

    responses: Float[np.ndarray, "n_images n_voxels"]
    coords: Float[np.ndarray, "n_voxels 3"]
    rois: tuple[Roi, ...]
    noise_ceiling: Float[np.ndarray, " n_voxels"] | None
    hemisphere: Shaped[np.ndarray, " n_voxels"]


def read_text(array: np.ndarray, name: str, source: object) -> np.ndarray:
    """Make text of bytes (MATLAB, h5py) and of objects that are all text (pandas); others stay as they are.

    Raises
    ------
    InputError
        If bytes are not UTF-8, or objects are not all text.
    """
    if array.dtype.kind == "T":  # numpy's strings of variable length
        return array.astype(np.str_)
    if array.dtype.kind not in "SO":
        return array
    words = array.ravel().tolist()
    for place, word in enumerate(words):
        if isinstance(word, bytes):
            try:
                words[place] = word.decode()
            except UnicodeDecodeError:
                raise InputError(
                    f"{source}: {name}: found bytes at {place} that are not UTF-8 text"
                ) from None
        elif not isinstance(word, str):
            raise InputError(
                f"{source}: {name}: found a {type(word).__name__} at {place} (counted from 0) of an array of "
                f"Python objects, expected text throughout ('' for none) or an array of numbers"
            )
    return np.array(words, dtype=np.str_).reshape(array.shape)


def check_arrays(
    arrays: Mapping[str, np.ndarray], needed: tuple[np.ndarray, np.ndarray], source: object
) -> CheckedArrays:
    """Check every array against the others; `source` names the file or brain in errors."""
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
    return CheckedArrays(
        responses,
        coords,
        rois,
        None if ceiling is None else check_ceiling(ceiling, f"{source}: noise_ceiling"),
        _read_hemisphere(arrays.get("hemisphere"), coords, source),
    )


def check_needed(
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


def _check(array: np.ndarray, name: str, shape: tuple[int, ...], kinds: str, source: object) -> None:
    if array.shape != shape or array.dtype.kind not in kinds:
        accepted = " or ".join(dict.fromkeys(KINDS[kind] for kind in kinds))
        raise InputError(
            f"{source}: {name}: found {describe_array(array)}, expected shape {shape} of {accepted}"
            f"{_advise(array, name, shape, kinds)}"
        )


def _advise(array: np.ndarray, name: str, shape: tuple[int, ...], kinds: str) -> str:
    """Say which expression gives the expected array, if one keeps every value."""
    fitting, expression = array, name
    if fitting.shape != shape and fitting.ndim == 2 and fitting.T.shape == shape:
        fitting, expression = fitting.T, f"{expression}.T"
    elif fitting.shape != shape and fitting.size == math.prod(shape) and len(shape) == 1:
        fitting, expression = fitting.ravel(), f"{expression}.ravel()"
    if fitting.shape != shape:
        return ""
    if fitting.dtype.kind not in kinds and fitting.dtype.kind in "iufb":
        for kind, letter in ((bool, "b"), (int, "i"), (float, "f")):
            if letter in kinds and np.isfinite(fitting).all() and (fitting.astype(kind) == fitting).all():
                fitting, expression = fitting.astype(kind), f"{expression}.astype({kind.__name__})"
                break
    return f"; store {expression}" if expression != name and fitting.dtype.kind in kinds else ""


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
            f"{source}: rois: found {describe_array(labels)}, expected {n_voxels} names as text ('' for "
            "none), or also an array roi_names: the names that numbers stand for"
        )
    elif labels.shape == (n_voxels,) and labels.dtype.kind in "iu":
        known = names
        if labels.min() < -1 or labels.max() >= len(names):
            raise InputError(
                f"{source}: rois: found labels {labels.min()} to {labels.max()}, which are not all named; "
                f"expected -1 (none) and 0 to {len(names) - 1}, places in roi_names"
            )
        members = labels == np.arange(len(names))[:, None]
    elif labels.shape == (n_voxels,):
        advice = _advise(labels, "rois", (n_voxels,), "iu")
        raise InputError(
            f"{source}: rois: found {describe_array(labels)}, expected names as text, or whole numbers "
            f"(int): places in roi_names, from 0, -1 for none{advice}"
        )
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


def assemble_brain(
    arrays: Mapping[str, np.ndarray],
    checked: CheckedArrays,
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
    """Assemble a brain without a surface from checked arrays, without its unusable voxels."""
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


def _as(kind: type[np.generic], array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else np.array(array, dtype=kind)
