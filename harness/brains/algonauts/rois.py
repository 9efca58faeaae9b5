"""Regions of interest of Algonauts 2023: labels, names and ranks in the visual hierarchy."""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from harness.brains.brain import Roi
from harness.brains.roi_names import check_roi_names
from harness.storage import (
    InputError,
    as_input_error,
    describe_array,
    open_npy,
)

log = logging.getLogger(__name__)

# names of labels from 1 (0 is no region), used if a file mapping_<class>.npy is missing
LABELS: dict[str, tuple[str, ...]] = {
    "prf-visualrois": ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"),
    "floc-bodies": ("EBA", "FBA-1", "FBA-2", "mTL-bodies"),
    "floc-faces": ("OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"),
    "floc-places": ("OPA", "PPA", "RSC"),
    "floc-words": ("OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"),
    "streams": ("early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal"),
}
RANKS = {"V1": 1.0, "V2": 2.0, "V3": 3.0, "hV4": 4.0}
CATEGORY_RANK = 5.0
"""Rank of all category-selective areas. They come after hV4 but have no agreed order, so they count as one
level, like higher visual cortex in the brain hierarchy score (Nonaka et al. 2021, iScience). Streams have no
rank: they span several levels."""
SPACES = ("challenge", "fsaverage")
SIDES = ("lh", "rh")
# names in numpy's pickle of an object array; their module path depends on numpy's version
_OF_ARRAYS = {"_reconstruct", "ndarray", "dtype", "encode"}


def read_rois(
    folder: Path, masks: Mapping[str, Int[np.ndarray, " n_vertices"]]
) -> tuple[tuple[Roi, ...], list[Path]]:
    """Read the ROIs of a folder ``roi_masks``, both hemispheres joined, and list the files used.

    Labels are read in challenge space, or else in fsaverage space; if both exist they must agree. Parts of an
    area (V1v, V1d) are listed beside the whole (V1), so ROIs overlap.

    Parameters
    ----------
    folder : Path
    masks : dict of "lh", "rh" to int array [n_vertices]
        Measured vertices of fsaverage. Voxels are those of the left, then of the right hemisphere.

    Raises
    ------
    InputError
        If labels of one hemisphere are missing, do not fit the measured vertices, or have no name.
    """
    rois: list[Roi] = []
    files: list[Path] = []
    for kind in LABELS:
        parts = {side: _read_labels(folder, side, kind, masks[side], files) for side in SIDES}
        there = [labels for labels in parts.values() if labels is not None]
        if len(there) == 1:
            (side,) = (side for side, labels in parts.items() if labels is None)
            raise InputError(
                f"{folder / f'{side}.{kind}_challenge_space.npy'}: no such file; expected labels of both "
                "hemispheres or of neither"
            )
        if not there:
            continue
        names, labels = _read_names(folder, kind, files), np.concatenate(there)
        for side, part in zip(SIDES, there, strict=True):
            _check_named(part, names, f"{folder / f'{side}.{kind}'}_*_space.npy")
        found = {name: np.flatnonzero(labels == label) for label, name in sorted(names.items()) if label}
        rois += rank_rois(kind, {name: voxels for name, voxels in found.items() if len(voxels)})
    check_roi_names([roi.name for roi in rois], folder)
    if not rois:
        log.warning("warning: %s: no ROI labels; the brain has no ROIs", folder)
    return tuple(rois), files


def _check_named(labels: Int[np.ndarray, " n_side_voxels"], names: Mapping[int, str], source: str) -> None:
    for label in np.unique(labels[labels != 0]).tolist():
        if label not in names:
            known = ", ".join(f"{number} ({name})" for number, name in sorted(names.items()) if number)
            raise InputError(
                f"{source}: found label {label}, which has no name; expected 0 (no region) and {known}"
            )


