"""Common corruptions of images: those of ImageNet-C (Hendrycks & Dietterich, ICLR 2019), at five severities.

Our own code, after the paper and its published constants, checked against the package
imagecorruptions-imaug (`docs/robustness.md`). ImageNet-C's constants hold for images of 224 pixels, so every
length in pixels (radii, displacements, widths) is multiplied by the image's shorter edge over 224. What acts
on single pixels, such as noise, pixelation and JPEG, is not, and is harsher on small images. Frost needs
photographs of frost and is left out.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy import ndimage
from scipy.signal import fftconvolve

from harness.storage import InputError, unknown_name

EDGE = 224
"""Shorter edge, in pixels, that the constants hold for; larger images are shrunk to it."""

Picture = Float[np.ndarray, "height width 3"]
_SUPERSAMPLING = 8
_GREY = np.array([0.299, 0.587, 0.114])


def corrupt(image: Image.Image, name: str, severity: int, rng: np.random.Generator) -> Image.Image:
    """Corrupt an upright RGB image.

    Parameters
    ----------
    image : PIL image
        If its shorter edge has more than 224 pixels, it is shrunk to 224 first (bicubic).
    name : str
        One of `harness.config.CORRUPTIONS`.
    severity : int
        1 to 5.
    rng : Generator
        The same state gives the same image.

    Returns
    -------
    PIL image
        RGB, of the size of the (shrunk) image.

    Raises
    ------
    InputError
        For an unknown corruption or severity.
    """
    if name not in _CORRUPTIONS:
        raise unknown_name("corruption", name, _CORRUPTIONS)
    if severity not in range(1, 6):
        raise InputError(f"severity of {name}: found {severity}, expected 1 to 5")
    pixels = np.asarray(shrink(image.convert("RGB")), dtype=np.float64) / 255
    function, constants = _CORRUPTIONS[name]
    found = function(pixels, constants[severity - 1], min(pixels.shape[:2]) / EDGE, rng)
    # cut off like ImageNet-C, not rounded
    return Image.fromarray((np.clip(found, 0, 1) * 255 + 1e-9).astype(np.uint8))


def shrink(image: Image.Image) -> Image.Image:
    """Shrink an image until its shorter edge has at most 224 pixels."""
    share = EDGE / min(image.size)
    if share >= 1:
        return image
    size = tuple(max(EDGE, round(edge * share)) for edge in image.size)
    return image.resize((size[0], size[1]), Image.Resampling.BICUBIC)


# --- noise


def _gaussian_noise(pixels: Picture, sd: float, scale: float, rng: np.random.Generator) -> Picture:
    return pixels + rng.normal(size=pixels.shape, scale=sd)


def _shot_noise(pixels: Picture, photons: int, scale: float, rng: np.random.Generator) -> Picture:
    return rng.poisson(pixels * photons) / photons


def _impulse_noise(pixels: Picture, share: float, scale: float, rng: np.random.Generator) -> Picture:
    hit, white = rng.random(pixels.shape) < share, rng.random(pixels.shape) < 0.5
    return np.where(hit, white.astype(float), pixels)


# --- blur


def _defocus_blur(pixels: Picture, radius: int, scale: float, rng: np.random.Generator) -> Picture:
    shown = radius * scale
    reach = math.ceil(shown)
    fine = (np.arange((2 * reach + 1) * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING - reach - 0.5
    # the share of every pixel that the disc covers
    inside = (np.hypot(fine[:, None], fine[None]) <= shown).astype(float)
    n = 2 * reach + 1
    kernel = inside.reshape(n, _SUPERSAMPLING, n, _SUPERSAMPLING).mean(axis=(1, 3))
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    return fftconvolve(padded, (kernel / kernel.sum())[:, :, None], mode="valid", axes=(0, 1))


def _glass_blur(
    pixels: Picture, constants: tuple[float, int, int], scale: float, rng: np.random.Generator
) -> Picture:
    sigma, reach, n_rounds = constants
    sigma, reach = sigma * scale, max(1, round(reach * scale))
    blurred = np.floor(_gaussian(pixels, sigma) * 255) / 255
    height, width = blurred.shape[:2]
    order = list(range(height * width))
    for _ in range(n_rounds):
        rows, columns = range(height - reach, reach, -1), range(width - reach, reach, -1)
        moves = rng.integers(-reach, reach, size=(len(rows), len(columns), 2))
        steps = (moves[..., 0] * width + moves[..., 1]).tolist()
        for row, of_row in zip(rows, steps, strict=True):
            for column, step in zip(columns, of_row, strict=True):
                # ImageNet-C's own code copies pixels where the paper says that it exchanges them
                order[row * width + column] = order[row * width + column + step]
    shuffled = blurred.reshape(-1, 3)[order].reshape(blurred.shape)
    return _gaussian(shuffled, sigma)


def _motion_blur(
    pixels: Picture, constants: tuple[int, float], scale: float, rng: np.random.Generator
) -> Picture:
    return _move(pixels, *constants, scale, rng.uniform(-45, 45))


def _move(pixels: np.ndarray, radius: int, sigma: float, scale: float, angle: float) -> np.ndarray:
    """Average an image over shifted copies of itself, with half a Gaussian of weights, borders repeated."""
    places = np.arange(2 * radius + 1)
    weights = np.exp(-(places**2) / (2 * sigma**2))
    direction = np.deg2rad(angle)
    height, width = pixels.shape[:2]
    found: dict[tuple[int, int], float] = {}
    for place, weight in zip(places, weights / weights.sum(), strict=True):
        down = -math.ceil(place * scale * math.sin(direction) - 0.5)
        right = -math.ceil(place * scale * math.cos(direction) - 0.5)
        if abs(down) >= height or abs(right) >= width:
            break
        found[down, right] = found.get((down, right), 0.0) + weight
    blurred = np.zeros_like(pixels, dtype=float)
    for (down, right), weight in found.items():
        rows = np.clip(np.arange(height) - down, 0, height - 1)
        columns = np.clip(np.arange(width) - right, 0, width - 1)
        blurred += weight * pixels[rows][:, columns]
    return blurred


def _zoom_blur(
    pixels: Picture, constants: tuple[float, float], scale: float, rng: np.random.Generator
) -> Picture:
    factors = np.arange(1, *constants)
    height, width = pixels.shape[:2]
    total = pixels.copy()
    for factor in factors:
        taller = (_zoom_matrix(height, factor) @ pixels.reshape(height, -1)).reshape(pixels.shape)
        total += _zoom_matrix(width, factor) @ taller
    return total / (len(factors) + 1)


def _zoom_matrix(edge: int, factor: float) -> Float[np.ndarray, "edge edge"]:
    """Weights of linear interpolation that enlarge the middle of an axis to the whole axis."""
    kept = math.ceil(edge / factor)
    enlarged = round(kept * factor)
    first = (edge - kept) // 2
    places = first + np.arange(edge) * (kept - 1) / max(enlarged - 1, 1)
    places = np.minimum(places, first + kept - 1)
    low = np.floor(places).astype(int)
    high, share = np.minimum(low + 1, edge - 1), places - low
    matrix = np.zeros((edge, edge))
    np.add.at(matrix, (np.arange(edge), low), 1 - share)
    np.add.at(matrix, (np.arange(edge), high), share)
    return matrix


def _gaussian(pixels: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(pixels, (sigma, sigma, 0), mode="nearest", truncate=4)


# --- weather


def _snow(pixels: Picture, constants: tuple[float, ...], scale: float, rng: np.random.Generator) -> Picture:
    mean, sd, zoom, threshold, radius, sigma, kept = constants
    height, width = pixels.shape[:2]
    layer = rng.normal(size=(height, width), loc=mean, scale=sd)
    # flakes have at least the size of a pixel
    zoom = max(1.0, zoom * scale)
    layer = _zoom_matrix(height, zoom) @ layer @ _zoom_matrix(width, zoom).T
    layer = np.clip(np.where(layer < threshold, 0, layer), 0, 1)
    layer = _move(layer, int(radius), sigma, scale, rng.uniform(-135, -45))[..., None]
    pale = np.maximum(pixels, (pixels @ _GREY)[..., None] * 1.5 + 0.5)
    return kept * pixels + (1 - kept) * pale + layer + np.rot90(layer, 2)


def _fog(pixels: Picture, constants: tuple[float, float], scale: float, rng: np.random.Generator) -> Picture:
    strength, decay = constants
    height, width = pixels.shape[:2]
    top = pixels.max()
    cloud = _plasma(max(height, width), decay, rng)[:height, :width, None]
    return (pixels + strength * cloud) * top / (top + strength)


def _plasma(edge: int, decay: float, rng: np.random.Generator) -> Float[np.ndarray, "size size"]:
    """Height map of the diamond-square algorithm, 0 to 1, with an edge of the next power of two."""
    size = 2 ** (edge - 1).bit_length()
    field = np.zeros((size, size))
    step, spread = size, 100.0

    def disturb(total: np.ndarray) -> np.ndarray:
        return total / 4 + spread * rng.uniform(-spread, spread, total.shape)

    while step >= 2:
        half = step // 2
        corners = field[::step, ::step]
        total = corners + np.roll(corners, -1, axis=0)
        field[half::step, half::step] = disturb(total + np.roll(total, -1, axis=1))
        middles = field[half::step, half::step]
        across = middles + np.roll(middles, 1, axis=0) + corners + np.roll(corners, -1, axis=1)
        field[::step, half::step] = disturb(across)
        down = middles + np.roll(middles, 1, axis=1) + corners + np.roll(corners, -1, axis=0)
        field[half::step, ::step] = disturb(down)
        step, spread = half, spread / decay
    field -= field.min()
    return field / max(field.max(), 1e-12)


def _brightness(pixels: Picture, added: float, scale: float, rng: np.random.Generator) -> Picture:
    """Add to the value of HSV, which keeps hue and saturation."""
    value = pixels.max(axis=2, keepdims=True)
    brighter = np.minimum(value + added, 1)
    return np.where(value > 0, pixels * brighter / np.where(value > 0, value, 1), brighter)


# --- digital


def _contrast(pixels: Picture, share: float, scale: float, rng: np.random.Generator) -> Picture:
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    return (pixels - mean) * share + mean


def _elastic_transform(pixels: Picture, alpha: float, scale: float, rng: np.random.Generator) -> Picture:
    height, width = pixels.shape[:2]
    sigma, reach = (height * 0.01, width * 0.01), height * 0.005
    right, down = (
        alpha
        * ndimage.gaussian_filter(
            rng.uniform(-reach, reach, (height, width)), sigma, mode="reflect", truncate=3
        )
        for _ in range(2)
    )
    rows, columns = np.mgrid[:height, :width]
    places = [rows + down, columns + right]
    channels = [
        ndimage.map_coordinates(channel, places, order=1, mode="reflect")
        for channel in pixels.transpose(2, 0, 1)
    ]
    return np.stack(channels, axis=2)


def _pixelate(pixels: Picture, share: float, scale: float, rng: np.random.Generator) -> Picture:
    image = _to_image(pixels)
    small = (max(1, int(image.width * share)), max(1, int(image.height * share)))
    coarse = image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)
    return np.asarray(coarse, dtype=float) / 255


def _jpeg_compression(pixels: Picture, quality: int, scale: float, rng: np.random.Generator) -> Picture:
    file = io.BytesIO()
    _to_image(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), dtype=float) / 255


def _to_image(pixels: Picture) -> Image.Image:
    return Image.fromarray(np.round(pixels * 255).astype(np.uint8))


# the constants of ImageNet-C, by severity
_CORRUPTIONS: dict[str, tuple[Callable[[Picture, Any, float, np.random.Generator], Picture], list[Any]]] = {
    "gaussian_noise": (_gaussian_noise, [0.08, 0.12, 0.18, 0.26, 0.38]),
    "shot_noise": (_shot_noise, [60, 25, 12, 5, 3]),
    "impulse_noise": (_impulse_noise, [0.03, 0.06, 0.09, 0.17, 0.27]),
    "defocus_blur": (_defocus_blur, [3, 4, 6, 8, 10]),
    "glass_blur": (_glass_blur, [(0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)]),
    "motion_blur": (_motion_blur, [(10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)]),
    "zoom_blur": (_zoom_blur, [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)]),
    "snow": (
        _snow,
        [
            (0.1, 0.3, 3.0, 0.5, 10.0, 4.0, 0.8),
            (0.2, 0.3, 2.0, 0.5, 12.0, 4.0, 0.7),
            (0.55, 0.3, 4.0, 0.9, 12.0, 8.0, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12.0, 8.0, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12.0, 12.0, 0.55),
        ],
    ),
    "fog": (_fog, [(1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)]),
    "brightness": (_brightness, [0.1, 0.2, 0.3, 0.4, 0.5]),
    "contrast": (_contrast, [0.4, 0.3, 0.2, 0.1, 0.05]),
    # as imagecorruptions has them, in shares of the image's edge
    "elastic_transform": (_elastic_transform, [12.5, 16.25, 21.25, 25.0, 30.0]),
    "pixelate": (_pixelate, [0.6, 0.5, 0.4, 0.3, 0.25]),
    "jpeg_compression": (_jpeg_compression, [25, 18, 15, 10, 7]),
}
