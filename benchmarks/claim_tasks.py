"""Tasks that `claim_mini.py` fine-tunes on: signs that no pretraining has shown."""

from __future__ import annotations

import numpy as np
from PIL import Image

import harness

N_SIGNS, CELLS, SIZE, EDGE = 10, 5, 10, 64  # cells of 10 pixels, images of 64
JITTER = 4  # of a sign's place, pixels
NOISE = 0.08  # of pixels, standard deviation


def glyphs(signs: int, n_train: int = 600, n_test: int = 200, seed: int = 0) -> harness.Task:
    """Draw signs of 5 × 5 cells about the middle, in two random greys, with noise.

    Parameters
    ----------
    signs : int
        Seed of the ten signs: each number is another task.
    n_train, n_test, seed : int
        Numbers of images, and the seed of their places, greys and noise.
    """
    patterns = np.random.default_rng(signs).random((N_SIGNS, CELLS, CELLS)) < 0.5

    def draw(count: int, split: int) -> tuple[list[Image.Image], np.ndarray]:
        rng = np.random.default_rng((seed, split))
        labels = np.arange(count) % N_SIGNS
        return [_draw_sign(patterns[label], rng) for label in labels], labels

    names = [f"sign {number}" for number in range(N_SIGNS)]
    return harness.Task.from_images(draw(n_train, 0), draw(n_test, 1), names)


def _draw_sign(sign: np.ndarray, rng: np.random.Generator) -> Image.Image:
    ink = np.kron(sign, np.ones((SIZE, SIZE)))
    top, left = (EDGE - len(ink)) // 2 + rng.integers(-JITTER, JITTER + 1, 2)
    paper, dark = rng.uniform(0.6, 1.0), rng.uniform(0.0, 0.4)
    picture = np.full((EDGE, EDGE), paper)
    picture[top : top + len(ink), left : left + len(ink)] += ink * (dark - paper)
    picture += rng.normal(0, NOISE, picture.shape)
    grey = (picture.clip(0, 1) * 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
