"""Tasks out of the shapes world: what is it, what is it made of, how many are there."""

from __future__ import annotations

from functools import partial

from PIL import Image

from tasks.shapes import SHAPES, TEXTURES, label_scenes, render_scenes, sample_scene
from tasks.task import Task, build_task

COUNTS = ("one", "two", "three")
_FACTORS = {"shapes": "shape", "textures": "texture", "counts": "count"}
_CLASSES = {"shapes": SHAPES, "textures": TEXTURES, "counts": COUNTS}
# in the words of the captions, which never say how many there are
_TEMPLATES = {
    "shapes": ("a {}", "an {}"),
    "textures": tuple(f"a {{}} {shape}" for shape in SHAPES),
    "counts": (),
}
# the pretraining worlds are 0, 1 and 2; these begin where no seed of theirs is
FIRST_WORLD = 5000


def build(task: str, n_train: int | None, n_test: int | None, seed: int, image_size: int) -> Task:
    """Draw a task: `shapes` and `textures` of single objects, `counts` of one to three.

    Parameters
    ----------
    task : {"shapes", "textures", "counts"}
    n_train, n_test : int or None
        Images of each split; None: 1,000 and 500.
    seed : int
        Of the world.
    image_size : int
        Edge of the images, pixels; drawn at 64 and enlarged from there.
    """
    parts = []
    for split, (size, default) in enumerate(((n_train, 1000), (n_test, 500))):
        # `shapes` and `textures` share their scenes, so a backbone has to look at them once only
        draw = partial(sample_scene, FIRST_WORLD + 2 * seed + split)
        counts = [index % 3 + 1 if task == "counts" else 1 for index in range(size or default)]
        scenes = [draw(index, n_objects=count) for index, count in enumerate(counts)]
        images = [Image.fromarray(pixels) for pixels in render_scenes(scenes)]
        if image_size != images[0].width:
            images = [image.resize((image_size, image_size), Image.Resampling.BICUBIC) for image in images]
        parts.append((images, label_scenes(scenes)[_FACTORS[task]]))
    return build_task(task, parts[0], parts[1], _CLASSES[task], _TEMPLATES[task])
