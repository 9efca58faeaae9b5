from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.storage.files import content_hash
from tasks.shapes import (
    COLOUR_NAMES,
    COLOURS,
    IMAGE_SIZE,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    SceneObject,
    caption_scene,
    is_novel,
    label_scenes,
    render_scenes,
    sample_scene,
    sample_scenes,
    vocabulary,
)

SEED = 77


@pytest.fixture(scope="module")
def scenes() -> tuple[Scene, ...]:
    return tuple(sample_scenes(SEED, range(400)))


def parse(phrase: str) -> dict[str, str]:
    article, *words = phrase.split()
    assert article == ("an" if words[0][0] in "aeiou" else "a")
    found = {}
    for kind, names in (("size", SIZES), ("colour", COLOURS), ("texture", TEXTURES), ("shape", SHAPES)):
        if words and words[0] in names:
            found[kind] = words.pop(0)
    assert not words
    return found


def factors(item: SceneObject) -> dict[str, str]:
    return {
        "size": item.size,
        "colour": COLOUR_NAMES[item.colour],
        "texture": TEXTURES[item.texture],
        "shape": SHAPES[item.shape],
    }


def draw(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """A rendered scene and its background alone, as floats from 0 to 1."""
    with_objects, without = render_scenes([scene, Scene((), scene.seed)]).astype(np.float64) / 255
    return with_objects, without


def test_a_scene_is_a_function_of_seed_and_index(scenes: tuple[Scene, ...]) -> None:
    assert sample_scene(SEED, 123) == scenes[123]
    assert sample_scenes(SEED, [200, 3]) == [scenes[200], scenes[3]]
    assert sample_scene(SEED + 1, 123) != scenes[123]
    assert len(set(scenes)) == len(scenes)


def test_an_image_does_not_depend_on_the_others(scenes: tuple[Scene, ...]) -> None:
    images = render_scenes(scenes[:120])
    np.testing.assert_array_equal(render_scenes([scenes[70], scenes[5]]), images[[70, 5]])
    assert render_scenes([]).shape == (0, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert len({image.tobytes() for image in images}) == len(images)


def test_no_global_state_is_used() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    render_scenes([sample_scene(SEED, 0)])
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_the_world_has_not_changed() -> None:
    # the shipped weights were trained on it; a change needs new weights
    pixels = render_scenes(sample_scenes(0, range(8))).astype(np.int64)
    captions = [scene.caption for scene in sample_scenes(0, range(8))]
    assert content_hash(captions).startswith("ee0a391967d3e9c8")
    # a sum, because the last bit of a pixel may differ between machines
    assert abs(pixels.sum() - 12_147_460) < 50
    assert content_hash(list(vocabulary())).startswith("2d2d46557034d8b6")


def test_captions_parse_back_into_the_factors(scenes: tuple[Scene, ...]) -> None:
    relations = "|".join(RELATIONS)
    seen = Counter()
    for scene in scenes:
        text = scene.caption
        rest = None
        if " and " in text:
            text, rest = text.split(" and ")
        found = [name for name in RELATIONS if f" {name} " in text]
        phrases = text.split(f" {found[0]} ") if found else [text]
        phrases += [rest] if rest else []
        assert [parse(phrase) for phrase in phrases] == [factors(item) for item in scene.objects], relations
        if found:
            seen[found[0]] += 1
            first, second = scene.objects[:2]
            across, down = second.x - first.x, second.y - first.y
            distance = {"left of": across, "right of": -across, "above": down, "below": -down}[found[0]]
            assert distance == pytest.approx(max(abs(across), abs(down)))
    assert set(seen) == set(RELATIONS)


def test_adjectives_are_dropped_and_never_invented(scenes: tuple[Scene, ...]) -> None:
    rng = np.random.default_rng(0)
    said = Counter()
    for scene in scenes:
        full = parse(caption_scene(replace(scene, objects=scene.objects[:1])))
        short = parse(caption_scene(replace(scene, objects=scene.objects[:1]), rng, keep=0.5))
        assert short.items() <= full.items()
        said.update(short.keys())
    assert said["shape"] == len(scenes)
    for kind in ("size", "colour", "texture"):
        assert said[kind] / len(scenes) == pytest.approx(0.5, abs=0.1)  # 4 standard deviations
    bare = caption_scene(scenes[0], rng, keep=0.0)
    assert not set(bare.split()) & {*SIZES, *COLOURS, *TEXTURES}
    assert caption_scene(scenes[0], rng, keep=1.0) == scenes[0].caption


def test_the_vocabulary_covers_every_caption(scenes: tuple[Scene, ...]) -> None:
    words = vocabulary()
    assert list(words) == sorted(set(words))
    said = {word for scene in scenes for word in scene.caption.split()}
    for index, scene in enumerate(scenes):
        said.update(caption_scene(scene, np.random.default_rng(index)).split())
    assert said == set(words)  # every word occurs


def test_every_factor_occurs_about_equally_often(scenes: tuple[Scene, ...]) -> None:
    labels = label_scenes(sample_scenes(SEED, range(600), n_objects=1))
    for kind, names in (("shape", SHAPES), ("colour", COLOURS), ("texture", TEXTURES), ("size", SIZES)):
        counts = np.bincount(labels[kind], minlength=len(names))
        assert len(counts) == len(names)
        expected = 600 / len(names)
        assert abs(counts - expected).max() < 4.5 * np.sqrt(expected)
    counts = np.bincount([len(scene.objects) for scene in scenes])
    assert counts[0] == 0 and len(counts) == 4
    assert abs(counts[1:] - 400 / 3).max() < 4.5 * np.sqrt(400 / 3)


def test_one_combination_in_eight_is_kept_out_whatever_the_shape_colour_or_texture() -> None:
    grid = np.array(
        [[[is_novel(a, b, c) for c in range(6)] for b in range(8)] for a in range(12)], dtype=float
    )
    assert grid.mean() == 1 / 8
    # every shape, texture and colour has equally many
    for axis in ((1, 2), (0, 2), (0, 1)):
        shares = grid.mean(axis=axis)
        assert shares.min() > 0.08 and shares.max() < 0.17


def test_held_out_combinations_never_occur_in_pretraining(scenes: tuple[Scene, ...]) -> None:
    def novel(scene: Scene) -> list[bool]:
        return [is_novel(item.shape, item.colour, item.texture) for item in scene.objects]

    assert not any(any(novel(scene)) for scene in sample_scenes(SEED, range(80), novel=False))
    assert all(all(novel(scene)) for scene in sample_scenes(SEED, range(30), novel=True))
    share = np.mean([kept for scene in scenes for kept in novel(scene)])
    assert share == pytest.approx(1 / 8, abs=0.05)


def test_the_shape_of_the_first_object_can_be_asked_for() -> None:
    for shape in range(len(SHAPES)):
        scene = sample_scene(SEED, shape, n_objects=2, shape=shape)
        assert scene.objects[0].shape == shape
    others = {sample_scene(SEED, index, n_objects=2, shape=4).objects[1].shape for index in range(30)}
    assert len(others) > 5


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 10**6), st.sampled_from([1, 2, 3]))
def test_geometry(seed: int, index: int, n_objects: int) -> None:
    scene = sample_scene(seed, index, n_objects)
    assert len(scene.objects) == n_objects
    for item in scene.objects:
        low, high = SIZES[item.size]
        assert low <= item.radius < high
        reach = 0.9 * item.extent  # only the farthest tip of an outline may leave the image
        assert min(reach, 30) <= item.x <= IMAGE_SIZE - min(reach, 30)
        assert min(reach, 30) <= item.y <= IMAGE_SIZE - min(reach, 30)
    for place, one in enumerate(scene.objects):
        for other in scene.objects[:place]:
            assert np.hypot(one.x - other.x, one.y - other.y) > 0.85 * (one.extent + other.extent)


