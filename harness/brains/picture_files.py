"""Pictures that are one image file each, decoded when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

from PIL import Image

from harness.brains.brain import StoredPictures
from harness.brains.neuroimages import fingerprint_file, reading
from harness.errors import InputError
from harness.files import content_hash


class PictureFiles(StoredPictures):
    """Image files of any format that Pillow reads, as RGB.

    Parameters
    ----------
    paths : sequence of Path
        In the order of rows; a file may come more than once.

    Raises
    ------
    InputError
        If a file is missing; when a picture is asked for, also if it is broken.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        for path in dict.fromkeys(paths):
            if not path.is_file():
                raise InputError(f"{path}: no such picture")
        self.paths = tuple(paths)

    @property
    def fingerprint(self) -> str:
        """Hash of the files' contents, in order."""
        known = {path: fingerprint_file(path) for path in dict.fromkeys(self.paths)}
        return content_hash([known[path] for path in self.paths])

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> PictureFiles: ...
    def __getitem__(self, index: int | slice) -> Image.Image | PictureFiles:
        if isinstance(index, slice):
            return PictureFiles(self.paths[index])
        path = self.paths[index]
        with reading(path, "picture"), Image.open(path) as image:
            return image.convert("RGB")
