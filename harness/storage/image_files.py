"""Image files: listing, decoding, hashing, and merging of equal images."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import overload

import numpy as np
from jaxtyping import Shaped
from PIL import Image, ImageOps
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from harness.storage.errors import InputError
from harness.storage.file_hashes import hash_files
from harness.storage.files import content_hash

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
EIGHT_BIT_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
"""Pillow's modes of at most 8 bits a channel; others would be clipped."""
DECODER_VERSION = 1
"""Part of every cache key that depends on decoded pixels."""


class ImageFiles(Sequence[Image.Image]):
    """Images in files, decoded as RGB at every access."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> ImageFiles: ...
    def __getitem__(self, index: int | slice) -> Image.Image | ImageFiles:
        if isinstance(index, slice):
            return ImageFiles(self.paths[index])
        return decode_image(self.paths[index])


def decode_image(source: Path | bytes, name: str | None = None) -> Image.Image:
    """Decode an image file as RGB, upright by its EXIF orientation; transparency is dropped.

    The only decoder: stimuli, task images and images given by the user all pass through it. Raise
    `DECODER_VERSION` with every change to its pixels.

    Parameters
    ----------
    source : Path or bytes
        A file, or its content.
    name : str, optional
        Names the image in errors; by default the path.

    Raises
    ------
    InputError
        If the image is missing, broken or has more than 8 bits a channel.
    """
    name = name or (str(source) if isinstance(source, Path) else "image")
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.mode in EIGHT_BIT_MODES:
                upright = ImageOps.exif_transpose(image)
                upright.info.pop("transparency", None)  # or Pillow warns that it drops it
                return upright.convert("RGB")
            found = image.mode
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except Exception as error:  # Pillow's decoders raise anything on a broken file
        # Pillow names the buffer, which tells the user nothing
        reason = "" if "BytesIO" in str(error) else f" ({' '.join(str(error).split())})"
        raise InputError(f"{name}: not a readable image{reason}") from None
    raise InputError(
        f"{name}: found an image of mode {found}, expected 8 bits a channel ({', '.join(EIGHT_BIT_MODES)})"
    )


def hash_pixels(image: Image.Image) -> str:
    """Hash the pixels of a decoded image: equal images have equal hashes, however they are stored."""
    return content_hash(np.asarray(image))


def list_images(folder: Path) -> list[str]:
    """List the names of the images in a folder, sorted; hidden and other files are ignored.

    Raises
    ------
    InputError
        If the folder does not exist or holds no image.
    """
    return sorted(_find_images(folder, folder.glob("*")))


def list_images_below(folder: Path) -> list[str]:
    """List the names of the images in a folder and its subfolders (``cat/2.png``), in natural order.

    Natural order compares numbers by value: ``2.png`` comes before ``10.png``. Hidden files and folders and
    other files are ignored.

    Raises
    ------
    InputError
        If the folder does not exist or holds no image.
    """
    files = (path for path in folder.rglob("*") if path.is_file())
    # ties such as 1.png and 01.png: by character
    return sorted(
        _find_images(folder, files), key=lambda name: ([by_number(part) for part in name.split("/")], name)
    )


def _find_images(folder: Path, paths: Iterable[Path]) -> list[str]:
    """Filter `paths` for images; names relative to the folder, order kept."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected a folder of images")
    found = [path.relative_to(folder) for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    names = [path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)]
    if not names:
        raise InputError(f"{folder}: found no image, expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return names


def by_number(name: str) -> list[tuple[int, str]]:
    """Sort key of natural order, which compares numbers in names by value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def check_image_order(folder: Path, names: Sequence[str]) -> None:
    """Refuse names of ambiguous order: by character, ``10.png`` comes before ``9.png``."""
    for name, counted in zip(names, sorted(names, key=by_number), strict=True):
        if name != counted:
            raise InputError(
                f"{folder}: order is ambiguous: {name} or {counted} comes first, by name or by number; "
                "expected numbers of equal length (0001.png), or an array `shown`"
            )


def hash_images(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Hash image files by name; each is decoded before its first hash, so a broken one is found."""
    return hash_files(folder, names, decode_image, f"reading {folder.name}")


def merge_equal_images(
    ids: Shaped[np.ndarray, " n_images"], hashes: Sequence[str]
) -> Shaped[np.ndarray, " n_images"]:
    """Merge ids so that stimuli of equal id or equal content have one id.

    Parameters
    ----------
    ids : int or str array [n_images]
    hashes : sequence of str [n_images]
        Content hash of each stimulus.

    Returns
    -------
    int or str array [n_images]
        Per row, the id of the first row that shows the same image.
    """
    by_id = np.unique(ids, return_inverse=True)[1]
    by_content = np.unique(np.array(hashes), return_inverse=True)[1] + len(ids)
    links = coo_array((np.ones(len(ids)), (by_id, by_content)), (2 * len(ids),) * 2)
    group = connected_components(links, directed=False)[1][by_id]
    _, first, same = np.unique(group, return_index=True, return_inverse=True)
    joined = ids[first[same]]
    if (joined != ids).any():
        log.warning(
            "warning: %d stimuli are the same image as one with another id, such as %s and %s; they count as "
            "one image and stay on one side of a split",
            (joined != ids).sum(),
            joined[joined != ids][0],
            ids[joined != ids][0],
        )
    return joined