def masks(scene: Scene) -> list[np.ndarray]:
    """Mask of the pixels changed by each object."""
    found = []
    for item in scene.objects:
        with_one, without = draw(Scene((item,), scene.seed))
        found.append(np.abs(with_one - without).max(axis=2) > 4 / 255)
    return found


def test_objects_do_not_cover_each_other(scenes: tuple[Scene, ...]) -> None:
    several = [scene for scene in scenes if len(scene.objects) == 3][:25]
    for scene in several:
        painted = np.sum(masks(scene), axis=0)
        assert (painted > 1).sum() < 0.02 * (painted > 0).sum()


@pytest.mark.parametrize("shape", range(len(SHAPES)), ids=SHAPES)
def test_an_object_has_its_place_and_its_area(shape: int) -> None:
    # white and plain: pixel values show coverage
    item = SceneObject(shape, 7, 0, 13.0, 33.0, 30.0, 0.0, (1.0, 1.0, 1.0), seed=1)
    pixels, background = draw(Scene((item,), 5))
    covered = ((pixels - background) / (1 - background)).mean(axis=2)
    assert covered.sum() == pytest.approx(np.pi * 13**2, rel=0.06)
    rows, columns = np.nonzero(covered > 0.2)
    middle = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
    np.testing.assert_allclose(middle, (30, 33), atol=1.1)
    reach = np.hypot(rows - 30, columns - 33).max()
    assert reach == pytest.approx(item.extent, abs=1.6)


