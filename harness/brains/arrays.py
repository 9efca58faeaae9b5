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

from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from harness.brains.array_checks import (
    NEEDED,
    OPTIONAL,
    assemble_brain,
    check_arrays,
    check_needed,
    read_text,
)
from harness.brains.brain import (
    Brain,
)
from harness.config import ArraysConfig
from harness.storage import (
    ImageFiles,
    InputError,
    check_image_order,
    content_hash,
    hash_files,
    hash_images,
    list_images,
    open_npy,
    read_npz,
    unknown_name,
    user_path,
)

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
    root = user_path(config.root).absolute()
    arrays, files = _read_arrays(root)
    folder = root if root.is_dir() else root.parent
    checked = check_arrays(arrays, check_needed(arrays, root), root)
    pictures = folder / STIMULI
    names = list_images(pictures)
    shown = _find_shown(arrays.get("shown"), names, len(checked.responses), pictures, root)
    fingerprints = hash_files(folder, files)
    hashes = hash_images(pictures, sorted(set(shown)))
    fingerprints[f"{STIMULI}/"] = content_hash(hashes)
    return assemble_brain(
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


def _read_arrays(root: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """All arrays by name, and the names of their files."""
    known = [*NEEDED, *OPTIONAL, "rois"]
    if root.is_dir():
        paths = sorted(path for path in root.glob("*.npy") if not path.name.startswith("."))
        arrays = {path.stem: open_npy(path) for path in paths if path.stem in known}
        names, files = [path.stem for path in paths], [path.name for path in paths]
    elif root.exists() or root.is_symlink():
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
    return {name: read_text(array, name, root) for name, array in arrays.items()}, files


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
