"""Images of the Natural Scenes Dataset, read one at a time from ``nsd_stimuli.hdf5`` (39 GB)."""

from __future__ import annotations

from pathlib import Path
from typing import overload

import numpy as np
from jaxtyping import Int
from PIL import Image

from harness.brains.brain import StoredPictures
from harness.brains.hdf5_files import open_dataset
from harness.brains.neuroimages import fingerprint_file
from harness.storage import (
    InputError,
    content_hash,
)

DATASET = "imgBrick"


class BrickPictures(StoredPictures):
    """Rows of the data set ``/imgBrick``, [n_pictures, height, width, 3] bytes, read on demand.

    The file is opened for each image, so any process or thread can use it.

    Parameters
    ----------
    path : Path
    rows : int array [n_images], 0-based

    Raises
    ------
    InputError
        If the file is missing or broken, or holds no such data set or too few images.
    """

    def __init__(self, path: Path, rows: Int[np.ndarray, " n_images"]) -> None:
        with open_dataset(path, DATASET, np.uint8) as brick:
            shape = brick.shape
        if len(shape) != 4 or shape[3] != 3:
            raise InputError(f"{path}: found /{DATASET} {shape}, expected (n_pictures, height, width, 3)")
        if len(rows) and rows.max() >= shape[0]:
            raise InputError(
                f"{path}: found {shape[0]} images, expected {rows.max() + 1} or more, as the design shows"
            )
        self.path, self.rows = path, rows

    @property
    def fingerprint(self) -> str:
        """Hash of the file and the rows."""
        return content_hash(fingerprint_file(self.path), self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> BrickPictures: ...
    def __getitem__(self, index: int | slice) -> Image.Image | BrickPictures:
        if isinstance(index, slice):
            return BrickPictures(self.path, self.rows[index])
        row = int(self.rows[index])
        with open_dataset(self.path, DATASET, np.uint8) as brick:
            return Image.fromarray(brick[row])
