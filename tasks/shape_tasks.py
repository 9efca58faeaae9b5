"""Tasks of the shapes world: shape, texture or number of objects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np
from PIL import Image

from harness.config import EmbeddedTaskConfig
from harness.storage import content_hash, hash_pixels
from tasks.shapes import (
    SHAPES,
    TEXTURES,
    Scene,
    label_scenes,
    render_scenes,
    sample_scene,
)
from tasks.shift import Shift
from tasks.subsets import draw_per_class
from tasks.task import (
    Task,
    build_task,
)
from tasks.world_shifts import shift_scenes

COUNTS = ("one", "two", "three")
_FACTORS = {"shapes": "shape", "textures": "texture", "counts": "count"}
_CLASSES = {"shapes": SHAPES, "textures": TEXTURES, "counts": COUNTS}
# in the words of the captions, which never give the number
_TEMPLATES = {
    "shapes": ("a {}", "an {}"),
    "textures": tuple(f"a {{}} {shape}" for shape in SHAPES),
    "counts": (),
}
# the pretraining worlds are 0, 1 and 2; tasks start beyond their seeds
FIRST_WORLD = 5000


@lru_cache(maxsize=8)  # of runs in one process, many ask for the same task
def build(config: EmbeddedTaskConfig) -> Task:
    """Draw a task: `shapes` and `textures` with one object, `counts` with one to three.

    Parameters
    ----------
    config : EmbeddedTaskConfig
        Its name is one of the three. Sizes of None are 1,000 and 500 images; the seed selects the world;
        images are rendered at 64 pixels and enlarged from there.
    """
    task = config.name
    parts = []
    for split in (0, 1):
        scenes = draw_scenes(config, split)
        labels = label_scenes(scenes)[_FACTORS[task]]
        if config.n_per_class is not None and split == 0:
            rows = draw_per_class(labels, config.n_per_class, None, _CLASSES[task])
            scenes, labels = [scenes[row] for row in rows], labels[rows]
        parts.append((_render(scenes, config), labels))
    return build_task(task, parts[0], parts[1], _CLASSES[task], _TEMPLATES[task], config.leaks)


def draw_scenes(config: EmbeddedTaskConfig, split: int, novel: bool | None = None) -> list[Scene]:
    """Draw the scenes of the training (0) or test split (1); `novel`: none that pretraining saw."""
    size = (config.n_train or 1000, config.n_test or 500)[split]
    novel = False if novel is None and config.held_out else novel
    # `shapes` and `textures` share their scenes, so their features are computed once
    draw = partial(sample_scene, FIRST_WORLD + 2 * config.seed + split, novel=novel)
    counts = [index % 3 + 1 if config.name == "counts" else 1 for index in range(size)]
    return [draw(index, n_objects=count) for index, count in enumerate(counts)]


def build_shift(config: EmbeddedTaskConfig, shift: str) -> Shift:
    """Build the test images of a task under a shift of the shapes world.

    They are the scenes of the test images with one factor at unseen values, or, for "combinations", scenes
    of combinations of shape, colour and texture that the mini backbones' pretraining left out.
    """
    if shift == "combinations":
        scenes = draw_scenes(config, 1, novel=True)
    else:
        scenes = shift_scenes(draw_scenes(config, 1), shift)
    labels = label_scenes(scenes)[_FACTORS[config.name]]
    images = _render(scenes, config)
    hashes = [hash_pixels(image) for image in images]
    return Shift(shift, images, labels, np.arange(len(images)), content_hash(hashes, labels))


def _render(scenes: Sequence[Scene], config: EmbeddedTaskConfig) -> list[Image.Image]:
    images = [Image.fromarray(pixels) for pixels in render_scenes(scenes)]
    if config.image_size == images[0].width:
        return images
    edges = (config.image_size, config.image_size)
    return [image.resize(edges, Image.Resampling.BICUBIC) for image in images]
