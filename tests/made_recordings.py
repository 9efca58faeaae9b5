"""Small recordings on disk, in the exact formats of the data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

N_FSAVERAGE = 163_842
# per hemisphere; as in the challenge, two subjects have fewer than the others
SIZES = {"subj01": {"lh": 40, "rh": 36}, "subj06": {"lh": 38, "rh": 35}}
N_TRAIN, N_TEST = 12, 4
NAMES = {
    "prf-visualrois": "Unknown V1v V1d V2v V2d V3v V3d hV4",
    "floc-bodies": "Unknown EBA FBA-1 FBA-2 mTL-bodies",
    "floc-faces": "Unknown OFA FFA-1 FFA-2 mTL-faces aTL-faces",
    "floc-places": "Unknown OPA PPA RSC",
    "floc-words": "Unknown OWFA VWFA-1 VWFA-2 mfs-words mTL-words",
    "streams": "Unknown early midventral midlateral midparietal ventral lateral parietal",
}


def write_picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng((7, seed)).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def save(path: Path, array: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def write_algonauts(
    root: Path,
    subject: str = "subj01",
    spaces: Sequence[str] = ("challenge",),
    mappings: bool = True,
    test: Sequence[str] = ("images",),
) -> Path:
    """Write a subject's folder as the challenge distributes it; `test` lists the parts of the test split."""
    folder, rng = root / subject, np.random.default_rng(int(subject[-2:]))
    masks = folder / "roi_masks"
    for side, size in SIZES[subject].items():
        # some belong to fsaverage5, as a tenth do in the challenge
        vertices = np.sort(rng.choice(np.arange(200, 60_000), size - 10, replace=False))
        vertices = np.concatenate([np.arange(100, 110), vertices])
        mask = np.zeros(N_FSAVERAGE, dtype=np.int64)
        mask[vertices] = rng.integers(1, 3, size)  # nsdgeneral and what was added to it
        save(masks / f"{side}.all-vertices_fsaverage_space.npy", mask)
        for kind, names in NAMES.items():
            labels = rng.integers(0, len(names.split()), size)
            if "challenge" in spaces:
                save(masks / f"{side}.{kind}_challenge_space.npy", labels)
            if "fsaverage" in spaces:
                whole = np.zeros(N_FSAVERAGE, dtype=np.int64)
                whole[vertices] = labels
                save(masks / f"{side}.{kind}_fsaverage_space.npy", whole)
        write_responses(folder / "training_split/training_fmri", side, "training", N_TRAIN, size, rng)
        if "responses" in test:
            write_responses(folder / "test_split/test_fmri", side, "test", N_TEST, size, rng)
        if "ceiling" in test:
            ceiling = rng.uniform(0, 0.9, size)
            save(folder / f"test_split/noise_ceiling/{side}_noise_ceiling.npy", ceiling)
    if mappings:
        for kind, names in NAMES.items():
            save(masks / f"mapping_{kind}.npy", dict(enumerate(names.split())))  # a pickle
    for row in range(N_TRAIN):
        name = f"train-{row + 1:04d}_nsd-{13 + 7 * row:05d}.png"
        write_picture(folder / "training_split/training_images" / name, row)
    if "images" in test:
        for row in range(N_TEST):
            name = f"test-{row + 1:04d}_nsd-{1000 + row:05d}.png"
            write_picture(folder / "test_split/test_images" / name, 100 + row)
    return folder


def write_responses(
    folder: Path, side: str, kind: str, n_images: int, n_vertices: int, rng: np.random.Generator
) -> None:
    save(folder / f"{side}_{kind}_fmri.npy", rng.standard_normal((n_images, n_vertices), dtype=np.float32))


def make_arrays(n_images: int = 12, n_voxels: int = 10) -> dict[str, np.ndarray]:
    """Make every array that a recording may have; four pictures have two rows each."""
    rng = np.random.default_rng(3)
    rois = rng.random((3, n_voxels)) < 0.6
    rois[:, 0] = True
    return {
        "responses": 20 + 5 * rng.standard_normal((n_images, n_voxels)),
        "coordinates": 40 * rng.standard_normal((n_voxels, 3)),
        "shown": np.arange(n_images) % (n_images - 4),
        "stimulus_ids": np.arange(n_images) % (n_images - 4) + 500,
        "noise_ceiling": rng.uniform(0.1, 0.9, n_voxels),
        "hemisphere": np.array(["L", "R"])[rng.integers(0, 2, n_voxels)],
        "rois": rois,
        "roi_names": np.array(["V1", "IT", "both"]),
        "roi_ranks": np.array([1.0, 5.0, np.nan]),
        "n_repeats": rng.integers(1, 4, n_images),
        "session": rng.integers(0, 3, n_images),
        "shared": rng.random(n_images) < 0.5,
    }


def write_arrays(root: Path, arrays: dict[str, np.ndarray], n_pictures: int, as_npz: bool = False) -> Path:
    """Write arrays as a folder or npz file with pictures beside it; return the value for ``brain.root``."""
    root.mkdir(parents=True, exist_ok=True)
    for index in range(n_pictures):
        write_picture(root / "stimuli" / f"picture_{index:02d}.png", index)
    if as_npz:
        np.savez_compressed(root / "recording.npz", **arrays)
        return root / "recording.npz"
    for name, array in arrays.items():
        np.save(root / f"{name}.npy", array)
    return root
