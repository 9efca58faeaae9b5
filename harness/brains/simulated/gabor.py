"""Maps of local image features, the input to the early and middle areas of the simulated subject.

Complex cells are quadrature pairs of Gabor filters with compressed energy (Adelson & Bergen 1985, JOSA A
2:284; Kay et al. 2008, Nature 452:352). Their responses give curvature, as two orientations that meet along a
bent line (Pasupathy & Connor 1999, J. Neurophysiol. 82:2490), and texture, as local correlations of subbands
(Portilla & Simoncelli 2000, Int. J. Comput. Vis. 40:49; Freeman et al. 2013, Nat. Neurosci. 16:974). Colour
is the energy of opponent hues. Nothing is learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

WAVELENGTHS = (4.0, 8.0, 16.0)  # pixels
N_ORIENTATIONS = 6
N_HUES = 8
# channel pairs whose correlations are texture: adjacent and orthogonal orientations, adjacent wavelengths
_PAIRS = [
    *((first + k, first + (k + 1) % 6) for first in (0, 6, 12) for k in range(6)),
    *((first + k, first + k + 3) for first in (0, 6, 12) for k in range(3)),
    *((first + k, first + k + 6) for first in (0, 6) for k in range(6)),
]
N_TEXTURES = len(WAVELENGTHS) * N_ORIENTATIONS + len(_PAIRS)
STRIDE = 2  # a map point covers 2 × 2 pixels
SEMI_SATURATION = 0.03  # luminance amplitude, 0 to 1
_MARGIN = 16  # mirrored pixels, or filters would see an edge at the frame
_WINDOW = 3.0  # standard deviation of the texture window, map points
N_CONTRASTS = N_ORIENTATIONS + len(WAVELENGTHS) + 1
_CENTRE, _SURROUND = 1.5, 6.0  # standard deviations of the two contrast windows, map points
_BEND = 2  # distance along a line over which its bend is measured, map points

# images, channels, rows, columns; channels and resolution differ between steps
Maps = Float[np.ndarray, "n_images _ _ _"]


@dataclass(frozen=True)
class FeatureMaps:
    """Local image features at every other pixel, float32.

    Attributes
    ----------
    energy : [n_images, n_wavelengths * n_orientations, height, width]
        Compressed amplitude of complex cells, grouped by wavelength.
    curvature : [n_images, 2 * n_orientations, height, width]
        Lines that bend to one side, then to the other.
    texture : [n_images, .., height, width]
        Local variances and correlations of the energies.
    colour : [n_images, n_hues, height, width]
        Energy of opponent hues.
    """

    energy: Maps
    curvature: Maps
    texture: Maps
    colour: Maps


def measure_features(images: UInt8[np.ndarray, "n_images height width 3"]) -> FeatureMaps:
    """Compute the feature maps of each image."""
    pixels = images.astype(np.float32) / 255
    energy = gabor_energy(pixels.mean(axis=-1))
    return FeatureMaps(energy, measure_curvature(energy), measure_texture(energy), measure_colour(pixels))


def gabor_energy(luminance: Float[np.ndarray, "n_images height width"]) -> Maps:
    """Compute the compressed amplitude of quadrature pairs, log(1 + amplitude / `SEMI_SATURATION`).

    Orientation k prefers gratings whose wave vector points k * 180° / `N_ORIENTATIONS` from the x axis
    towards positive y (downwards); its preferred lines are perpendicular to that.
    """
    from scipy import fft  # a cached subject needs no scipy, which takes a second to import

    padded = np.pad(luminance, ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)), mode="reflect")
    spectrum = fft.fft2(padded)
    height, width = luminance.shape[1:]
    maps = np.empty(
        (len(luminance), len(WAVELENGTHS) * N_ORIENTATIONS, height // STRIDE, width // STRIDE), np.float32
    )
    for channel, transfer in enumerate(_gabor_transfers(padded.shape[1], padded.shape[2])):
        # one-sided spectrum: real and imaginary part are the quadrature pair
        response = fft.ifft2(spectrum * transfer)[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
        maps[:, channel] = halve(np.log1p(np.abs(response) / np.float32(SEMI_SATURATION)))
    return maps


def _gabor_transfers(height: int, width: int) -> Float[np.ndarray, "n_channels height width"]:
    """Gaussians around each wave vector, on one side of the frequency plane, about one octave wide."""
    down, across = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    transfers = []
    for wavelength in WAVELENGTHS:
        for k in range(N_ORIENTATIONS):
            angle = np.pi * k / N_ORIENTATIONS
            forward = across * np.cos(angle) + down * np.sin(angle) - 1 / wavelength
            sideways = down * np.cos(angle) - across * np.sin(angle)
            transfers.append(np.exp(-(forward**2 + sideways**2) / (2 * (0.3 / wavelength) ** 2)))
    pairs = 2 * np.array(transfers, dtype=np.float32)  # response a to a grating of amplitude a
    pairs[:, 0, 0] = 0  # blind to the mean
    return pairs


def halve(maps: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Average blocks of 2 × 2 in the last two axes."""
    rows = maps[..., ::2, :] + maps[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]) / 4


