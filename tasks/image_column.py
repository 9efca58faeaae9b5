"""The column `image` of a task: images of any source, decoded on demand.

`datasets` has a decoder of its own, whose errors do not name the image; `TaskImage` replaces it by ours.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from datasets.features.features import register_feature
from PIL import Image

from harness.storage import (
    InputError,
    decode_image,
    refuse_endless,
)


@dataclass
class TaskImage(datasets.Image):
    """An image column that `harness.storage.decode_image` decodes: RGB, upright, on white."""

    _type: str = field(default="TaskImage", init=False, repr=False)

    def decode_example(self, value: Any, token_per_repo_id: Any = None) -> Image.Image:
        """Decode a stored image; `InputError` names one that cannot be decoded."""
        del token_per_repo_id  # images of the hub are local here
        if not self.decode:
            raise RuntimeError("this column is not decoded")
        name = str(value["path"] or "image")
        return decode_image(read_stored(value, name), name)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # datasets calls it experimental
    register_feature(TaskImage, "TaskImage")


def read_stored(item: dict[str, Any], name: str) -> bytes:
    """Read the content of an image file, from the data set or from disk; errors use `name`."""
    if item["bytes"] is not None:
        return item["bytes"]
    refuse_endless(Path(item["path"]))
    try:
        return Path(item["path"]).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from None