def test_shapes_differ() -> None:
    drawn = []
    for shape in range(len(SHAPES)):
        item = SceneObject(shape, 7, 0, 15.0, 32.0, 32.0, 0.0, (1.0, 1.0, 1.0), seed=1)
        drawn.append(masks(Scene((item,), 5))[0])
    for place, one in enumerate(drawn):
        for other in drawn[:place]:
            assert (one & other).sum() / (one | other).sum() < 0.9


def test_a_colour_is_where_its_object_is() -> None:
    palette = np.array(list(COLOURS.values()))
    for scene in sample_scenes(SEED, range(60), n_objects=1):
        item = replace(scene.main, texture=TEXTURES.index("plain"))
        pixels, _ = draw(Scene((item,), scene.seed))
        (mask,) = masks(Scene((item,), scene.seed))
        colour = np.median(pixels[mask], axis=0)
        np.testing.assert_allclose(colour, item.tint, atol=0.01)
        assert np.linalg.norm(palette - colour, axis=1).argmin() == item.colour


@pytest.mark.parametrize("texture", range(len(TEXTURES)), ids=TEXTURES)
def test_a_texture_is_a_dark_pattern_in_the_colour(texture: int) -> None:
    item = SceneObject(1, 7, texture, 18.0, 32.0, 32.0, 0.0, (1.0, 1.0, 1.0), seed=3)
    pixels, _ = draw(Scene((item,), 5))
    inside = pixels[20:44, 20:44].mean(axis=2)
    assert inside.max() == pytest.approx(1, abs=0.01)
    if TEXTURES[texture] == "plain":
        assert inside.std() < 0.01
    else:
        assert inside.std() > 0.15
        assert 0.25 < (inside > 0.75).mean() < 0.85


def test_textures_can_be_told_apart_by_their_spectra() -> None:
    # stripes have one orientation, checks and dots two; speckles have power at the highest frequencies
    def concentration(name: str, seed: int) -> tuple[float, float]:
        item = SceneObject(1, 7, TEXTURES.index(name), 18.0, 32.0, 32.0, 0.0, (1.0, 1.0, 1.0), seed)
        pixels, _ = draw(Scene((item,), 5))
        patch = pixels[20:44, 20:44].mean(axis=2)
        power = np.abs(np.fft.fft2(patch - patch.mean())) ** 2
        frequency = np.hypot(np.fft.fftfreq(24)[:, None], np.fft.fftfreq(24)[None])
        return np.sort(power.ravel())[-6:].sum() / power.sum(), power[frequency > 0.35].sum() / power.sum()

    found = {
        name: np.mean([concentration(name, seed) for seed in range(12)], axis=0)
        for name in ("striped", "dotted", "checkered", "speckled")
    }
    assert found["striped"][0] > 0.6 > found["speckled"][0]
    assert found["speckled"][1] > 0.3 > max(found[name][1] for name in ("striped", "dotted", "checkered"))


def test_backgrounds_have_the_spectrum_of_natural_images() -> None:
    backgrounds = render_scenes([Scene((), seed) for seed in range(200)]).astype(np.float64) / 255
    grey = backgrounds.mean(axis=3)
    power = np.abs(np.fft.fft2(grey - grey.mean(axis=(1, 2), keepdims=True))) ** 2
    frequency = np.hypot(np.fft.fftfreq(IMAGE_SIZE)[:, None], np.fft.fftfreq(IMAGE_SIZE)[None])
    band = (frequency > 1.5 / IMAGE_SIZE) & (frequency < 0.25)
    exponents = [-np.polyfit(np.log(frequency[band]), np.log(image[band]), 1)[0] / 2 for image in power]
    assert np.mean(exponents) == pytest.approx(1.05, abs=0.05)  # drawn uniformly between 0.8 and 1.3
    assert np.quantile(exponents, 0.02) > 0.7 and np.quantile(exponents, 0.98) < 1.4
    assert np.std(exponents) > 0.08  # a single exponent, fitted, scatters by 0.03
    assert 0.05 < grey.std(axis=(1, 2)).mean() < 0.17
    assert ((backgrounds == 0) | (backgrounds == 1)).mean() < 0.01


def test_labels_are_those_of_the_largest_object(scenes: tuple[Scene, ...]) -> None:
    labels = label_scenes(scenes)
    for index, scene in enumerate(scenes):
        main = max(scene.objects, key=lambda item: item.radius)
        assert factors(main) == {
            "size": list(SIZES)[labels["size"][index]],
            "colour": COLOUR_NAMES[labels["colour"][index]],
            "texture": TEXTURES[labels["texture"][index]],
            "shape": SHAPES[labels["shape"][index]],
        }
        assert labels["count"][index] == len(scene.objects) - 1
    assert all(part.dtype == np.int64 for part in labels.values())
