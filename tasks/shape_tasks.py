"""Tasks of the shapes world: shape, texture or number of objects."""

from __future__ import annotations

from functools import partial

from PIL import Image

from harness.config import EmbeddedTaskConfig
from tasks.shapes import (
    SHAPES,
    TEXTURES,
    label_scenes,
    render_scenes,
    sample_scene,
)
from tasks.subsets import draw_per_class
from tasks.task import (
    Task,
    build_task,
)

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
    for split, (size, default) in enumerate(((config.n_train, 1000), (config.n_test, 500))):
        # `shapes` and `textures` share their scenes, so their features are computed once
        draw = partial(sample_scene, FIRST_WORLD + 2 * config.seed + split)
        counts = [index % 3 + 1 if task == "counts" else 1 for index in range(size or default)]
        scenes = [draw(index, n_objects=count) for index, count in enumerate(counts)]
        labels = label_scenes(scenes)[_FACTORS[task]]
        if config.n_per_class is not None and split == 0:
            rows = draw_per_class(labels, config.n_per_class, None, _CLASSES[task])
            scenes, labels = [scenes[row] for row in rows], labels[rows]
        images = [Image.fromarray(pixels) for pixels in render_scenes(scenes)]
        if config.image_size != images[0].width:
            edges = (config.image_size, config.image_size)
            images = [image.resize(edges, Image.Resampling.BICUBIC) for image in images]
        parts.append((images, labels))
    return build_task(task, parts[0], parts[1], _CLASSES[task], _TEMPLATES[task], config.leaks)
