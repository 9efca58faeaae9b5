"""Shifts of the shapes world: the scenes of a test set with a factor at values that no training image has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from harness.config import WORLD_SHIFTS
from harness.storage import unknown_name
from tasks.shapes import (
    IMAGE_SIZE,
    TEXTURES,
    Scene,
    SceneObject,
)
from tasks.unseen_patterns import (
    UNSEEN_BACKGROUNDS,
    UNSEEN_COLOURS,
    UNSEEN_TEXTURES,
)

SMALLER, LARGER = (5.0, 7.5), (21.0, 25.0)
"""Unseen radii in pixels, [smallest, largest): training has 8 to 20."""


def shift_scenes(scenes: Sequence[Scene], shift: str) -> list[Scene]:
    """Move one factor of every scene to an unseen value; all others, and the background's seed, stay.

    The shift ``combinations`` has scenes of its own (`tasks.shape_tasks`).

    Parameters
    ----------
    scenes : sequence of Scene
    shift : str
        "textures", "colours", "backgrounds" or "sizes".
    """
    if shift not in _SHIFTS:
        raise unknown_name("shift of the shapes world", shift, WORLD_SHIFTS)
    # a scene's seed is its own, so equal scenes are shifted alike
    return [_SHIFTS[shift](scene, np.random.default_rng((scene.seed, 1))) for scene in scenes]


def _unseen_textures(scene: Scene, rng: np.random.Generator) -> Scene:
    chosen = len(TEXTURES) + rng.integers(len(UNSEEN_TEXTURES), size=len(scene.objects))
    return _change(scene, [{"texture": int(texture)} for texture in chosen])


def _unseen_colours(scene: Scene, rng: np.random.Generator) -> Scene:
    colours = np.array(list(UNSEEN_COLOURS.values()))
    tints = colours[rng.integers(len(colours), size=len(scene.objects))]
    tints = np.clip(tints + rng.normal(0, 0.03, tints.shape), 0, 1)
    return _change(scene, [{"tint": tuple(map(float, tint))} for tint in tints])


def _unseen_backgrounds(scene: Scene, rng: np.random.Generator) -> Scene:
    return replace(scene, background=UNSEEN_BACKGROUNDS[rng.integers(len(UNSEEN_BACKGROUNDS))])


def _unseen_sizes(scene: Scene, rng: np.random.Generator) -> Scene:
    changes = []
    for item in scene.objects:
        # larger ones would overlap where there are several
        larger = len(scene.objects) == 1 and rng.random() < 0.5
        radius = float(rng.uniform(*(LARGER if larger else SMALLER)))
        reach = min(radius * item.extent / item.radius * 0.9, IMAGE_SIZE / 2 - 2)
        x, y = (float(np.clip(place, reach, IMAGE_SIZE - reach)) for place in (item.x, item.y))
        changes.append({"radius": radius, "x": x, "y": y})
    return _change(scene, changes)


def _change(scene: Scene, changes: Sequence[Mapping[str, object]]) -> Scene:
    """Change fields of every object, in order."""
    objects: list[SceneObject] = [
        replace(item, **change)  # type: ignore[arg-type]
        for item, change in zip(scene.objects, changes, strict=True)
    ]
    return replace(scene, objects=tuple(objects))


_SHIFTS: dict[str, Callable[[Scene, np.random.Generator], Scene]] = {
    "textures": _unseen_textures,
    "colours": _unseen_colours,
    "backgrounds": _unseen_backgrounds,
    "sizes": _unseen_sizes,
}
