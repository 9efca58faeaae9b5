"""The stages of the simulated subject: from images to noise-free responses of early, middle and high areas.

Voxels have random weights that vary smoothly along the cortex; a stage turns them into tuning. Features are
standardised by means and deviations over separate reference scenes, so tuning depends neither on the stimuli
nor on the other voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from harness.brains.simulated.gabor import (
    N_HUES,
    N_ORIENTATIONS,
    N_TEXTURES,
    WAVELENGTHS,
    FeatureMaps,
    Maps,
    halve,
    measure_contrast,
    measure_features,
)
from harness.brains.simulated.scene_objects import (
    CONTENT_FIELDS,
    N_DESCRIPTORS,
    Objects,
    count_objects,
    judge_objects,
    see_outlines,
    tabulate_objects,
)
from tasks import (
    IMAGE_SIZE,
    Scene,
    render_scenes,
    sample_scenes,
)

REFERENCE_WORLD = 999  # seed of the reference scenes, the same for every subject
N_REFERENCE = 128
FAINT = 1e-4  # a feature with a smaller standard deviation over the reference counts as absent
# weight of each kind of feature, in standard deviations of its part of the response
MIDDLE_MIXTURES: dict[str, dict[str, float]] = {
    "V4": {"curvature": 0.5, "texture": 0.6, "colour": 0.6, "outline": 0.0},
    "V8": {"curvature": 0.2, "texture": 0.5, "colour": 0.8, "outline": 0.0},
    "LO": {"curvature": 0.6, "texture": 0.0, "colour": 0.0, "outline": 0.8},
    "PIT": {"curvature": 0.4, "texture": 0.3, "colour": 0.0, "outline": 0.8},
}
HIGH_MIXTURES: dict[str, dict[str, float]] = {
    "FFC": {"shape": 0.9, "colour": 0.2, "texture": 0.2, "conjunction": 0.3, "number": 0.0},
    "VVC": {"shape": 0.7, "colour": 0.3, "texture": 0.5, "conjunction": 0.4, "number": 0.2},
    "VMV": {"shape": 0.5, "colour": 0.4, "texture": 0.7, "conjunction": 0.3, "number": 0.3},
    "PHA": {"shape": 0.5, "colour": 0.2, "texture": 0.5, "conjunction": 0.3, "number": 0.6},
}


@dataclass(frozen=True)
class Voxels:
    """Voxels of one stage.

    Attributes
    ----------
    region : str array [n_voxels]
    place : float32 array [n_voxels, 2]
        Centres of receptive fields, -1 to 1: x rightwards, y downwards.
    size : float32 array [n_voxels]
        Standard deviations of receptive fields, in half widths of the image.
    fields : float32 array [n_voxels, n_fields]
        Random weights, each standard normal and smooth along the cortex.
    """

    region: np.ndarray
    place: Float[np.ndarray, "n_voxels 2"]
    size: Float[np.ndarray, " n_voxels"]
    fields: Float[np.ndarray, "n_voxels n_fields"]


@dataclass(frozen=True)
class View:
    """Images as input to the stages: maps of local features, and objects, None for unlabelled images."""

    features: FeatureMaps
    objects: Objects | None


def look_at(scenes: Sequence[Scene], pixels: UInt8[np.ndarray, "n_images height width 3"]) -> View:
    """View of rendered scenes."""
    return View(measure_features(pixels), tabulate_objects(scenes))


def look_at_images(pixels: UInt8[np.ndarray, "n_images height width 3"]) -> View:
    """View of unlabelled images."""
    return View(measure_features(pixels), None)


def look_at_reference() -> View:
    """View of the reference scenes."""
    scenes = sample_scenes(REFERENCE_WORLD, range(N_REFERENCE))
    return look_at(scenes, render_scenes(scenes))


class Stage(Protocol):
    """Voxels of one stage with their tuning."""

    n_fields: ClassVar[int]

    def __init__(self, voxels: Voxels, reference: View) -> None: ...

    def respond(self, view: View) -> Float[np.ndarray, "n_images n_voxels"]:
        """Noise-free responses to each image, in arbitrary units."""


class EarlyStage:
    """V1, V2, V3: energy at one orientation and one spatial frequency in a small receptive field.

    Orientation tuning is a von Mises curve (half width at half height about 30°), frequency tuning a Gaussian
    over octaves. Preferred wavelengths grow with the receptive field.
    """

    n_fields: ClassVar[int] = 3  # two for orientation, an angle; one for frequency

    def __init__(self, voxels: Voxels, reference: View) -> None:
        del reference
        self.window = receptive_fields(voxels.place, voxels.size, IMAGE_SIZE // 2)
        preferred = np.arctan2(voxels.fields[:, 1], voxels.fields[:, 0])  # twice the angle
        centres = 2 * np.pi * np.arange(N_ORIENTATIONS) / N_ORIENTATIONS
        orientation = np.exp(1.4 * (np.cos(centres - preferred[:, None]) - 1))
        # preferred wavelength: 5 pixels for a field of 0.1 (3 pixels), 10 for one of 0.4
        octave = np.log2(5) + 0.5 * np.log2(voxels.size / 0.1) + 0.4 * voxels.fields[:, 2]
        frequency = np.exp(-((np.log2(WAVELENGTHS) - octave[:, None]) ** 2) / (2 * 0.6**2))
        weights = frequency[:, :, None] * orientation[:, None, :]
        self.weights = weights.reshape(len(weights), -1).T.astype(np.float32)

    def respond(self, view: View) -> Float[np.ndarray, "n_images n_voxels"]:
        """Weighted sum of pooled energies."""
        return np.einsum("icv,cv->iv", pool(view.features.energy, self.window), self.weights)


class MiddleStage:
    """V4, V8, LO, PIT: curvature, texture, colour and outlines of objects in larger receptive fields.

    For each kind a voxel has a random direction in the space of standardised features. In unlabelled images,
    centre–surround contrast of orientation, scale or colour replaces outlines (`measure_contrast`): lateral
    occipital areas respond to figures defined by any cue (Grill-Spector et al. 1998, Neuron 21:191) and to
    second-order orientation (Larsson et al. 2006, J. Neurophysiol. 95:862).
    """

    channels: ClassVar[dict[str, int]] = {
        "curvature": 2 * N_ORIENTATIONS,
        "texture": N_TEXTURES,
        "colour": N_HUES,
        "outline": N_DESCRIPTORS,
    }
    n_fields: ClassVar[int] = sum(channels.values())

    def __init__(self, voxels: Voxels, reference: View) -> None:
        self.voxels = voxels
        self.window = receptive_fields(voxels.place, voxels.size, IMAGE_SIZE // 4)
        mixtures = [MIDDLE_MIXTURES[name] for name in voxels.region]
        ends = np.cumsum(list(self.channels.values()))[:-1]
        directions = dict(zip(self.channels, np.split(voxels.fields.T, ends), strict=True))
        self.mean: dict[str, np.ndarray] = {}
        self.weights: dict[str, np.ndarray] = {}
        for kind, seen in self._see(reference).items():
            self.mean[kind] = seen.mean(axis=0)
            weights = divide_where_seen(directions[kind], seen.std(axis=0))
            mixture = np.array([parts[kind] for parts in mixtures])
            part = np.einsum("icv,cv->iv", seen, weights)
            self.weights[kind] = divide_where_seen(weights * mixture, part.std(axis=0)).astype(np.float32)

    def _see(self, view: View) -> dict[str, Float[np.ndarray, "n_images n_channels n_voxels"]]:
        kinds = ("curvature", "texture", "colour")
        seen = {kind: pool(halve(getattr(view.features, kind)), self.window) for kind in kinds}
        if view.objects is None:
            return seen | {"outline": pool(halve(measure_contrast(view.features)), self.window)}
        return seen | {"outline": see_outlines(view.objects, self.voxels.place, self.voxels.size)}

    def respond(self, view: View) -> Float[np.ndarray, "n_images n_voxels"]:
        """Sum of the responses to all kinds of features."""
        parts = [
            np.einsum("icv,cv->iv", seen - self.mean[kind], self.weights[kind])
            for kind, seen in self._see(view).items()
        ]
        return np.sum(parts, axis=0)


class HighStage:
    """FFC, VVC, VMV, PHA: identity and number of objects, independent of position."""

    n_fields: ClassVar[int] = CONTENT_FIELDS

    def __init__(self, voxels: Voxels, reference: View) -> None:
        self.voxels = voxels
        kinds = next(iter(HIGH_MIXTURES.values()))
        self.mixture = {
            kind: np.array([HIGH_MIXTURES[r][kind] for r in voxels.region], np.float32) for kind in kinds
        }
        self.scale = [part.std(axis=0) for part in self._judge(reference)]

    def _judge(self, view: View) -> list[Float[np.ndarray, "n_images n_voxels"]]:
        assert view.objects is not None
        fields = self.voxels.fields
        return [judge_objects(view.objects, fields, self.mixture), count_objects(view.objects, fields)]

    def respond(self, view: View) -> Float[np.ndarray, "n_images n_voxels"]:
        """Response to the objects plus response to their number."""
        what, number = (part / scale for part, scale in zip(self._judge(view), self.scale, strict=True))
        return what + self.mixture["number"] * number


STAGES: dict[str, type[Stage]] = {"early": EarlyStage, "middle": MiddleStage, "high": HighStage}


def divide_where_seen(
    values: Float[np.ndarray, "..."], deviation: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """Divide by the standard deviation over the reference; 0 where it is below `FAINT`."""
    return np.where(deviation > FAINT, values / np.where(deviation > FAINT, deviation, 1), 0)


def receptive_fields(
    place: Float[np.ndarray, "n_voxels 2"], size: Float[np.ndarray, " n_voxels"], n_points: int
) -> Float[np.ndarray, "n_positions n_voxels"]:
    """Gaussian windows on a map of `n_points` × `n_points` (rows downwards), each with sum 1."""
    centres = (2 * np.arange(n_points) + 1) / n_points - 1
    across, down = (np.exp(-((centres[:, None] - place[:, axis]) ** 2) / (2 * size**2)) for axis in (0, 1))
    window = (down[:, None] * across).reshape(n_points**2, -1)
    return (window / window.sum(axis=0)).astype(np.float32)


def pool(
    maps: Maps, window: Float[np.ndarray, "n_positions n_voxels"]
) -> Float[np.ndarray, "n_images n_channels n_voxels"]:
    """Average every map within every window."""
    n_images, n_channels = maps.shape[:2]
    return (maps.reshape(n_images * n_channels, -1) @ window).reshape(n_images, n_channels, -1)
