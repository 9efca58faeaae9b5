"""Shifts of the shapes world: unseen values of one factor, the same answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.config.compose import config_hash, load_config
from harness.config.shifts import WORLD_SHIFTS
from harness.runs.inputs import load_probes
from harness.storage.errors import InputError
from tasks.load import load_task
from tasks.shape_tasks import FIRST_WORLD, draw_scenes
from tasks.shapes import (
    COLOURS,
    IMAGE_SIZE,
    SHAPES,
    TEXTURES,
    is_novel,
    label_scenes,
    render_scenes,
    sample_scenes,
)
from tasks.unseen_patterns import UNSEEN_BACKGROUNDS, UNSEEN_COLOURS
from tasks.world_shifts import shift_scenes

SCENES = sample_scenes(FIRST_WORLD, range(60), n_objects=1)


@pytest.mark.parametrize("shift", ["textures", "colours", "backgrounds", "sizes"])
def test_one_factor_is_unseen_and_all_others_stay(shift):
    moved = shift_scenes(SCENES, shift)
    assert moved == shift_scenes(SCENES, shift)
    before, after = render_scenes(SCENES), render_scenes(moved)
    assert (before != after).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(label_scenes(SCENES)["shape"], label_scenes(moved)["shape"])
    for old, new in zip(SCENES, moved, strict=True):
        (one,), (other,) = old.objects, new.objects
        if shift == "textures":
            assert other.texture >= len(TEXTURES) and replace(other, texture=one.texture) == one
        elif shift == "colours":
            nearest = [
                min(np.linalg.norm(np.subtract(other.tint, known)) for known in palette.values())
                for palette in (UNSEEN_COLOURS, COLOURS)
            ]
            assert nearest[0] < nearest[1] and replace(other, tint=one.tint) == one
        elif shift == "backgrounds":
            assert new.background in UNSEEN_BACKGROUNDS and other == one
        else:
            assert other.radius < 8 or other.radius >= 20
            assert 0 <= other.x <= IMAGE_SIZE and 0 <= other.y <= IMAGE_SIZE
            assert (other.shape, other.texture, other.tint) == (one.shape, one.texture, one.tint)
        # pixels far from the object belong to the background
        if shift != "backgrounds":
            assert new.seed == old.seed and new.background == "natural"


def test_several_objects_do_not_grow_into_each_other():
    scenes = sample_scenes(FIRST_WORLD, range(10), n_objects=3)
    assert all(item.radius < 8 for scene in shift_scenes(scenes, "sizes") for item in scene.objects)


def test_a_task_has_the_shifts_that_it_names():
    task = load_task("shapes", 20, 12, shifts=("world", "blur"))
    assert [shift.name for shift in task.shifts] == list(WORLD_SHIFTS)
    assert task.corruptions == ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur")
    plain = load_task("shapes", 20, 12)
    assert plain.fingerprint == task.fingerprint and plain.shifts == () and "shifts" not in plain.describe()
    assert set(task.describe()["shifts"]) == set(WORLD_SHIFTS)
    labels = np.array(task.test["label"])
    for shift in task.shifts:
        assert len(shift.images) == 12 and shift.columns is None
        assert (shift.labels == labels).all() or shift.name == "combinations"
    assert len({shift.fingerprint for shift in task.shifts}) == 5


def test_combinations_are_unseen_in_pretraining_and_on_request_in_training():
    config = load_config(["task=shapes", "backbone=mini_clip", "task.held_out=true", "task.n_train=80"]).task

    def novel(scenes):
        return [is_novel(scene.main.shape, scene.main.colour, scene.main.texture) for scene in scenes]

    assert all(novel(draw_scenes(config, 1, novel=True))[:40])
    assert not any(novel(draw_scenes(config, 0)))
    assert 0 < np.mean(novel(draw_scenes(config.model_copy(update={"held_out": False}), 0))) < 0.4


@pytest.mark.parametrize(
    ("name", "shift", "message"),
    [
        ("digits", "textures", "task.shifts: found textures for digits, expected corruptions"),
        ("textures", "textures", "task.shifts: found textures for textures"),
    ],
)
def test_shifts_that_a_task_lacks_are_one_line(name, shift, message):
    with pytest.raises(InputError, match=message):
        load_task(name, 20, 10, shifts=(shift,))


def test_texture_is_no_shift_of_its_own_task():
    task = load_task("textures", 20, 10, shifts=("world",))
    assert [shift.name for shift in task.shifts] == ["colours", "backgrounds", "sizes", "combinations"]


BASE = ["task=digits", "backbone=mini_clip", "probes.n_train=20", "probes.n_test=10"]


def test_probes_have_the_shifts_of_all_and_their_own():
    config = load_config([*BASE, "probes.shifts=[textures,snow]", "probes.tasks=[shapes,textures,digits]"])
    shapes, textures = load_probes(config)
    assert [shift.name for shift in shapes.shifts] == ["textures"] and shapes.corruptions == ("snow",)
    assert textures.shifts == () and textures.corruptions == ("snow",)


def test_only_measured_shifts_change_the_name_of_a_run():
    plain = config_hash(load_config(BASE))
    assert plain == config_hash(load_config([*BASE, "shifts.n_corrupted=7"]))
    found = {
        config_hash(load_config([*BASE, *more]))
        for more in (
            ["task.shifts=[noise]"],
            ["task.shifts=[noise]", "shifts.n_corrupted=7"],
            ["probes.shifts=[noise]"],
            ["task=shapes", "task.held_out=true"],
            ["task=shapes"],
        )
    }
    assert len(found | {plain}) == 6


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "task.shifts=[noize]",
            "task: found shift 'noize', expected some of corruptions.*mean noise",
        ),
        ("probes.shifts=[fog,fog]", "probes: found shift 'fog' 2 times, expected once"),
        ("shifts.severities=[0,1]", r"shifts: found severities \[0, 1\], expected some of 1 to 5, each once"),
        ("shifts.severities=[]", "shifts.severities: found"),
    ],
)
def test_wrong_settings_are_one_line(override, message):
    with pytest.raises(InputError, match=message):
        load_config([*BASE, override])


def test_classes_that_a_shift_lacks_lose_their_probability():
    (shift,) = load_task("shapes", 20, 4, shifts=("colours",)).shifts
    few = replace(shift, columns=((2,), (0, 3)))
    probabilities = np.array([[0.1, 0.5, 0.2, 0.2], [0.0, 1.0, 0.0, 0.0]])
    np.testing.assert_allclose(few.project(probabilities), [[0.4, 0.6], [0.5, 0.5]])
    assert few.relabel(np.array([3, 2, 0])).tolist() == [1, 0, 1]
    assert len(SHAPES) == 12 and shift.project(probabilities) is probabilities
