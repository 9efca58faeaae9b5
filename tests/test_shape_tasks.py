from __future__ import annotations

import numpy as np
import pytest

from harness.storage.errors import InputError
from tasks.load import (
    NAMES,
    load_task,
)
from tasks.shape_tasks import FIRST_WORLD
from tasks.shapes import (
    SHAPES,
    TEXTURES,
    label_scenes,
    render_scenes,
    sample_scenes,
    vocabulary,
)


def pixels(split: object) -> np.ndarray:
    return np.stack([np.asarray(image) for image in split["image"]])


@pytest.mark.parametrize(("name", "classes"), [("shapes", SHAPES), ("textures", TEXTURES)])
def test_labels_are_those_of_the_scenes(name: str, classes: tuple[str, ...]) -> None:
    task = load_task(name, 30, 20, seed=4)
    assert task.name == name
    assert task.class_names == classes
    for world, split in enumerate((task.train, task.test)):
        scenes = sample_scenes(FIRST_WORLD + 8 + world, range(len(split)), n_objects=1)
        np.testing.assert_array_equal(pixels(split), render_scenes(scenes))
        np.testing.assert_array_equal(split["label"], label_scenes(scenes)[name.removesuffix("s")])
    assert (len(task.train), len(task.test)) == (30, 20)


def test_counts_are_balanced_and_right() -> None:
    task = load_task("counts", 9, 6)
    assert task.class_names == ("one", "two", "three")
    assert np.bincount(task.train["label"]).tolist() == [3, 3, 3]
    scenes = [sample_scenes(FIRST_WORLD, [index], n_objects=index % 3 + 1)[0] for index in range(9)]
    np.testing.assert_array_equal(pixels(task.train), render_scenes(scenes))
    assert [len(scene.objects) - 1 for scene in scenes] == task.train["label"]
    assert task.templates == ()


def test_two_questions_are_asked_of_the_same_images() -> None:
    shapes, textures = load_task("shapes", 12, 5), load_task("textures", 12, 5)
    np.testing.assert_array_equal(pixels(shapes.train), pixels(textures.train))
    assert shapes.train["label"] != textures.train["label"]
    assert shapes.fingerprint != textures.fingerprint


def test_splits_and_seeds_share_no_image() -> None:
    images = [
        image.tobytes()
        for seed in (0, 1)
        for split in (load_task("shapes", 20, 20, seed).train, load_task("shapes", 20, 20, seed).test)
        for image in pixels(split)
    ]
    assert len(set(images)) == 80


def test_a_larger_task_begins_with_the_smaller() -> None:
    small, large = load_task("textures", 5, 3), load_task("textures", 8, 4)
    np.testing.assert_array_equal(pixels(large.train)[:5], pixels(small.train))
    assert load_task("textures", 5, 3).fingerprint == small.fingerprint != large.fingerprint


def test_images_can_be_enlarged() -> None:
    small, large = load_task("shapes", 3, 2), load_task("shapes", 3, 2, image_size=96)
    assert pixels(large.train).shape == (3, 96, 96, 3)
    assert large.train["label"] == small.train["label"]


@pytest.mark.parametrize("name", ["shapes", "textures"])
def test_templates_are_in_the_words_of_the_captions(name: str) -> None:
    task = load_task(name, 2, 2)
    said = {word for text in task.templates for cls in task.class_names for word in text.format(cls).split()}
    assert said <= set(vocabulary())
    assert set(task.class_names) <= said


def test_an_unknown_task_is_one_line() -> None:
    with pytest.raises(InputError, match=r"unknown task 'shaeps'.*did you mean 'shapes'") as error:
        load_task("shaeps")
    assert all(name in str(error.value) for name in NAMES)
