"""Hashes of decoded images, so that equal images are found whatever they are stored as.

Decoding takes milliseconds an image, so a hash of pixels is kept beside the hash of the stored bytes it was
decoded from: the next start reads bytes only. Only the images that are used are looked at. Every image is
decoded once, so a broken one is named before hours of training.
"""

from __future__ import annotations

import hashlib
import io
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from harness.storage import (
    MODES,
    InputError,
    cache_folder,
    content_hash,
    read_json,
    write_json,
)

log = logging.getLogger(__name__)

AT_ONCE = 8  # images


def hash_pixels(data: datasets.Dataset, place: str) -> list[str]:
    """Hashes of the decoded images of the column `image`, in order.

    Parameters
    ----------
    data : datasets.Dataset
        Column `image`.
    place : str
        Where the images come from: named in errors, and what is remembered is kept by it.

    Raises
    ------
    InputError
        Of an image that is missing, broken or of more than 8 bits a channel, with its file or row.
    """
    memory = cache_folder() / "pixels" / f"{content_hash(place)[:20]}.json"
    known = _recall(memory)
    stored = data.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
    before = len(known)

    def look(row: int) -> str:
        item = stored[row]["image"]
        name = _name(item, place, row)
        content = _read(item, name)
        key = hashlib.sha256(content).hexdigest()
        if key not in known:
            known[key] = content_hash(np.asarray(decode(content, name)))
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
            log.warning("warning: %s: cannot be written (%s); going on without", memory, error.strerror)
    return found


def decode(content: bytes, name: str) -> Image.Image:
    """Decode an image as RGB, upright; `InputError` names one that is broken or of more than 8 bits."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode in MODES:
                return ImageOps.exif_transpose(image).convert("RGB")
            found = image.mode
    except Exception as error:  # of a broken file, Pillow's decoders raise anything
        # Pillow names the buffer it read, which says nothing
        reason = "" if "BytesIO" in str(error) else f" ({' '.join(str(error).split())})"
        raise InputError(f"{name}: not a readable image{reason}") from None
    raise InputError(
        f"{name}: found an image of mode {found}, accepted: 8 bits a channel ({', '.join(MODES)})"
    )


def _name(item: Any, place: str, row: int) -> str:
    if item is None:
        raise InputError(f"{place}: image {row} is missing")
    return str(item["path"]) if item["bytes"] is None else f"{place}, image {item['path'] or row}"


def _read(item: dict[str, Any], name: str) -> bytes:
    if item["bytes"] is not None:
        return item["bytes"]
    try:
        return Path(item["path"]).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from None


def _recall(memory: Path) -> dict[str, str]:
    """What was remembered; a memory that is missing or broken is empty."""
    try:
        pixels = read_json(memory)["pixels"]
        return {str(key): str(value) for key, value in pixels.items()}
    except (InputError, AttributeError, KeyError, TypeError):
        return {}
