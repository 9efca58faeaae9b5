"""Image files: listing, order, decoding, and merging of equal images."""

from __future__ import annotations

import hashlib
import logging
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from made_recordings import write_picture
from PIL import ExifTags, Image, features

from harness.storage.errors import InputError, exit_with_one_line
from harness.storage.image_files import (
    ImageFiles,
    as_rgb,
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
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(as_rgb(image)), seen)
        # once only
        np.testing.assert_array_equal(np.asarray(as_rgb(as_rgb(image.convert("RGB")))), seen)


def test_transparent_pixels_lie_on_white_whatever_they_are_stored_as(tmp_path: Path) -> None:
    pixels = np.full((4, 6, 4), (200, 10, 30, 128), dtype=np.uint8)
    pixels[0, :, 3], pixels[1, :, 3] = 0, 255
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    Image.fromarray(pixels).save(tmp_path / "rgba.webp", lossless=True, exact=True)
    found = np.asarray(decode_image(tmp_path / "rgba.png"))
    assert found[0, 0].tolist() == [255, 255, 255] and found[1, 0].tolist() == [200, 10, 30]
    # (128 · colour + 127 · 255) / 255
    assert found[2, 0].tolist() == [227, 132, 142]
    np.testing.assert_array_equal(np.asarray(decode_image(tmp_path / "rgba.webp")), found)
    whole = Image.fromarray(np.full((4, 6, 3), (200, 10, 30), dtype=np.uint8))
    whole.quantize(4).save(tmp_path / "p.png", transparency=bytes(4))
    whole.save(tmp_path / "rgb.png", transparency=(200, 10, 30))
    Image.fromarray(pixels).convert("LA").save(tmp_path / "la.png")
    for name in ("p", "rgb"):
        assert (np.asarray(decode_image(tmp_path / f"{name}.png")) == 255).all()
    grey = np.asarray(whole.convert("L"))[0, 0]
    assert np.asarray(decode_image(tmp_path / "la.png"))[:2, 0, 1].tolist() == [255, grey]
    # in memory as in files
    np.testing.assert_array_equal(np.asarray(as_rgb(Image.fromarray(pixels))), found)


def test_what_is_opaque_keeps_its_pixels_and_its_hash(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    opaque = Image.fromarray(pixels).convert("RGBA")
    opaque.save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(np.asarray(decode_image(tmp_path / "opaque.png")), pixels)
    opaque.putalpha(100)
    opaque.save(tmp_path / "thin.png")
    # the hash of the content alone, and one that changed with the rule
    content = {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        for name in ("opaque.png", "thin.png")
    }
    hashes = hash_images(tmp_path, list(content))
    assert hashes["opaque.png"] == content["opaque.png"]
    assert hashes["thin.png"] == content["thin.png"] + "+white"


def test_what_is_not_shown_as_stored_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_picture(tmp_path / "plain.png", 0)
    glyph = np.zeros((4, 6, 4), dtype=np.uint8)
    glyph[1:3, 2:4, 3] = 255
    Image.fromarray(glyph).save(tmp_path / "black.png")
    glyph[..., :3] = 255
    Image.fromarray(glyph).save(tmp_path / "white.png")
    frames = [Image.fromarray(np.full((4, 6), grey, dtype=np.uint8)) for grey in (10, 200)]
    frames[0].save(tmp_path / "moves.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "deep.png").write_bytes(deep_png())
    names = list_images(tmp_path)
    for _ in range(2):  # also from the cache
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            hash_images(tmp_path, names)
        text = caplog.text
        assert "2 of 5 images are transparent in part and shown on white, such as black.png" in text
        assert "1 of 5 images are of one colour on white" in text and "such as white.png" in text
        assert "1 of 5 images hold several pictures, of which the first is shown, such as moves.gif" in text
        assert "1 of 5 images have 16 bits a channel and are read with 8, such as deep.png" in text
        assert len(caplog.records) == 4
    assert (np.asarray(decode_image(tmp_path / "moves.gif")) == 10).all()
    assert len(np.unique(np.asarray(decode_image(tmp_path / "black.png")))) == 2


def deep_png() -> bytes:
    """A PNG of RGB with 16 bits a channel, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(range(24)) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_warnings_of_pillow_name_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    before = warnings.showwarning
    with caplog.at_level(logging.WARNING):
        hash_images(tmp_path, ["a.png", "b.png"])
    for name in ("a.png", "b.png"):
        assert f"warning: {tmp_path / name}: Image size (16 pixels) exceeds limit" in caplog.text
    assert warnings.showwarning is before


def test_linked_folders_are_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = tmp_path / "elsewhere" / "deep"
    elsewhere.mkdir(parents=True)
    for name in ("1.png", "2.jfif", "3.avif"):
        (elsewhere / name).touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "gone.png").symlink_to(tmp_path / "nowhere.png")  # an error when it is read, not before
    assert list_images_below(root) == [
        *("gone.png", "linked/deep/1.png", "linked/deep/2.jfif", "linked/deep/3.avif")
    ]
    assert not caplog.records
    # two folders linked into each other
    (elsewhere / "back").symlink_to(root)
    with caplog.at_level(logging.WARNING):
        assert len(list_images_below(root)) == 4
    assert "1 folders linked into themselves" in caplog.text


def test_files_that_are_no_pictures_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.png", "b.HEIC", "c.heic", "notes.txt", "d", ".hidden.heic", "sub/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with caplog.at_level(logging.WARNING):
        assert list_images(tmp_path) == ["a.png"]
    left_out = caplog.text
    assert "5 files are left out: 2 .heic" in left_out
    for kind in ("1 .txt", "1 without suffix", "1 in subfolders"):
        assert kind in left_out
    (tmp_path / "a.png").unlink()
    with pytest.raises(
        InputError, match=r"found no image among 5 files \(2 \.heic, .*expected files ending in"
    ):
        list_images(tmp_path)


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "avif", "jp2", "ppm", "tga", "qoi"])
def test_all_usual_kinds_of_pictures_are_read(tmp_path: Path, suffix: str) -> None:
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    Image.new("RGB", (8, 8), (200, 10, 30)).save(tmp_path / f"a.{suffix}")
    (name,) = list_images(tmp_path)
    found = np.asarray(decode_image(tmp_path / name)).astype(int)
    assert np.abs(found - (200, 10, 30)).max() <= 4  # lossy formats


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


def test_pillow_warns_once_and_names_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    image = Image.new("RGB", (8, 8))
    exif = image.getexif()
    exif[0x010E] = "a description of some length"
    image.save(tmp_path / "a.jpg", exif=exif.tobytes()[:-20])  # cut off

    def read_twice() -> None:
        hash_images(tmp_path, ["a.jpg"])
        decode_image(tmp_path / "a.jpg")  # as in every epoch

    warnings.simplefilter("always")
    exit_with_one_line(read_twice)
    (record,) = caplog.records
    assert "a.jpg: Truncated File Read" in record.getMessage()
    assert not recwarn.list
