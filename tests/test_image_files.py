"""Image files: listing, order, decoding, and merging of equal images."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from made_recordings import write_picture
from PIL import ExifTags, Image

from harness.storage.errors import InputError
from harness.storage.image_files import (
    ImageFiles,
    check_image_order,
    decode_image,
    hash_images,
    hash_pixels,
    list_images,
    list_images_below,
    merge_equal_images,
)


def test_images_are_listed_by_name_and_nothing_else_is(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", ".hidden.png", "c.webp"):
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").touch()
    assert list_images(tmp_path) == ["a.JPG", "b.png", "c.webp"]
    with pytest.raises(InputError, match="none: no such folder"):
        list_images(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: found no image, expected .*\.png"):
        list_images(tmp_path / "empty")


def test_images_of_subfolders_are_in_natural_order(tmp_path: Path) -> None:
    for name in ("b/1.png", "a10/1.png", "a9/10.png", "a9/2.JPG", "a9/deep/1.png", "01.png", "1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in (".hidden/1.png", "a9/.2.png", "a9/notes.txt", "folder.png/note"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_images_below(tmp_path) == [
        *("01.png", "1.png", "a9/2.JPG", "a9/10.png", "a9/deep/1.png", "a10/1.png", "b/1.png")
    ]
    with pytest.raises(InputError, match="none: no such folder"):
        list_images_below(tmp_path / "none")
    with pytest.raises(InputError, match=r"folder\.png: found no image"):
        list_images_below(tmp_path / "folder.png")


def test_an_order_that_is_not_certain_is_refused(tmp_path: Path) -> None:
    check_image_order(tmp_path, ["a1.png", "a2.png", "a9.png"])
    check_image_order(tmp_path, ["a01.png", "a02.png", "a10.png", "b1.png"])
    check_image_order(tmp_path, ["cat.png", "dog.png"])
    with pytest.raises(InputError, match=r"order is ambiguous: a10\.png or a2\.png"):
        check_image_order(tmp_path, sorted(["a1.png", "a2.png", "a10.png"]))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK"])
def test_images_are_decoded_as_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "tif" if mode == "CMYK" else "png"
    image = Image.fromarray(np.full((4, 6, 3), (200, 10, 30), dtype=np.uint8)).convert(mode)
    image.save(tmp_path / f"image.{suffix}")
    found = decode_image(tmp_path / f"image.{suffix}")
    assert (found.mode, found.size) == ("RGB", (6, 4))
    assert found.tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright_in_files_and_in_memory(tmp_path: Path, orientation: int) -> None:
    pixels = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    # how the stored image is displayed; 6 is a quarter turn clockwise
    seen = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).transpose(1, 0, 2),
        8: np.rot90(pixels),
    }[orientation]
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    np.testing.assert_array_equal(np.asarray(decode_image(path)), seen)
    np.testing.assert_array_equal(np.asarray(decode_image(path.read_bytes(), "turned")), seen)
    np.testing.assert_array_equal(np.asarray(ImageFiles([path])[0]), seen)


def test_transparency_is_dropped_whatever_it_is_stored_as(tmp_path: Path) -> None:
    pixels = np.full((4, 6, 4), (200, 10, 30, 0), dtype=np.uint8)
    whole = Image.fromarray(pixels)
    whole.save(tmp_path / "rgba.png")
    whole.convert("LA").save(tmp_path / "la.png")
    whole.convert("RGB").quantize(4).save(tmp_path / "p.png", transparency=bytes(4))
    whole.convert("RGB").save(tmp_path / "rgb.png", transparency=(200, 10, 30))
    for name in ("rgba", "p", "rgb"):
        found = np.asarray(decode_image(tmp_path / f"{name}.png"))
        np.testing.assert_array_equal(found, pixels[..., :3])
    grey = np.asarray(whole.convert("L"))[..., None].repeat(3, axis=-1)
    np.testing.assert_array_equal(np.asarray(decode_image(tmp_path / "la.png")), grey)


def test_a_broken_image_in_memory_is_named_and_not_its_buffer() -> None:
    with pytest.raises(InputError, match=r"^photos, image 3: not a readable image$"):
        decode_image(b"no image", "photos, image 3")


def test_pixels_are_hashed_whatever_they_are_stored_as(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3))
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "a.bmp")
    one, same = (hash_pixels(decode_image(tmp_path / name)) for name in ("a.png", "a.bmp"))
    assert one == same != hash_pixels(image.transpose(Image.Transpose.ROTATE_180))


def test_images_of_sixteen_bits_are_refused_as_they_would_be_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 60_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match=r"deep\.png: found an image of mode I;16, expected 8 bits"):
        decode_image(tmp_path / "deep.png")


def test_broken_images_are_found_when_they_are_first_hashed(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", 0)
    write_picture(tmp_path / "b.png", 1)
    hashes = hash_images(tmp_path, ["a.png", "b.png"])
    assert len(set(hashes.values())) == 2
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:100])
    with pytest.raises(InputError, match=r"b\.png: not a readable image"):
        hash_images(tmp_path, ["a.png", "b.png"])
    (tmp_path / "b.png").write_text("no image at all")
    with pytest.raises(InputError, match=r"b\.png: not a readable image"):
        decode_image(tmp_path / "b.png")


def test_a_slice_of_images_is_decoded_later_too(tmp_path: Path) -> None:
    images = ImageFiles([tmp_path / f"{index}.png" for index in range(4)])
    assert len(images[1:3]) == 2
    write_picture(tmp_path / "2.png", 2)
    assert images[1:3][1].tobytes() == images[2].tobytes()


def test_equal_ids_and_equal_contents_make_one_picture(caplog: pytest.LogCaptureFixture) -> None:
    # 0 and 3 share an id, 3 and 5 their content: all three are one image
    ids, contents = np.array(["a", "b", "c", "a", "d", "e"]), ["1", "2", "3", "4", "5", "4"]
    with caplog.at_level(logging.WARNING):
        assert merge_equal_images(ids, contents).tolist() == ["a", "b", "c", "a", "d", "a"]
    assert "1 stimuli are the same image as one with another id, such as a and e" in caplog.text
    caplog.clear()
    assert merge_equal_images(np.array([7, 7, 9]), ["1", "1", "2"]).tolist() == [7, 7, 9]
    assert not caplog.records
