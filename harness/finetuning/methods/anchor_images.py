"""Unlabelled images that anchor a network at a brain: none that tracking or a test uses."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from PIL import Image

from harness.config import BrainAnchorConfig
from harness.storage import (
    ImageFiles,
    InputError,
    content_hash,
    hash_images,
    hash_pixels,
    list_images_below,
    user_path,
)
from tasks import (
    render_scenes,
    sample_scenes,
)

log = logging.getLogger(__name__)

WORLD = 2**33
"""Plus the run's seed: above the worlds of all tasks, stimuli and pretraining, whose seeds are below 2³³."""


def choose_images(method: BrainAnchorConfig, seed: int, seen: Collection[str]) -> list[Image.Image]:
    """Choose the unlabelled images: of a folder, or fresh scenes of the shapes world.

    Images with the pixels of a stimulus or of a test image are left out, with a warning that counts them; so
    are second copies.

    Parameters
    ----------
    method : BrainAnchorConfig
    seed : int
        Of the scenes.
    seen : collection of str
        Hashes of the pixels (`hash_pixels`) of stimuli and test images.

    Raises
    ------
    InputError
        If the folder is missing, an image is broken, or too few images are left.
    """
    if method.images is None:
        found: Sequence[Image.Image] = [
            Image.fromarray(scene)
            for scene in render_scenes(sample_scenes(WORLD + seed, range(method.n_images)))
        ]
        place = "scenes"
    else:
        folder = user_path(method.images)
        names = list_images_below(folder)
        if len(names) < method.n_images:
            raise InputError(
                f"method.n_images: found {method.n_images}, but {len(names)} images in {folder}; "
                f"expected 1 to {len(names)}"
            )
        chosen = [names[number * len(names) // method.n_images] for number in range(method.n_images)]
        found, place = ImageFiles([folder / name for name in chosen]), str(folder)
    kept: dict[str, Image.Image] = {}
    n_seen = 0
    for image in found:
        pixels = hash_pixels(image)
        if pixels in seen:
            n_seen += 1
        else:
            kept.setdefault(pixels, image)
    if n_seen:
        log.warning(
            "warning: method.images: %d of %d images of %s are stimuli of the brain or test images; left out",
            n_seen,
            len(found),
            place,
        )
    if not kept:
        raise InputError(
            f"method.images: found none in {place} that is no stimulus of the brain and no test image; "
            "expected other images"
        )
    return list(kept.values())


def fingerprint(method: BrainAnchorConfig) -> dict[str, str]:
    """Hash the files of the folder of images, if there is one."""
    if method.images is None:
        return {}
    folder = user_path(method.images)
    return {"method images": content_hash(hash_images(folder, list_images_below(folder)))}
