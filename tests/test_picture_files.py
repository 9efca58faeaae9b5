from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.brains.picture_files import PictureFiles
from harness.errors import InputError


def test_pictures_are_decoded_when_asked_for_as_rgb(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(np.stack([grey] * 3, axis=2) + np.uint8(1)).save(tmp_path / "b.png")
    pictures = PictureFiles([tmp_path / "b.png", tmp_path / "a.png", tmp_path / "b.png"])
    assert len(pictures) == 3
    np.testing.assert_array_equal(np.asarray(pictures[1]), np.stack([grey] * 3, axis=2))
    assert [picture.tobytes() for picture in pictures[::2]] == [pictures[0].tobytes()] * 2
    assert pictures.fingerprint != PictureFiles([tmp_path / "a.png", tmp_path / "b.png"]).fingerprint
    before = pictures.fingerprint
    Image.fromarray(grey + np.uint8(1)).save(tmp_path / "a.png")
    assert pictures.fingerprint != before


def test_missing_and_broken_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.png: no such picture"):
        PictureFiles([tmp_path / "a.png"])
    (tmp_path / "a.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(InputError, match=r"a\.png: not a readable picture"):
        PictureFiles([tmp_path / "a.png"])[0]
