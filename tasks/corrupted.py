"""Corrupted copies of a task's images, seeded by each image's content and cached by that of all."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from harness.storage import (
    content_hash,
    hash_pixels,
    make_once,
    read_arrays,
    write_arrays,
)
from tasks.corruptions import corrupt

VERSION = 1
"""Part of the key of the cache: raise it with every change to the pixels of corrupted images."""


def corrupt_images(
    images: Sequence[Image.Image], name: str, severities: Sequence[int]
) -> dict[int, list[Image.Image]]:
    """Corrupt images at several severities, or take them from the cache folder.

    Noise depends on the image's pixels and the corruption alone: the same image is corrupted alike in every
    task, run and process, and with the same random numbers at every severity.

    Parameters
    ----------
    images : sequence of PIL images
        Upright, RGB.
    name : str
        One of `harness.config.CORRUPTIONS`.
    severities : sequence of int
        Of 1 to 5.

    Returns
    -------
    dict of int to list of PIL images
        By severity.
    """
    hashes = [hash_pixels(image) for image in images]
    key = {"images": hashes, "corruption": name, "severities": list(severities), "version": VERSION}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "corrupted"

        def make() -> None:
            folder.mkdir()
            found = {
                _name(severity, row): np.asarray(corrupt(image, name, severity, _seeded(own, name)))
                for row, (image, own) in enumerate(zip(images, hashes, strict=True))
                for severity in severities
            }
            write_arrays(folder / "images.safetensors", found, "")

        make_once("corruptions", key, folder, make)
        arrays = read_arrays(folder / "images.safetensors", "")
    return {
        severity: [Image.fromarray(arrays[_name(severity, row)]) for row in range(len(images))]
        for severity in severities
    }


def _seeded(hashed: str, name: str) -> np.random.Generator:
    return np.random.default_rng(int(content_hash(hashed, name)[:16], 16))


def _name(severity: int, row: int) -> str:
    return f"{severity}-{row:06d}"
