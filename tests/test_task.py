from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image

from harness.storage.errors import InputError
from harness.storage.files import content_hash
from harness.storage.image_files import hash_pixels
from tasks.task import (
    Task,
    build_task,
    check_size,
)


def noise(n_images: int, seed: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)) for _ in range(n_images)]


def build(seed: int = 0, labels: tuple[int, ...] = (0, 1, 1), classes: tuple[str, ...] = ("a", "b")) -> Task:
    train = (noise(3, seed), np.array(labels))
    return build_task("made", train, (noise(2, 9), np.array([1, 0])), classes, ["an {}"])


def test_a_task_gives_back_what_it_was_built_from() -> None:
    task = build()
    assert (task.name, task.n_classes, task.class_names, task.templates) == (
        "made",
        2,
        ("a", "b"),
        ("an {}",),
    )
    assert task.train["label"] == [0, 1, 1]
    assert task.test["label"] == [1, 0]
    for found, given in zip(task.train["image"], noise(3, 0), strict=True):
        np.testing.assert_array_equal(np.asarray(found), np.asarray(given))
    item = task.test[1]
    assert item["label"] == 0 and item["image"].size == (7, 5)


def test_the_fingerprint_is_that_of_images_labels_and_classes() -> None:
    assert build().fingerprint == build().fingerprint
    changed = [build(seed=1), build(labels=(1, 1, 0)), build(classes=("a", "c"))]
    assert len({task.fingerprint for task in (build(), *changed)}) == 4


def test_images_in_memory_are_upright_and_on_white() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    pixels = np.full((5, 7, 4), (200, 10, 30, 255), dtype=np.uint8)
    pixels[0, :, 3] = 0
    stored = BytesIO()
    Image.fromarray(pixels).save(stored, "PNG", exif=exif)
    with Image.open(stored) as turned:
        task = Task.from_images(([turned, *noise(1, 0)], [0, 1]), (noise(2, 9), [1, 0]), ["a", "b"])
    found = task.train[0]["image"]
    # a quarter turn clockwise: the transparent first row is the last column
    assert (found.mode, found.size) == ("RGB", (5, 7))
    np.testing.assert_array_equal(np.asarray(found)[:, -1], 255)
    np.testing.assert_array_equal(np.asarray(found)[:, 0], [(200, 10, 30)] * 7)
    assert task.image_hashes[0] == content_hash([hash_pixels(image) for image in task.train["image"]])
    with pytest.raises(InputError, match=r"^task images, train: image 1: found an image of mode I;16"):
        deep = [*noise(1, 0), Image.new("I;16", (4, 4))]
        Task.from_images((deep, [0, 1]), (noise(2, 9), [1, 0]), ["a", "b"])


def test_check_size() -> None:
    assert check_size("made", "task.n_train", None, 5) == 5
    assert check_size("made", "task.n_train", 4, 5) == 4
    assert check_size("made", "task.n_train", 5, 5) == 5
    with pytest.raises(InputError, match=r"^task.n_train: found 6, expected at most 5, all that made has$"):
        check_size("made", "task.n_train", 6, 5)
