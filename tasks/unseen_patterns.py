"""Textures, colours and backgrounds that the shapes world never shows in training: for its shifts only."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

UNSEEN_TEXTURES = ("ringed", "zigzag", "bricked")
UNSEEN_COLOURS = {
    "pink": (0.96, 0.55, 0.74),
    "brown": (0.44, 0.27, 0.12),
    "olive": (0.45, 0.47, 0.10),
    "grey": (0.50, 0.50, 0.50),
}
UNSEEN_BACKGROUNDS = ("gradient", "grating", "tiles", "grain")
PERIOD = (5.0, 7.0)
"""Of unseen textures, pixels: that of the others."""


def unseen_texture(
    name: str,
    across: Float[np.ndarray, "height width"],
    down: Float[np.ndarray, "height width"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "height width"]:
    """Darkness of each pixel of an unseen texture, 0 to 1; places are in pixels from the object's centre."""
    period, phase = rng.uniform(*PERIOD), rng.uniform(0, 2 * np.pi)
    angle = rng.uniform(0, np.pi)
    u = (across * np.cos(angle) + down * np.sin(angle)) / period
    v = (down * np.cos(angle) - across * np.sin(angle)) / period
    if name == "ringed":
        pattern = np.sin(2 * np.pi * np.hypot(u, v) + phase)
    elif name == "zigzag":
        pattern = np.sin(2 * np.pi * (u + 0.8 * np.abs(v % 2 - 1)) + phase)
    else:  # bricked: thin dark joints, every second row set off by half a brick
        row = np.floor(1.4 * v)
        joints = np.minimum(np.abs((1.4 * v) % 1 - 0.5), np.abs((0.7 * u + 0.5 * (row % 2)) % 1 - 0.5))
        pattern = 6 * (0.12 - joints)
    return np.clip(0.5 + 1.5 * pattern, 0, 1)


def unseen_background(name: str, edge: int, rng: np.random.Generator) -> Float[np.ndarray, "edge edge 3"]:
    """Paint an unseen background [edge, edge, 3], of the mean and contrast of the others, about 0 to 1."""
    contrast, mean = rng.uniform(0.06, 0.16), rng.uniform(0.3, 0.6) + rng.normal(0, 0.04, 3)
    down, across = np.mgrid[:edge, :edge] / edge
    angle, phase = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
    along = across * np.cos(angle) + down * np.sin(angle)
    if name == "gradient":
        field = along
    elif name == "grating":
        field = np.sin(2 * np.pi * rng.uniform(4, 8) * along + phase)
    elif name == "tiles":
        n = int(rng.integers(5, 10))
        field = (np.floor(n * across) + np.floor(n * down)) % 2
    else:  # grain: white noise, without the 1/f spectrum
        field = rng.standard_normal((edge, edge))
    field = (field - field.mean()) / field.std()
    weights = 1 + 0.5 * rng.standard_normal(3)
    return (contrast * field[..., None] * weights + mean).astype(np.float32)
