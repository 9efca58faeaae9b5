"""Global image statistics, which replace objects in unlabelled images."""

from __future__ import annotations

import numpy as np
import pytest

from harness.brains.simulated.gabor import (
    N_CONTRASTS,
    N_ORIENTATIONS,
    measure_contrast,
    measure_features,
)
from harness.brains.simulated.image_statistics import (
    KINDS,
    StatisticsStage,
    measure_statistics,
)
from harness.brains.simulated.scene_objects import (
    CONTENT_FIELDS,
    N_DESCRIPTORS,
)
from harness.brains.simulated.stages import (
    Voxels,
    look_at_images,
)
from tasks.shapes import (
    COLOURS,
    SHAPES,
    TEXTURES,
    render_scenes,
    sample_scenes,
)

GREY = np.full((1, 64, 64, 3), 128, np.uint8)


def grating(wavelength: float, angle: float) -> np.ndarray:
    down, across = np.mgrid[:64, :64]
    wave = np.sin(2 * np.pi / wavelength * (across * np.cos(angle) + down * np.sin(angle)))
    return np.repeat((128 + 60 * wave)[None, :, :, None], 3, axis=3).astype(np.uint8)


def test_a_voxel_has_as_many_weights_as_it_has_for_objects() -> None:
    assert tuple(KINDS.values()) == (len(SHAPES), len(COLOURS), len(TEXTURES))
    assert sum(KINDS.values()) + KINDS["shape"] + KINDS["texture"] + 1 == CONTENT_FIELDS
    assert N_CONTRASTS == N_DESCRIPTORS


def test_statistics_do_not_change_when_things_move() -> None:
    """A patch of a scene on grey, at two positions, against other patches."""
    scenes = render_scenes(sample_scenes(5, range(6)))
    here, there = np.repeat(GREY, 6, axis=0), np.repeat(GREY, 6, axis=0)
    here[:, 16:40, 14:38] = there[:, 24:48, 26:50] = scenes[:, 20:44, 20:44]
    one, other = (measure_statistics(measure_features(images)) for images in (here, there))
    for kind in (*KINDS, "number"):
        values, moved = getattr(one, kind), getattr(other, kind)
        differ = np.abs(values - np.roll(values, 1, axis=0)).mean()
        assert np.abs(values - moved).mean() < 0.1 * differ, kind


def test_each_statistic_is_of_what_it_says() -> None:
    fine, turned, coarse = (
        measure_statistics(measure_features(grating(*wave))) for wave in ((4, 0.0), (4, np.pi / 2), (16, 0.0))
    )
    assert fine.texture[0, :3].argmax() == 0 and coarse.texture[0, :3].argmax() == 2
    np.testing.assert_allclose(fine.texture, turned.texture, rtol=0.02)  # at any orientation
    assert fine.texture[0, 3] > 0.5  # one orientation
    assert fine.number > 0 > coarse.number
    noise = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 1), dtype=np.uint8).repeat(3, axis=3)
    assert measure_statistics(measure_features(noise)).texture[0, 3] < 0.1  # all orientations
    halves = GREY.copy()
    halves[:, :, :32], halves[:, :, 32:] = (220, 30, 30), (30, 30, 220)
    hues = measure_statistics(measure_features(halves)).colour[0]
    assert 0.9 < hues.sum() <= 1
    reds = GREY.copy()
    reds[:] = (220, 30, 30)
    assert np.abs(measure_statistics(measure_features(reds)).colour[0] - hues).max() > 0.2
    for values in vars(measure_statistics(measure_features(GREY))).values():
        np.testing.assert_allclose(values, 0, atol=1e-3)


def test_contrast_is_seen_where_orientation_changes() -> None:
    """A square of horizontal lines on vertical lines, equal in luminance."""
    image = grating(8, 0.0)
    image[:, 20:44, 20:44] = grating(8, np.pi / 2)[:, 20:44, 20:44]
    contrast = measure_contrast(measure_features(np.concatenate([image, grating(8, 0.0)])))
    assert contrast.shape == (2, N_CONTRASTS, 32, 32)
    square, plain = contrast[:, :N_ORIENTATIONS].mean(axis=1)
    assert square[13:19, 13:19].mean() > 5 * plain[13:19, 13:19].mean()
    assert square[13:19, 13:19].mean() > 3 * square[:4, :4].mean()
    # vertical and horizontal lines have the most
    by_orientation = contrast[0, :N_ORIENTATIONS, 13:19, 13:19].mean(axis=(1, 2))
    assert set(np.argsort(by_orientation)[-2:]) == {0, N_ORIENTATIONS // 2}


def test_responses_are_as_stated() -> None:
    """One voxel against the formula."""
    images = render_scenes(sample_scenes(5, range(30)))
    rng = np.random.default_rng(0)
    fields = rng.standard_normal((1, CONTENT_FIELDS)).astype(np.float32)
    nowhere = np.full((1, 2), np.nan, np.float32), np.full(1, np.inf, np.float32)
    reference = look_at_images(images)
    found = StatisticsStage(Voxels(np.array(["VVC"]), *nowhere, fields), reference).respond(reference)[:, 0]
    seen = measure_statistics(reference.features)
    z = {
        kind: (getattr(seen, kind) - getattr(seen, kind).mean(axis=0)) / getattr(seen, kind).std(axis=0)
        for kind in (*KINDS, "number")
    }
    w = np.split(fields[0], [12, 20, 26, 38, 44])
    drive = 0.7 * z["shape"] @ w[0] / 12**0.5 + 0.3 * z["colour"] @ w[1] / 8**0.5
    drive += 0.5 * z["texture"] @ w[2] / 6**0.5 + 0.4 * (z["shape"] @ w[3]) * (z["texture"] @ w[4]) / 72**0.5
    what, number = np.log1p(np.exp(2 * drive)), np.exp(-((z["number"][:, 0] - w[5]) ** 2) / 2)
    np.testing.assert_allclose(found, what / what.std() + 0.2 * number / number.std(), rtol=1e-3)


@pytest.mark.parametrize("colour", [128, 0])
def test_empty_images_give_no_response_that_varies(colour: int) -> None:
    view = look_at_images(np.full((20, 64, 64, 3), colour, np.uint8))
    fields = np.ones((3, CONTENT_FIELDS), np.float32)
    nowhere = np.full((3, 2), np.nan, np.float32), np.full(3, np.inf, np.float32)
    stage = StatisticsStage(Voxels(np.array(["FFC", "VMV", "PHA"]), *nowhere, fields), view)
    assert (stage.respond(view).std(axis=0) < 1e-6).all()
