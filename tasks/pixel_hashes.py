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
    REMARKS,
    InputError,
    cache_folder,
    content_hash,
    decode_image,
    hash_pixels,
    name_warnings,
    read_json,
    report_remarks,
    write_json,
)
from tasks.image_column import read_stored

log = logging.getLogger(__name__)

AT_ONCE = 8  # images


def hash_images(data: datasets.Dataset, place: str) -> list[str]:
    """Hash the decoded images of the column `image`, in order.

    A warning counts transparent images and others that are not shown as stored.

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
    known, remarkable = _recall(memory)
    stored = data.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
    before = len(known)

    def look(row: int) -> tuple[str, str, list[str]]:
        item = stored[row]["image"]
        name = _name(item, place, row)
        content = read_stored(item, name)
        key = hashlib.sha256(content).hexdigest()
        if key not in known:
            remarks: set[str] = set()
            pixels = hash_pixels(decode_image(content, name, remarks))
            if remarks:
                remarkable[key] = sorted(remarks)
            known[key] = pixels
        return known[key], name, remarkable.get(key, [])

    with name_warnings(), ThreadPoolExecutor(AT_ONCE) as pool:
        rows = tqdm(
            pool.map(look, range(len(stored))), f"reading {place}", len(stored), disable=None, leave=False
        )
        found = list(rows)
    if len(known) > before:
        try:
            write_json(memory, {"place": place, "pixels": known, "remarks": remarkable})
        except OSError as error:
            log.warning("warning: %s: cannot be written (%s); hashes not cached", memory, error.strerror)
    report_remarks(place, ((name, remarks) for _, name, remarks in found))
    return [pixels for pixels, _, _ in found]


def _name(item: Any, place: str, row: int) -> str:
    if item is None:
        raise InputError(f"{place}: image {row} is missing")
    return str(item["path"]) if item["bytes"] is None else f"{place}, image {item['path'] or row}"


def _recall(memory: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Read the cached hashes and remarks; a missing or broken cache is empty."""
    try:
        content = read_json(memory)
        pixels = {str(key): str(value) for key, value in content["pixels"].items()}
        remarks = {
            str(key): [kind for kind in kinds if kind in REMARKS] for key, kinds in content["remarks"].items()
        }
    except (InputError, AttributeError, KeyError, TypeError):
        return {}, {}
    return pixels, remarks
