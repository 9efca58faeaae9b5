"""Image files: listing, decoding, hashing, and merging of equal images."""

from __future__ import annotations

import logging
import os
import re
import threading
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import overload

import numpy as np
from jaxtyping import Shaped
from PIL import ExifTags, Image, ImageOps

from harness.storage.errors import InputError
from harness.storage.file_hashes import hash_files
from harness.storage.files import content_hash
from harness.storage.paths import refuse_endless

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp"),
    *(".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".tga", ".pcx", ".ico", ".qoi", ".sgi"),
)
"""Pictures that Pillow opens; other files are left out and counted."""
EXPECTED_FILES = "expected files ending in .png, .jpg or another suffix of pictures"
EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""Pillow's modes of at most 8 bits a channel; others would be clipped."""
BACKGROUND = (255, 255, 255)
"""White lies behind transparent pixels, as on most pages."""
DECODER_VERSION = 2
"""Part of every cache key that depends on decoded pixels. 2: transparent pictures are shown on white."""
REMARKS = {
    "transparent": "are transparent in part and shown on white",
    "blank": "are of one colour on white: transparency alone held the picture",
    "deep": "have 16 bits a channel and are read with 8",
    "frames": "hold several pictures, of which the first is shown",
}
"""What is remarkable about a decoded image, and how it reads after "3 of 9 images"."""

_place = threading.local()


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


def decode_image(
    source: Path | bytes, name: str | None = None, remarks: set[str] | None = None
) -> Image.Image:
    """Decode an image file by the rule of `as_rgb`; of an animation or several pages, the first picture.

    The only decoder: stimuli, task images and images given by the user all pass through it. Raise
    `DECODER_VERSION` with every change to its pixels.

    Parameters
    ----------
    source : Path or bytes
        A file, or its content.
    name : str, optional
        Names the image in errors; by default the path.
    remarks : set of str, optional
        Gets what is remarkable about the image, of `REMARKS`.

    Raises
    ------
    InputError
        If the image is missing, broken or has more than 8 bits a channel.
    """
    name = name or (str(source) if isinstance(source, Path) else "image")
    if isinstance(source, Path):
        refuse_endless(source)
    _place.name = name
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            if remarks is not None:
                remarks |= _look_at_file(image)
            shown = as_rgb(image, name, remarks)
            return shown.copy() if shown is image else shown
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except Exception as error:  # Pillow's decoders raise anything on a broken file
        # Pillow names the buffer, which tells the user nothing
        reason = "" if "BytesIO" in str(error) else f" ({' '.join(str(error).split())})"
        raise InputError(f"{name}: not a readable image{reason}") from None
    finally:
        _place.name = None


def as_rgb(image: Image.Image, name: str = "image", remarks: set[str] | None = None) -> Image.Image:
    """Return an image as RGB of 8 bits, upright by its EXIF orientation, transparent pixels on white.

    The rule for images of files and in memory alike. What is already so is returned as it is.

    Parameters
    ----------
    image : PIL image
    name : str
        Names the image in errors.
    remarks : set of str, optional
        Gets ``"transparent"`` and ``"blank"`` where they hold (`REMARKS`).

    Raises
    ------
    InputError
        If the image has more than 8 bits a channel.
    """
    if image.mode not in EIGHT_BIT_MODES:
        raise InputError(
            f"{name}: found an image of mode {image.mode}, expected 8 bits a channel "
            f"({', '.join(EIGHT_BIT_MODES)})"
        )
    if image.mode == "RGB" and "transparency" not in image.info and not _turned(image):
        image.load()
        return image
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        # a palette can also have the transparency of its colours, of which Pillow warns on the way to RGB
        layer = upright.convert("RGBA")
        if layer.getchannel("A").getextrema() != (255, 255):
            canvas = Image.new("RGBA", layer.size, (*BACKGROUND, 255))
            shown = Image.alpha_composite(canvas, layer).convert("RGB")
            if remarks is not None:
                remarks.add("transparent")
                if shown.getcolors(maxcolors=1) is not None:
                    remarks.add("blank")
            return shown
        upright = layer
    return upright.convert("RGB")


def _turned(image: Image.Image) -> bool:
    return image.getexif().get(ExifTags.Base.Orientation, 1) != 1


def _look_at_file(image: Image.Image) -> set[str]:
    """Remarks on an open file, before its pixels are read."""
    found = set()
    if any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        found.add("deep")
    # a second picture in a JPEG is a preview or a depth map
    if image.format != "MPO" and getattr(image, "is_animated", False):
        found.add("frames")
    return found