def measure_curvature(energy: Maps) -> Maps:
    """Compute bends of lines at the middle wavelength: geometric mean of orientations 60° apart, end to end.

    Channel k is centred on orientation k and bends towards its wave vector, channel k + `N_ORIENTATIONS` away
    from it.
    """
    middle = energy[:, N_ORIENTATIONS : 2 * N_ORIENTATIONS]
    maps = np.empty((len(energy), 2 * N_ORIENTATIONS, *energy.shape[2:]), np.float32)
    for k in range(N_ORIENTATIONS):
        angle = np.pi * k / N_ORIENTATIONS
        step = (round(_BEND * np.cos(angle)), round(-_BEND * np.sin(angle)))  # along the line: y, x
        one, other = middle[:, (k + 1) % N_ORIENTATIONS], middle[:, k - 1]
        for half, sign in ((0, 1), (N_ORIENTATIONS, -1)):
            ahead = _shift(one, sign * step[0], sign * step[1])
            behind = _shift(other, -sign * step[0], -sign * step[1])
            maps[:, half + k] = np.sqrt(ahead * behind)
    return maps


def _shift(maps: Float[np.ndarray, "n_images height width"], down: int, right: int) -> np.ndarray:
    """Shift maps so that each point holds the value `down` and `right` of it, clamped at the frame."""
    height, width = maps.shape[1:]
    rows = np.clip(np.arange(height) + down, 0, height - 1)
    columns = np.clip(np.arange(width) + right, 0, width - 1)
    return maps[:, rows[:, None], columns]


def measure_texture(energy: Maps) -> Maps:
    """Compute second-order statistics of the energies in a Gaussian window.

    First each channel's standard deviation relative to its mean, then correlations of channels: adjacent
    orientations, orthogonal orientations, adjacent wavelengths.
    """
    mean = _blur(energy)
    variance = np.maximum(_blur(energy**2) - mean**2, 0) + np.float32(1e-3)
    maps = [np.sqrt(variance) / (mean + np.float32(0.1))]
    for one, other in _PAIRS:
        covariance = _blur(energy[:, one] * energy[:, other]) - mean[:, one] * mean[:, other]
        maps.append((covariance / np.sqrt(variance[:, one] * variance[:, other]))[:, None])
    return np.concatenate(maps, axis=1)


def _blur(maps: np.ndarray, window: float = _WINDOW) -> np.ndarray:
    """Apply a Gaussian window over the last two axes, as two small matrix products."""
    down, across = (np.eye(length, dtype=np.float32) for length in maps.shape[-2:])
    from scipy import ndimage

    rows, columns = (ndimage.gaussian_filter1d(unit, window, axis=0) for unit in (down, across))
    return rows @ maps @ columns.T


def measure_contrast(features: FeatureMaps) -> Maps:
    """Compute centre–surround differences: second-order edges, defined by any cue.

    The absolute difference between a narrow and a wide Gaussian window (`_CENTRE`, `_SURROUND`), of
    `N_CONTRASTS` maps: energy of each orientation minus the mean of all (local orientation contrast), energy
    at each wavelength over all orientations, and energy of all hues (squared chroma).
    """
    shape = (len(features.energy), len(WAVELENGTHS), N_ORIENTATIONS, *features.energy.shape[2:])
    energy = features.energy.reshape(shape)
    by_orientation = energy.mean(axis=1)
    by_orientation = by_orientation - by_orientation.mean(axis=1, keepdims=True)
    chroma = features.colour.sum(axis=1, keepdims=True)
    maps = np.concatenate([by_orientation, energy.mean(axis=2), chroma], axis=1)
    return np.abs(_blur(maps, _CENTRE) - _blur(maps, _SURROUND))


def measure_colour(pixels: Float[np.ndarray, "n_images height width 3"]) -> Maps:
    """Compute squared chroma, distributed over evenly spaced hues by von Mises curves.

    Hue is the angle between red-green and blue-yellow opponency.
    """
    red, green, blue = np.moveaxis(pixels, -1, 0)
    opponent = (red - green) / np.float32(np.sqrt(2)) + 1j * (red + green - 2 * blue) / np.float32(np.sqrt(6))
    chroma, hue = np.abs(opponent), np.angle(opponent)
    maps = []
    for centre in np.linspace(0, 2 * np.pi, N_HUES, endpoint=False, dtype=np.float32):
        maps.append(halve(chroma**2 * np.exp(4 * (np.cos(hue - centre) - 1))))
    return np.stack(maps, axis=1)
