"""Global image statistics, the input to the highest areas of the simulated subject for unlabelled images.

Scenes of the shapes world list their objects, and the highest areas respond to those (`scene_objects`). Other
images have only pixels. Statistics over the whole image, which do not depend on position, replace the
objects: the strength of curves for shape, a histogram of hues for colour (Swain & Ballard 1991, Int. J.
Comput. Vis. 7:11), the spectrum of oriented energy for texture (Oliva & Torralba 2001, Int. J. Comput. Vis.
42:145), and for number the ratio of fine to coarse energy, by which people judge it (Dakin et al. 2011, PNAS
108:19552). Each factor has as many statistics as values, so a voxel keeps its weights and an area its
mixture. They do not detect objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from harness.brains.simulated.gabor import (
    N_HUES,
    N_ORIENTATIONS,
    WAVELENGTHS,
    FeatureMaps,
)
from harness.brains.simulated.scene_objects import CONTENT_FIELDS
from harness.brains.simulated.stages import (
    HIGH_MIXTURES,
    STAGES,
    Stage,
    View,
    Voxels,
    divide_where_seen,
)

KINDS = {"shape": 2 * N_ORIENTATIONS, "colour": N_HUES, "texture": 2 * len(WAVELENGTHS)}
"""Number of statistics for each factor, equal to its number of values."""
_FAINT = 0.01  # added to denominators, for images without hue or orientation


@dataclass(frozen=True)
class ImageStatistics:
    """Statistics of whole images.

    Attributes
    ----------
    shape : float32 array [n_images, 12]
        Root mean square of each curvature map: orientation of the line × side to which it bends.
    colour : float32 array [n_images, 8]
        Share of each hue in the energy of all hues; near 0 for grey images.
    texture : float32 array [n_images, 6]
        Mean energy at each wavelength, then its standard deviation over orientations relative to the mean.
    number : float32 array [n_images, 1]
        Energy at the shortest minus energy at the longest wavelength; energies are logarithmic.
    """

    shape: Float[np.ndarray, "n_images 12"]
    colour: Float[np.ndarray, "n_images 8"]
    texture: Float[np.ndarray, "n_images 6"]
    number: Float[np.ndarray, "n_images 1"]


def measure_statistics(features: FeatureMaps) -> ImageStatistics:
    """Pool maps of local features over the image."""
    shape = np.sqrt((features.curvature**2).mean(axis=(2, 3)))
    hues = features.colour.mean(axis=(2, 3))
    energy = features.energy.mean(axis=(2, 3)).reshape(len(shape), len(WAVELENGTHS), N_ORIENTATIONS)
    mean = energy.mean(axis=2)
    return ImageStatistics(
        shape=shape,
        colour=hues / (hues.sum(axis=1, keepdims=True) + np.float32(_FAINT)),
        texture=np.concatenate([mean, energy.std(axis=2) / (mean + np.float32(_FAINT))], axis=1),
        number=mean[:, :1] - mean[:, -1:],
    )


class StatisticsStage:
    """FFC, VVC, VMV, PHA for unlabelled images: tuning to global image statistics.

    Statistics are standardised over the reference. Let z_f be those of kind f, divided by the square root of
    their number, w_f a voxel's weights and m_f the mixture of its area. The drive of the voxel is

        d = Σ_f m_f z_f·w_f + m_conjunction (z_shape·w'_shape) (z_texture·w'_texture)

    and its response is log(1 + e^{2d}), a smooth rectifier, plus m_number times Gaussian tuning (of one
    standard deviation) to z_number, each part in units of its standard deviation over the reference.
    """

    n_fields: ClassVar[int] = CONTENT_FIELDS

    def __init__(self, voxels: Voxels, reference: View) -> None:
        mixtures = [HIGH_MIXTURES[name] for name in voxels.region]
        self.mixture = {
            kind: np.array([parts[kind] for parts in mixtures], np.float32) for kind in mixtures[0]
        }
        sizes = [*KINDS.values(), KINDS["shape"], KINDS["texture"]]
        *weights, by_shape, by_texture, preferred = np.split(voxels.fields, np.cumsum(sizes), axis=1)
        self.weights = dict(zip(KINDS, weights, strict=True))
        self.conjunction = {"shape": by_shape, "texture": by_texture}
        self.preferred = preferred[:, 0]
        seen = measure_statistics(reference.features)
        self.mean = {kind: getattr(seen, kind).mean(axis=0) for kind in (*KINDS, "number")}
        self.deviation = {kind: getattr(seen, kind).std(axis=0) for kind in (*KINDS, "number")}
        self.scale = [part.std(axis=0) for part in self._judge(reference)]

    def _judge(self, view: View) -> list[Float[np.ndarray, "n_images n_voxels"]]:
        seen = measure_statistics(view.features)
        z = {
            kind: divide_where_seen(getattr(seen, kind) - mean, self.deviation[kind])
            for kind, mean in self.mean.items()
        }

        def towards(kind: str, weights: Float[np.ndarray, "n_voxels n_statistics"]) -> np.ndarray:
            return z[kind] @ weights.T / np.float32(np.sqrt(KINDS[kind]))

        one, other = (towards(kind, weights) for kind, weights in self.conjunction.items())
        drive = self.mixture["conjunction"] * one * other
        for kind, weights in self.weights.items():
            drive = drive + self.mixture[kind] * towards(kind, weights)
        number = np.exp(-((z["number"] - self.preferred) ** 2) / 2)
        return [np.logaddexp(0, 2 * drive), number]

    def respond(self, view: View) -> Float[np.ndarray, "n_images n_voxels"]:
        """Response to the kinds of features plus response to number."""
        what, number = (
            divide_where_seen(part, scale) for part, scale in zip(self._judge(view), self.scale, strict=True)
        )
        return what + self.mixture["number"] * number


STAGES_WITHOUT_LABELS: dict[str, type[Stage]] = STAGES | {"high": StatisticsStage}