@contextmanager
def name_warnings() -> Iterator[None]:
    """Let warnings of Pillow name the file that is being decoded, in all threads started within."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")

        def show(message: Warning | str, *_: object, **__: object) -> None:
            name = getattr(_place, "name", None)
            log.warning("warning: %s%s", f"{name}: " if name else "", " ".join(str(message).split()))

        warnings.showwarning = show
        yield


def report_remarks(place: object, remarks: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Log what is remarkable about the images of a place, a line and a number for each kind of `REMARKS`.

    Parameters
    ----------
    place : object
        Where the images come from.
    remarks : iterable of (str, iterable of str)
        Name and remarks of every image.
    """
    found: dict[str, list[str]] = {kind: [] for kind in REMARKS}
    n_images = 0
    for name, kinds in remarks:
        n_images += 1
        for kind in kinds:
            found[kind].append(name)
    for kind, names in found.items():
        if names:
            log.warning(
                "warning: %s: %d of %d images %s, such as %s",
                *(place, len(names), n_images, REMARKS[kind], names[0]),
            )


def hash_pixels(image: Image.Image) -> str:
    """Hash the pixels of a decoded image: equal images have equal hashes, however they are stored."""
    return content_hash(np.asarray(image))


def list_images(folder: Path) -> list[str]:
    """List the names of the images in a folder, sorted.

    Hidden files are ignored; other files, and images in subfolders, are left out and counted in a warning.

    Raises
    ------
    InputError
        If the folder does not exist or holds no image.
    """
    names, left_out = find_images(folder)
    here = [name for name in names if "/" not in name]
    left_out["in subfolders"] = len(names) - len(here)
    report_left_out(folder, left_out)
    if not here:
        raise no_image(folder, left_out)
    return sorted(here)


def list_images_below(folder: Path) -> list[str]:
    """List the names of the images in a folder and its subfolders (``cat/2.png``), in natural order.

    Natural order compares numbers by value: ``2.png`` comes before ``10.png``. Linked folders are followed.
    Hidden files and folders are ignored; other files are left out and counted in a warning.

    Raises
    ------
    InputError
        If the folder does not exist or holds no image.
    """
    names, left_out = find_images(folder)
    report_left_out(folder, left_out)
    if not names:
        raise no_image(folder, left_out)
    # ties such as 1.png and 01.png: by character
    return sorted(names, key=lambda name: ([by_number(part) for part in name.split("/")], name))


def find_images(folder: Path) -> tuple[list[str], Counter[str]]:
    """Find all images in a folder and its subfolders, linked ones included, and count the other files.

    Hidden files and folders are ignored.

    Returns
    -------
    list of str
        Names relative to the folder (``cat/2.png``), sorted folder by folder.
    Counter
        Files that are not taken as images, by suffix; folders linked into themselves.

    Raises
    ------
    InputError
        If the folder does not exist, or a folder in it cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected a folder of images")
    names: list[str] = []
    left_out: Counter[str] = Counter()

    def walk(place: Path, prefix: str, above: tuple[str, ...]) -> None:
        above = (*above, os.path.realpath(place))
        try:
            entries = [entry for entry in os.scandir(place) if not entry.name.startswith(".")]
        except OSError as error:
            raise InputError(f"{place}: cannot be read ({error.strerror})") from None
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.is_dir():
                if os.path.realpath(entry.path) in above:
                    left_out["folders linked into themselves"] += 1
                else:
                    walk(place / entry.name, f"{prefix}{entry.name}/", above)
            elif suffix in IMAGE_SUFFIXES:
                names.append(prefix + entry.name)
            else:
                left_out[suffix or "without suffix"] += 1

    walk(folder, "", ())
    return sorted(names, key=lambda name: name.split("/")), left_out


def report_left_out(folder: Path, left_out: Counter[str]) -> None:
    """Log how many files of a folder are not taken as images (`find_images`), if any."""
    total = left_out.total()
    if total:
        log.warning("warning: %s: %d files are left out: %s", folder, total, _list_kinds(left_out))


def no_image(folder: Path, left_out: Counter[str]) -> InputError:
    """Build the error for a folder without images."""
    others = f" among {left_out.total()} files ({_list_kinds(left_out)})" if left_out.total() else ""
    return InputError(f"{folder}: found no image{others}, {EXPECTED_FILES}")


def _list_kinds(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common() if count)


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
    """Hash image files by name; each is decoded before its first hash, so a broken one is found.

    The hash is that of the content. For a transparent image it also names the background, because its pixels
    depend on that. A warning counts transparent images and other `REMARKS`.
    """
    with name_warnings():
        found = hash_files(folder, names, check_image, f"reading {folder.name}")
    parts = {name: value.partition("+") for name, value in found.items()}
    remarks = {name: kinds.split(",") if kinds else [] for name, (_, _, kinds) in parts.items()}
    report_remarks(folder, remarks.items())
    return {
        name: f"{parts[name][0]}+white" if "transparent" in remarks[name] else parts[name][0]
        for name in found
    }


def check_image(path: Path) -> str:
    """Decode an image file and return its `REMARKS`, joined by commas."""
    remarks: set[str] = set()
    decode_image(path, remarks=remarks)
    return ",".join(sorted(remarks))


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
    # scipy takes a second to import
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

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