def rank_rois(kind: str, found: Mapping[str, Int[np.ndarray, " n_roi_voxels"]]) -> list[Roi]:
    """List the ROIs of one class with their ranks, wholes before their parts."""
    rois = []
    wholes: dict[str, list[str]] = {}
    for name in found:
        whole = name[:-1] if kind.startswith("prf") and name[-1] in "vd" else name
        wholes.setdefault(whole, []).append(name)
    for whole, parts in wholes.items():
        rank = CATEGORY_RANK if kind.startswith("floc") else RANKS.get(whole)
        if parts != [whole]:
            rois.append(Roi(whole, np.sort(np.concatenate([found[part] for part in parts])), rank))
        rois += [Roi(part, found[part], rank) for part in parts]
    return rois


def _read_labels(
    folder: Path, side: str, kind: str, mask: Int[np.ndarray, " n_vertices"], files: list[Path]
) -> Int[np.ndarray, " n_side_voxels"] | None:
    """Labels of the measured vertices of a hemisphere; None if there is no file."""
    found: dict[str, Int[np.ndarray, " n_side_voxels"]] = {}
    for space in SPACES:
        path = folder / f"{side}.{kind}_{space}_space.npy"
        if not path.exists():
            continue
        labels = open_npy(path)
        expected = (int(np.count_nonzero(mask)),) if space == "challenge" else mask.shape
        if labels.shape != expected or labels.dtype.kind not in "iu":
            raise InputError(f"{path}: found {describe_array(labels)}, expected shape {expected} of int")
        found[space] = np.array(labels if space == "challenge" else labels[mask != 0]).astype(np.int64)
        files.append(path)
    if len(found) == 2 and (found["challenge"] != found["fsaverage"]).any():
        raise InputError(
            f"{folder / f'{side}.{kind}_challenge_space.npy'}: labels differ from those in fsaverage "
            "space; expected two files of one subject"
        )
    return next(iter(found.values()), None)


def _read_names(folder: Path, kind: str, files: list[Path]) -> dict[int, str]:
    """Names of the labels of a class, from its mapping file or else from `LABELS`."""
    path = folder / f"mapping_{kind}.npy"
    if not path.exists():
        return dict(enumerate(LABELS[kind], 1))
    names = read_mapping(path)
    files.append(path)
    return names


def read_mapping(path: Path) -> dict[int, str]:
    """Read a file ``mapping_<class>.npy``: a dictionary of labels and names, pickled by numpy.

    Pickles can run any code, so the unpickler admits builtin types only. Inert stand-ins replace the numpy
    types around the dictionary, so no numpy code runs either.

    Raises
    ------
    InputError
        If the file is broken or holds anything else.
    """
    with as_input_error(path, "table of labels"), path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = header[version](file)
        if shape != () or not dtype.hasobject:
            raise InputError(
                f"{path}: found an array of {dtype}, expected one dictionary of labels and names"
            )
        content = _unpickle(file.read())
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: found a {type(content).__name__}, expected a dictionary of labels and names"
        )
    for label, name in content.items():
        if type(label) is not int or not isinstance(name, str):
            raise InputError(f"{path}: found {label!r:.40}: {name!r:.80}, expected whole numbers and names")
    check_roi_names([name for label, name in content.items() if label], path)
    return dict(content)


def _unpickle(data: bytes) -> Any:
    """Unpickle the object in a 0-dimensional object array."""

    # defined per file: no pickle can change the classes of the next
    class Part:
        """Stand-in for numpy's types; only keeps its state."""

        state: Any = None

        def __init__(self, *arguments: Any) -> None:
            pass

        def __setstate__(self, state: Any) -> None:
            self.state = state

    class Restricted(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module.partition(".")[0] in ("numpy", "_codecs") and name in _OF_ARRAYS:
                return Part
            raise pickle.UnpicklingError(f"found {module}.{name}, expected builtin types only")

    array = Restricted(io.BytesIO(data)).load()
    # version, shape, dtype, Fortran order, list of objects
    state: Sequence[Any] = array.state if isinstance(array, Part) else ()
    if len(state) != 5 or not isinstance(state[4], list) or len(state[4]) != 1:
        raise pickle.UnpicklingError("not the pickle of an array of one object")
    return state[4][0]
