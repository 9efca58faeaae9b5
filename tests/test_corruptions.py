"""Common corruptions: against the package imagecorruptions-imaug, their seeds, sizes and cache."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from harness.config.shifts import (
    CORRUPTION_GROUPS,
    CORRUPTIONS,
    chosen_corruptions,
)
from harness.storage.errors import InputError
from tasks import corrupted
from tasks.corrupted import corrupt_images
from tasks.corruptions import corrupt, shrink

# mean absolute change of `picture` in grey levels at severities 1, 3 and 5 by imagecorruptions-imaug 1.1.5,
# after np.random.seed(7), and with seed=7 where it takes one
RECORDED = {
    "gaussian_noise": (16.08, 34.83, 63.45),
    "shot_noise": (17.77, 37.97, 69.14),
    "impulse_noise": (3.72, 11.32, 34.21),
    "defocus_blur": (18.25, 26.97, 31.26),
    "glass_blur": (18.85, 28.8, 29.71),
    "motion_blur": (20.45, 31.28, 37.05),
    "zoom_blur": (26.7, 31.56, 35.01),
    "snow": (43.32, 68.71, 99.8),
    "fog": (32.37, 40.04, 42.35),
    "brightness": (18.08, 47.43, 60.46),
    "contrast": (26.46, 35.28, 41.88),
    "elastic_transform": (14.29, 22.55, 28.89),
    "pixelate": (7.19, 13.0, 0.0),
    "jpeg_compression": (16.3, 18.28, 21.78),
}
# the package draws these two from other generators, and its disc has the edges of whole pixels
LOOSER = {"impulse_noise": 0.3, "glass_blur": 0.4, "defocus_blur": 0.3}


class LegacyRandom(np.random.Generator):
    """A generator that draws what NumPy's old one draws, which the package uses."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64(0))
        self._old = np.random.RandomState(seed)

    def normal(self, *args, **kwargs):
        return self._old.normal(*args, **kwargs)

    def uniform(self, *args, **kwargs):
        return self._old.uniform(*args, **kwargs)

    def poisson(self, *args, **kwargs):
        return self._old.poisson(*args, **kwargs)


def picture(edge: int = 224) -> Image.Image:
    rng = np.random.RandomState(0)
    coarse = np.kron(rng.rand(14, 14, 3), np.ones((16, 16, 1)))
    fine = np.kron(rng.rand(56, 56, 3), np.ones((4, 4, 1)))
    image = Image.fromarray(np.uint8(255 * (0.6 * coarse + 0.4 * fine)))
    return image if edge == 224 else image.resize((edge, edge), Image.Resampling.BOX)


def change(image: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(image, dtype=int) - np.asarray(other, dtype=int)).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_as_strong_as_in_the_package(name):
    image = picture()
    for severity, recorded in zip((1, 3, 5), RECORDED[name], strict=True):
        found = change(image, corrupt(image, name, severity, LegacyRandom(7)))
        # snow's flakes and JPEG's rounding differ a little
        assert found == pytest.approx(recorded, abs=LOOSER.get(name, 0.15), rel=0.004), severity


def test_groups_are_those_of_imagenet_c_without_frost():
    assert [len(members) for members in CORRUPTION_GROUPS.values()] == [3, 4, 3, 4]
    assert chosen_corruptions(["weather", "pixelate"]) == ("snow", "fog", "brightness", "pixelate")
    assert chosen_corruptions(["corruptions"]) == CORRUPTIONS == tuple(RECORDED)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(8, 8), (32, 20)])
def test_small_images_keep_their_size_and_are_changed(name, size):
    image = picture(32).resize(size)
    # a blur of 3 pixels at 224 is none at 8
    found = corrupt(image, name, 5, np.random.default_rng(0))
    assert found.size == size and found.mode == "RGB"
    assert change(image, found) > 0.5 or name in ("motion_blur", "defocus_blur", "elastic_transform")


def test_lengths_grow_with_the_image():
    """A blur of the same severity looks alike at 224 and at 56 pixels."""
    large, small = picture(), picture(56)
    for name in ("defocus_blur", "motion_blur", "zoom_blur"):
        blurred = corrupt(large, name, 4, np.random.default_rng(1)).resize((56, 56), Image.Resampling.BOX)
        own = corrupt(small, name, 4, np.random.default_rng(1))
        assert change(blurred, own) < 0.25 * change(small, own), name


def test_large_images_are_shrunk_to_224_pixels():
    assert shrink(Image.new("RGB", (896, 448))).size == (448, 224)
    assert shrink(Image.new("RGB", (64, 300))).size == (64, 300)


def test_unknown_names_and_severities_are_one_line():
    with pytest.raises(InputError, match=r"unknown corruption 'snoww'.*snow"):
        corrupt(picture(32), "snoww", 1, np.random.default_rng(0))
    with pytest.raises(InputError, match="severity of snow: found 6, expected 1 to 5"):
        corrupt(picture(32), "snow", 6, np.random.default_rng(0))


def test_noise_depends_on_the_image_alone_and_the_global_state_is_left(monkeypatch, tmp_path):
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path))
    one, other = picture(32), picture(32).rotate(90)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    found = corrupt_images([one, other], "gaussian_noise", [2])[2]
    (alone,) = corrupt_images([other], "gaussian_noise", [2])[2]
    assert np.array_equal(found[1], alone)
    noise = [
        np.asarray(image, int) - np.asarray(clean, int)
        for image, clean in zip(found, (one, other), strict=True)
    ]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.15
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_corrupted_images_come_from_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path))
    images = [picture(32), picture(40)]
    made = corrupt_images(images, "fog", [1, 5])
    monkeypatch.setattr(corrupted, "corrupt", None)
    again = corrupt_images(images, "fog", [1, 5])
    for severity in (1, 5):
        for one, other in zip(made[severity], again[severity], strict=True):
            assert np.array_equal(one, other)
    with pytest.raises(TypeError):
        corrupt_images(images, "fog", [2])
