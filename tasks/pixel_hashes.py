"""Hashes of decoded images, which identify equal images across file formats.

Decoding takes milliseconds per image, so the hash of pixels is cached by the hash of the stored bytes, and
the next start only reads bytes. Only images in use are read. Each is decoded once, so a broken image is
reported before hours of training.
"""

from __future__ import annotations

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
from tqdm import tqdm

from harness.storage import (
    DECODER_VERSION,
    InputError,
    cache_folder,
    content_hash,
    decode_image,
    hash_pixels,
    read_json,
    write_json,
)
from tasks.image_column import read_stored

log = logging.getLogger(__name__)

AT_ONCE = 8  # images


def hash_images(data: datasets.Dataset, place: str) -> list[str]:
    """Hash the decoded images of the column `image`, in order.

    Parameters
    ----------
    data : datasets.Dataset
        Column `image`.
    place : str
        Where the images come from: names them in errors and keys the cache of hashes.

    Raises
    ------
    InputError
        If an image is missing, broken or has more than 8 bits a channel; it names the file or row.
    """
    memory = cache_folder() / "pixels" / f"{content_hash(place, DECODER_VERSION)[:20]}.json"
    known = _recall(memory)
    stored = data.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
    before = len(known)

    def look(row: int) -> str:
        item = stored[row]["image"]
        name = _name(item, place, row)
        content = read_stored(item, name)
        key = hashlib.sha256(content).hexdigest()
        if key not in known:
            known[key] = hash_pixels(decode_image(content, name))
        return known[key]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        rows = tqdm(
            pool.map(look, range(len(stored))), f"reading {place}", len(stored), disable=None, leave=False
        )
        found = list(rows)
    if len(known) > before:
        try:
            write_json(memory, {"place": place, "pixels": known})
        except OSError as error:
            log.warning("warning: %s: cannot be written (%s); hashes not cached", memory, error.strerror)
    return found


def _name(item: Any, place: str, row: int) -> str:
    if item is None:
        raise InputError(f"{place}: image {row} is missing")
    return str(item["path"]) if item["bytes"] is None else f"{place}, image {item['path'] or row}"


def _recall(memory: Path) -> dict[str, str]:
    """Read the cached hashes; a missing or broken cache is empty."""
    try:
        pixels = read_json(memory)["pixels"]
        return {str(key): str(value) for key, value in pixels.items()}
    except (InputError, AttributeError, KeyError, TypeError):
        return {}
