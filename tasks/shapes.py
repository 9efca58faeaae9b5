"""The shapes world: scenes of textured objects on natural noise, drawn from a seed, with all factors known.

A scene has one to three objects on a background with the 1/f amplitude spectrum of natural images (Field
1987, J. Opt. Soc. Am. A 4:2379). Each object has a shape, colour, texture, size and position. Discriminating
scenes requires edges, then textures and outlines, then objects and relations. The world provides pretraining
data for the mini backbones, stimuli for the simulated subject, and a set of probes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw
from scipy import fft

from tasks.unseen_patterns import (
    UNSEEN_TEXTURES,
    unseen_background,
    unseen_texture,
)

IMAGE_SIZE = 64
SHAPES = (
    "circle",
    "square",
    "triangle",
    "diamond",
    "star",
    "cross",
    "ring",
    "crescent",
    "heart",
    "arrow",
    "hourglass",
    "bolt",
)
COLOURS = {
    "red": (0.86, 0.16, 0.14),
    "orange": (0.95, 0.52, 0.10),
    "yellow": (0.95, 0.88, 0.20),
    "green": (0.20, 0.68, 0.24),
    "cyan": (0.20, 0.78, 0.82),
    "blue": (0.16, 0.28, 0.86),
    "purple": (0.58, 0.20, 0.72),
    "white": (0.96, 0.96, 0.96),
}
COLOUR_NAMES = tuple(COLOURS)
TEXTURES = ("plain", "striped", "dotted", "checkered", "wavy", "speckled")
# radius of the disc of equal area, in pixels: [smallest, largest)
SIZES = {"small": (8.0, 11.0), "medium": (11.0, 15.0), "large": (15.0, 20.0)}
RELATIONS = ("left of", "right of", "above", "below")
_OVERSAMPLING = 4


@dataclass(frozen=True)
class SceneObject:
    """One object: indices into `SHAPES`, `COLOUR_NAMES`, `TEXTURES`; geometry in pixels and radians.

    Textures beyond `TEXTURES` are those that only shifts have (`tasks.unseen_patterns`). `radius` is that of
    the disc of equal area; `x` runs rightwards, `y` downwards; `tint` is the rendered colour (RGB, 0 to 1);
    `seed` fixes texture phase and grain.
    """

    shape: int
    colour: int
    texture: int
    radius: float
    x: float
    y: float
    angle: float
    tint: tuple[float, float, float]
    seed: int

    @property
    def size(self) -> str:
        """Name of the size class."""
        return next((name for name, (_, top) in SIZES.items() if self.radius < top), "large")

    @property
    def extent(self) -> float:
        """Distance from the centre to the farthest point of the outline, in pixels."""
        return self.radius * _EXTENTS[self.shape]


@dataclass(frozen=True)
class Scene:
    """Objects over a background; `seed` fixes the background, "natural" or one of `UNSEEN_BACKGROUNDS`."""

    objects: tuple[SceneObject, ...]
    seed: int
    background: str = "natural"

    @property
    def main(self) -> SceneObject:
        """The object of largest area."""
        return max(self.objects, key=lambda item: item.radius)

    @property
    def caption(self) -> str:
        """Full caption, e.g. "a large red striped triangle left of a small blue dotted circle"."""
        return caption_scene(self)


def is_novel(shape: int, colour: int, texture: int) -> bool:
    """Whether a combination (one in eight) is held out of pretraining, for zero-shot on unseen captions."""
    return (shape + 3 * colour + 5 * texture) % 8 == 0


def sample_scene(
    seed: int, index: int, n_objects: int | None = None, novel: bool | None = None, shape: int | None = None
) -> Scene:
    """Draw scene `index` of the world `seed`; the same arguments give the same scene.

    Parameters
    ----------
    seed, index : int
        The world, and the index of the scene in it.
    n_objects : int, optional
        One to three; by default drawn uniformly.
    novel : bool, optional
        True: only held-out combinations; False: none of them; None: any.
    shape : int, optional
        Shape of the first object; by default drawn uniformly.
    """
    rng = np.random.default_rng((seed, index))
    count = n_objects if n_objects is not None else int(rng.integers(1, 4))
    objects: list[SceneObject] = []
    while len(objects) < count:
        placed = None
        for attempt in range(40):
            candidate = _sample_object(
                rng, count, novel, shape if not objects else None, shrink=attempt // 10
            )
            if all(_apart(candidate, other) for other in objects):
                placed = candidate
                break
        if placed is None:  # no room: start the scene over
            objects.clear()
        else:
            objects.append(placed)
    return Scene(tuple(objects), int(rng.integers(2**31)))


def sample_scenes(
    seed: int, indices: Iterable[int], n_objects: int | None = None, novel: bool | None = None
) -> list[Scene]:
    """Draw several scenes of one world (`sample_scene`)."""
    return [sample_scene(seed, int(index), n_objects, novel) for index in indices]


def _sample_object(
    rng: np.random.Generator, count: int, novel: bool | None, shape: int | None, shrink: int
) -> SceneObject:
    while True:
        chosen = int(rng.integers(len(SHAPES))) if shape is None else shape
        colour, texture = int(rng.integers(len(COLOURS))), int(rng.integers(len(TEXTURES)))
        if novel is None or is_novel(chosen, colour, texture) == novel:
            break
    sizes = list(SIZES.values())[: 3 if count == 1 else max(1, 3 - (count > 2) - shrink)]
    radius = float(rng.uniform(*sizes[rng.integers(len(sizes))]))
    reach = min(radius * _EXTENTS[chosen] * 0.9, IMAGE_SIZE / 2 - 2)
    x, y = rng.uniform(reach, IMAGE_SIZE - reach, 2)
    tint = np.clip(np.array(COLOURS[COLOUR_NAMES[colour]]) + rng.normal(0, 0.03, 3), 0, 1)
    red, green, blue = (float(value) for value in tint)
    angle = float(rng.uniform(-0.35, 0.35))
    return SceneObject(
        chosen,
        colour,
        texture,
        radius,
        float(x),
        float(y),
        angle,
        (red, green, blue),
        int(rng.integers(2**31)),
    )


def _apart(one: SceneObject, other: SceneObject) -> bool:
    distance = float(np.hypot(one.x - other.x, one.y - other.y))
    return distance > 0.85 * (one.extent + other.extent)


def caption_scene(scene: Scene, rng: np.random.Generator | None = None, keep: float = 0.5) -> str:
    """Describe a scene in a sentence.

    Parameters
    ----------
    scene : Scene
    rng : Generator, optional
        With it, each adjective is kept with probability `keep`, as people omit some; without it, all are.
    keep : float
        Probability of each of size, colour and texture.
    """
    phrases = [_name_object(item, rng, keep) for item in scene.objects]
    text = phrases[0]
    if len(phrases) > 1:
        first, second = scene.objects[:2]
        across, down = first.x - second.x, first.y - second.y
        horizontal = RELATIONS[0] if across < 0 else RELATIONS[1]
        vertical = RELATIONS[2] if down < 0 else RELATIONS[3]
        text += f" {horizontal if abs(across) > abs(down) else vertical} {phrases[1]}"
    if len(phrases) > 2:
        text += f" and {phrases[2]}"
    return text


def _name_object(item: SceneObject, rng: np.random.Generator | None, keep: float) -> str:
    adjectives = [item.size, COLOUR_NAMES[item.colour], TEXTURES[item.texture]]
    if rng is not None:
        adjectives = [word for word, said in zip(adjectives, rng.random(3) < keep, strict=True) if said]
    return with_article(" ".join([*adjectives, SHAPES[item.shape]]))


def with_article(phrase: str) -> str:
    """Put "a" or "an" before a phrase by its first letter, correct for every word of this world."""
    return f"{'an' if phrase.startswith(tuple('aeiou')) else 'a'} {phrase}"


def vocabulary() -> tuple[str, ...]:
    """All words of captions."""
    words = {"a", "an", "and", *SIZES, *COLOURS, *TEXTURES, *SHAPES}
    words.update(word for relation in RELATIONS for word in relation.split())
    return tuple(sorted(words))


def label_scenes(scenes: Sequence[Scene]) -> dict[str, Int[np.ndarray, " n_images"]]:
    """Class indices of the factors of the main object, and of the number of objects (0-based)."""
    return {
        "shape": np.array([scene.main.shape for scene in scenes], dtype=np.int64),
        "colour": np.array([scene.main.colour for scene in scenes], dtype=np.int64),
        "texture": np.array([scene.main.texture for scene in scenes], dtype=np.int64),
        "size": np.array([list(SIZES).index(scene.main.size) for scene in scenes], dtype=np.int64),
        "count": np.array([len(scene.objects) - 1 for scene in scenes], dtype=np.int64),
    }


def render_scenes(scenes: Sequence[Scene]) -> UInt8[np.ndarray, "n_images height width 3"]:
    """Render scenes as RGB images, 0 to 255."""
    images = np.empty((len(scenes), IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    for place, scene in enumerate(scenes):
        rng = np.random.default_rng(scene.seed)
        natural = scene.background == "natural"
        canvas = _paint_background(rng) if natural else unseen_background(scene.background, IMAGE_SIZE, rng)
        for item in scene.objects:
            _paint_object(canvas, item)
        images[place] = np.round(np.clip(canvas, 0, 1) * 255)
    return images


def _amplitude_spectrum(exponent: float) -> Float[np.ndarray, "height half_width"]:
    frequency = np.hypot(np.fft.fftfreq(IMAGE_SIZE)[:, None], np.fft.rfftfreq(IMAGE_SIZE)[None])
    frequency[0, 0] = np.inf  # no mean; it is drawn separately
    return (frequency**-exponent).astype(np.float32)


# log amplitude is linear in the exponent, so powers of this one give all others
_SPECTRUM = _amplitude_spectrum(1.0)


def _paint_background(rng: np.random.Generator) -> Float[np.ndarray, "height width 3"]:
    # shared luminance and weaker opponent channels, as in natural scenes
    shape = (3, *_SPECTRUM.shape)
    noise = rng.standard_normal((2, *shape), dtype=np.float32)
    # 1/f amplitude with exponents around 1, which vary between natural scenes
    spectrum = _SPECTRUM ** np.float32(rng.uniform(0.8, 1.3))
    field = fft.irfft2((noise[0] + 1j * noise[1]) * spectrum, s=(IMAGE_SIZE, IMAGE_SIZE))
    field /= field.std(axis=(1, 2), keepdims=True)
    contrast = rng.uniform(0.06, 0.16)
    luminance, red_green, blue_yellow = (
        field * np.array([1.0, 0.35, 0.35], np.float32)[:, None, None] * contrast
    )
    mean = rng.uniform(0.3, 0.6) + rng.normal(0, 0.04, 3)
    pixels = [luminance + red_green, luminance - red_green, luminance + blue_yellow]
    return np.stack(pixels, axis=-1) + mean.astype(np.float32)


def _paint_object(canvas: Float[np.ndarray, "height width 3"], item: SceneObject) -> None:
    reach = item.extent + 1
    left, right = max(0, int(item.x - reach)), min(IMAGE_SIZE, int(item.x + reach) + 2)
    top, bottom = max(0, int(item.y - reach)), min(IMAGE_SIZE, int(item.y + reach) + 2)
    turn = np.array([[np.cos(item.angle), np.sin(item.angle)], [-np.sin(item.angle), np.cos(item.angle)]])
    outline = (OUTLINES[item.shape] * item.radius) @ turn + (item.x - left, item.y - top)
    mask = Image.new("L", ((right - left) * _OVERSAMPLING, (bottom - top) * _OVERSAMPLING))
    ImageDraw.Draw(mask).polygon([tuple(point) for point in outline * _OVERSAMPLING], fill=255)
    alpha = np.asarray(mask.reduce(_OVERSAMPLING), dtype=np.float32)[..., None] / 255
    across, down = np.meshgrid(np.arange(left, right) - item.x, np.arange(top, bottom) - item.y)
    rng = np.random.default_rng(item.seed)
    name = (*TEXTURES, *UNSEEN_TEXTURES)[item.texture]
    paint = _texture if name in TEXTURES else unseen_texture
    ink = paint(name, across, down, rng)[..., None].astype(np.float32)
    tint = np.array(item.tint, np.float32)
    second = tint * np.float32(rng.uniform(0.3, 0.55))  # the dark colour of the pattern
    patch = canvas[top:bottom, left:right]
    patch += alpha * (tint + ink * (second - tint) - patch)


def _texture(
    name: str,
    across: Float[np.ndarray, "height width"],
    down: Float[np.ndarray, "height width"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "height width"]:
    """Darkness of each pixel of a pattern, 0 to 1."""
    if name == "plain":
        return np.zeros_like(across)
    if name == "speckled":  # grain without direction or order
        return (rng.random(across.shape) < 0.42).astype(np.float64)
    period, angle = rng.uniform(5.0, 7.0), rng.uniform(0, np.pi)
    if name in ("dotted", "checkered"):
        angle = rng.uniform(-0.3, 0.3)
    phase = rng.uniform(0, 2 * np.pi, 2)
    u = 2 * np.pi / period * (across * np.cos(angle) + down * np.sin(angle)) + phase[0]
    v = 2 * np.pi / period * (down * np.cos(angle) - across * np.sin(angle)) + phase[1]
    if name == "striped":
        pattern = np.sin(u)
    elif name == "dotted":
        pattern = np.cos(u) + np.cos(v) - 0.9
    elif name == "checkered":
        pattern = 2 * np.sin(u * 0.75) * np.sin(v * 0.75)
    else:  # wavy: stripes along a sine
        pattern = np.sin(u + 2.2 * np.sin(v * 0.6))
    return np.clip(0.5 + 1.5 * pattern, 0, 1)


def _outlines() -> list[Float[np.ndarray, "n_points 2"]]:
    """Closed, centred outlines with the area of the unit disc."""
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    disc = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    closed = np.concatenate([disc, disc[:1]])
    # the crescent is a disc minus a disc: outer arc one way, inner arc back
    outer = turn[(turn > 0.75) & (turn < 2 * np.pi - 0.75)]
    inner = np.linspace(2 * np.pi - 1.18, 1.18, 24)
    spikes = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)[:, None]
    corner = np.arange(10) * np.pi / 5 - np.pi / 2
    lobes = np.stack(
        [
            16 * np.sin(turn) ** 3,
            -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)),
        ],
        axis=1,
    )
    shapes: dict[str, np.ndarray] = {
        "circle": disc,
        "square": np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]),
        "triangle": np.array([(0, -1.1), (1.05, 0.75), (-1.05, 0.75)]),
        "diamond": np.array([(0, -1.35), (0.85, 0), (0, 1.35), (-0.85, 0)]),
        "star": np.stack([np.cos(corner), np.sin(corner)], axis=1) * spikes,
        "cross": np.array(
            [
                (-1, -3),
                (1, -3),
                (1, -1),
                (3, -1),
                (3, 1),
                (1, 1),
                (1, 3),
                (-1, 3),
                (-1, 1),
                (-3, 1),
                (-3, -1),
                (-1, -1),
            ]
        ),
        "ring": np.concatenate([closed, 0.55 * closed[::-1]]),
        "crescent": np.concatenate(
            [
                np.stack([np.cos(outer), np.sin(outer)], axis=1),
                np.stack([0.42 + 0.74 * np.cos(inner), 0.74 * np.sin(inner)], axis=1),
            ]
        ),
        "heart": lobes,
        "arrow": np.array([(-3, -1), (0.2, -1), (0.2, -2.6), (3.2, 0), (0.2, 2.6), (0.2, 1), (-3, 1)]),
        "hourglass": np.array([(-1, -1.3), (1, -1.3), (0.18, 0), (1, 1.3), (-1, 1.3), (-0.18, 0)]),
        "bolt": np.array([(0.5, -2.4), (-1.3, 0.35), (-0.1, 0.35), (-0.7, 2.4), (1.3, -0.5), (0.1, -0.5)]),
    }
    return [_normalise(shapes[name]) for name in SHAPES]


def _normalise(points: np.ndarray) -> Float[np.ndarray, "n_points 2"]:
    points = points - (points.min(axis=0) + points.max(axis=0)) / 2
    x, y = points.T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2  # shoelace formula
    return points * np.sqrt(np.pi / area)


OUTLINES = _outlines()
_EXTENTS = [float(np.hypot(*outline.T).max()) for outline in OUTLINES]
