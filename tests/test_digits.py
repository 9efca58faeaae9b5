from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from harness.storage.errors import InputError
from tasks.digits import WORDS
from tasks.load import load_task

# at native size, images can be compared pixel by pixel
SIZE = 8


def keys(split: object) -> list[bytes]:
    return [np.asarray(image).tobytes() for image in split["image"]]


def test_the_split_is_stratified_disjoint_and_complete() -> None:
    task = load_task("digits", image_size=SIZE)
    assert (len(task.train), len(task.test), task.n_classes) == (1257, 540, 10)
    data = load_digits()
    whole = np.bincount(data.target)
    np.testing.assert_allclose(np.bincount(task.test["label"]), 0.3 * whole, atol=1)
    np.testing.assert_array_equal(np.bincount(task.train["label"]) + np.bincount(task.test["label"]), whole)
    grey = np.round(data.images * (255 / 16)).astype(np.uint8)
    originals = sorted(np.repeat(image[..., None], 3, axis=2).tobytes() for image in grey)
    assert sorted(keys(task.train) + keys(task.test)) == originals


def test_labels_belong_to_their_images() -> None:
    data = load_digits()
    grey = np.round(data.images * (255 / 16)).astype(np.uint8)
    known = {
        np.repeat(image[..., None], 3, axis=2).tobytes(): label
        for image, label in zip(grey, data.target, strict=True)
    }
    task = load_task("digits", 200, 100, seed=3, image_size=SIZE)
    for split in (task.train, task.test):
        assert [known[key] for key in keys(split)] == split["label"]
    assert task.train.features["label"].names == list(WORDS) == list(task.class_names)


def test_a_part_is_the_beginning_of_the_whole_and_holds_every_class() -> None:
    whole, part = load_task("digits", image_size=SIZE), load_task("digits", 120, 80, image_size=SIZE)
    assert keys(part.train) == keys(whole.train)[:120]
    assert keys(part.test) == keys(whole.test)[:80]
    assert set(part.train["label"]) == set(range(10))


def test_the_seed_decides() -> None:
    first, again, other = (load_task("digits", 50, 20, seed, SIZE) for seed in (0, 0, 1))
    assert keys(first.train) == keys(again.train) != keys(other.train)
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_images_are_enlarged_and_coloured() -> None:
    image = load_task("digits", 1, 1).train[0]["image"]
    assert isinstance(image, Image.Image)
    assert (image.size, image.mode) == ((64, 64), "RGB")
    assert np.asarray(image).max() > 200


def test_more_images_than_there_are() -> None:
    with pytest.raises(InputError, match=r"^task.n_train: found 1258, expected at most 1257"):
        load_task("digits", n_train=1258, image_size=SIZE)
    with pytest.raises(InputError, match=r"^task.n_test: found 541, expected at most 540"):
        load_task("digits", n_test=541, image_size=SIZE)
