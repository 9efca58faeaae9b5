"""What a probe got right, image by image: enough to score any resample of the test images.

A single-label probe leaves one hit or miss per test image. A multi-label one leaves how its scores rank the
images for every label, which is all that AUROC depends on.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

from harness.storage import InputError


@dataclass(frozen=True)
class Hits:
    """Which test images were classified right.

    Attributes
    ----------
    right : bool array [n_images]
    """

    right: Bool[np.ndarray, " n_images"]

    def __len__(self) -> int:
        return len(self.right)

    def encode(self) -> dict[str, Any]:
        """Content for a JSON file: the number of images, and a bit per image in hexadecimal digits."""
        return {"n": len(self.right), "hits": np.packbits(self.right).tobytes().hex()}


@dataclass(frozen=True)
class Ranks:
    """How scores rank the test images for every label.

    Attributes
    ----------
    rank : int array [n_images, n_labels]
        Dense ranks from 1; equal scores have equal ranks.
    present : bool array [n_images, n_labels]
        Whether the image has the label.
    """

    rank: Int[np.ndarray, "n_images n_labels"]
    present: Bool[np.ndarray, "n_images n_labels"]

    def __len__(self) -> int:
        return len(self.rank)

    @classmethod
    def of_scores(
        cls, scores: Float[np.ndarray, "n_images n_labels"], labels: Int[np.ndarray, "n_images n_labels"]
    ) -> Ranks:
        """Rank any numbers that order the images."""
        return cls(rankdata(scores, method="dense", axis=0).astype(np.int64), labels == 1)

    def encode(self) -> dict[str, Any]:
        """Content for a JSON file: ranks as little-endian uint32 and labels as bits, in base 64."""
        return {
            "n": len(self.rank),
            "ranks": base64.b64encode(self.rank.astype("<u4").tobytes()).decode(),
            "labels": base64.b64encode(np.packbits(self.present).tobytes()).decode(),
        }


PerImage = Hits | Ranks


def decode_images(content: Mapping[str, Any]) -> PerImage:
    """Read what `Hits.encode` or `Ranks.encode` gave.

    Raises
    ------
    InputError
        If the numbers of images and values differ, or the content is not such a record.
    """
    try:
        n_images = int(content["n"])
        if "hits" in content:
            bits = np.unpackbits(np.frombuffer(bytes.fromhex(content["hits"]), np.uint8), count=n_images)
            return Hits(bits.astype(bool))
        rank = np.frombuffer(base64.b64decode(content["ranks"]), "<u4").astype(np.int64)
        rank = rank.reshape(n_images, -1)
        packed = np.frombuffer(base64.b64decode(content["labels"]), np.uint8)
        return Ranks(rank, np.unpackbits(packed, count=rank.size).reshape(rank.shape).astype(bool))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"test images of a probe: found a broken record ({error})") from None
