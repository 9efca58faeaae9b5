"""Colours of categories: seaborn's palettes, without importing seaborn, which takes a second.

The numbers are those of seaborn (Waskom 2021), whose palettes for categories of many values are evenly spaced
hues in HUSL (Boronine 2012): a cylinder in CIELUV whose saturation is a share of the largest chroma in sRGB.
"""

from __future__ import annotations

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LinearSegmentedColormap, to_hex

COLOUR_BLIND = (
    "#0173b2",
    "#de8f05",
    "#029e73",
    "#d55e00",
    "#cc78bc",
    "#ca9161",
    "#fbafe4",
    "#949494",
    "#ece133",
    "#56b4e9",
)
"""Seaborn's palette ``colorblind``."""
GREY = COLOUR_BLIND[7]

_RGB_OF_XYZ = ((3.2406, -1.5372, -0.4986), (-0.9689, 1.8758, 0.0415), (0.0557, -0.2040, 1.0570))
_WHITE = (0.19784, 0.46834)  # u′ and v′ of D65


def spread_hues(n_colours: int, saturation: float, lightness: float) -> list[tuple[float, float, float]]:
    """RGB colours (0 to 1) with evenly spaced hues, as seaborn's ``husl_palette``.

    Parameters
    ----------
    n_colours : int
    saturation, lightness : float
        0 to 1.
    """
    hues = (np.linspace(0, 1, n_colours + 1)[:-1] + 0.01) % 1 * 359
    return [_to_rgb(float(hue), saturation * 99, lightness * 99) for hue in hues]


def dark_greys(n_colours: int) -> list[str]:
    """Hexadecimal greys from light to dark, as seaborn's ``Greys_d``."""
    ends = [*colormaps["Greys"]([1 / 3, 2 / 3])[:, :3], "#333333"]
    blend = LinearSegmentedColormap.from_list("greys", ends)
    return [to_hex(colour) for colour in blend(np.linspace(0, 1, n_colours + 2)[1:-1])]


def _to_rgb(hue: float, saturation: float, lightness: float) -> tuple[float, float, float]:
    """Convert HUSL (degrees, percent, percent; lightness above 0) to RGB."""
    angle = math.radians(hue)
    chroma = _largest_chroma(angle, lightness) / 100 * saturation
    u = math.cos(angle) * chroma / (13 * lightness) + _WHITE[0]
    v = math.sin(angle) * chroma / (13 * lightness) + _WHITE[1]
    y = _luminance(lightness)
    x = 9 * y * u / (4 * v)
    z = (9 * y - 15 * v * y - v * x) / (3 * v)
    red, green, blue = (_gamma(row[0] * x + row[1] * y + row[2] * z) for row in _RGB_OF_XYZ)
    return red, green, blue


def _luminance(lightness: float) -> float:
    """Y of CIE's L*, white 1."""
    cube = ((lightness + 16) / 116) ** 3
    return cube if cube > 0.008856 else lightness / 903.3


def _largest_chroma(angle: float, lightness: float) -> float:
    """Largest chroma of a hue and lightness at which no channel of RGB leaves 0 to 1."""
    y, found = _luminance(lightness), math.inf
    for one, two, three in _RGB_OF_XYZ:
        top = (0.99915 * one + 1.05122 * two + 1.14460 * three) * y
        across = (0.86330 * three - 0.17266 * two) * math.sin(angle)
        bottom = (across + (0.12949 * three - 0.38848 * one) * math.cos(angle)) * y
        for limit in (0.0, 1.0):
            chroma = lightness * (top - 1.05122 * limit) / (bottom + 0.17266 * math.sin(angle) * limit)
            if chroma > 0:
                found = min(found, chroma)
    return found


def _gamma(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
