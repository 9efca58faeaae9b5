"""Retinotopy of the simulated subject: the receptive field of every cortical vertex.

V1 is a log-polar map of the contralateral half field (Schwartz 1980, Vision Res. 20:645): eccentricity
increases away from the foveal confluence at the occipital pole, polar angle varies across. V2 and V3 surround
V1 as mirrored quarter fields, the dorsal ones representing the lower quarter, with the vertical meridian at
the border of V1 and V2 and the horizontal one at that of V2 and V3. Middle areas hold one half field each;
the highest have no map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from harness.brains.cortex import (
    HEMISPHERES,
    Cortex,
)

MAX_ECCENTRICITY = 0.95  # half widths of the image
HALF_MAGNIFICATION = 0.35  # eccentricity of half the foveal magnification (E2)
# standard deviation of a receptive field: at the fovea, and its slope with eccentricity
FIELD_SIZES = {
    "V1": (0.08, 0.10),
    "V2": (0.11, 0.16),
    "V3": (0.15, 0.22),
    "V4": (0.25, 0.25),
    "V8": (0.35, 0.25),
    "LO": (0.35, 0.25),
    "PIT": (0.40, 0.25),
}
_HALF_SPACING = 1.0  # half the vertex spacing, millimetres: borders run between vertices


@dataclass(frozen=True)
class Retinotopy:
    """Receptive fields, in half widths of the image from its centre.

    Attributes
    ----------
    eccentricity : float32 array [n_vertices]
    polar_angle : float32 array [n_vertices], degrees, -180 to 180
        0: right horizontal meridian; 90: upper vertical meridian.
    size : float32 array [n_vertices]
        Standard deviation of the Gaussian field; infinite in areas without a map.

    Angle and eccentricity are NaN outside the visual areas and in areas without a map; size is NaN outside
    only.
    """

    eccentricity: Float[np.ndarray, " n_vertices"]
    polar_angle: Float[np.ndarray, " n_vertices"]
    size: Float[np.ndarray, " n_vertices"]

    @property
    def place(self) -> Float[np.ndarray, "n_vertices 2"]:
        """Centre in image coordinates, -1 to 1: x rightwards, y **downwards**."""
        angle = np.radians(self.polar_angle)
        return np.stack(
            [self.eccentricity * np.cos(angle), -self.eccentricity * np.sin(angle)], axis=1
        ).astype(np.float32)


def lay_out_retinotopy(cortex: Cortex) -> Retinotopy:
    """Compute the retinotopy of every vertex of the regions in `FIELD_SIZES`."""
    # 0 (fovea) to 1 (periphery); 0 (horizontal meridian) to ±1 (vertical meridian, upper +)
    depth, elevation = np.full((2, len(cortex.region)), np.nan)
    for hemisphere in HEMISPHERES:
        along, across = _unroll(cortex, hemisphere)
        here = cortex.hemisphere == hemisphere
        _lay_out_early(cortex, here, along, across, depth, elevation)
        for name in FIELD_SIZES:
            if name not in ("V1", "V2", "V3"):
                one = here & cortex.in_region(name)
                # polar coordinates around the fovea by rank: near to far, ventral to dorsal
                depth[one] = _evenly(np.hypot(along[one], across[one]))
                elevation[one] = 1 - 2 * _evenly(np.arctan2(across[one], -along[one]))
    # the integral of the magnification 1 / (e + E2), solved for e
    growth = 1 + MAX_ECCENTRICITY / HALF_MAGNIFICATION
    eccentricity = HALF_MAGNIFICATION * (growth**depth - 1)
    angle = np.where(cortex.hemisphere == "L", 90 * elevation, 180 - 90 * elevation)
    size = np.where(cortex.region >= 0, np.inf, np.nan)
    for name, (smallest, slope) in FIELD_SIZES.items():
        one = cortex.in_region(name)
        size[one] = smallest + slope * eccentricity[one]
    return Retinotopy(
        eccentricity.astype(np.float32),
        ((angle + 180) % 360 - 180).astype(np.float32),
        size.astype(np.float32),
    )


def _unroll(
    cortex: Cortex, hemisphere: str
) -> tuple[Float[np.ndarray, " n_vertices"], Float[np.ndarray, " n_vertices"]]:
    """Millimetres along V1 from the foveal confluence to the periphery, and across it from ventral to dorsal.

    Azimuthal equidistant projection of the sphere around the centre of V1. The axes are principal axes of V1;
    the positions of LO and the ventromedial areas tell the foveal and the ventral end. NaN in the other
    hemisphere.
    """
    here = cortex.hemisphere == hemisphere
    sphere = cortex.sphere[here].astype(np.float64)
    sphere -= (sphere.min(axis=0) + sphere.max(axis=0)) / 2
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    inside = {name: cortex.in_region(name)[here] for name in ("V1", "LO", "VMV")}
    centre = sphere[inside["V1"]].mean(axis=0)
    centre /= np.linalg.norm(centre)
    tangent = sphere - (sphere @ centre)[:, None] * centre
    axes = np.linalg.svd(tangent[inside["V1"]], full_matrices=False)[2][:2]
    flat = tangent @ axes.T
    flat *= (100 * np.arccos(np.clip(sphere @ centre, -1, 1)) / np.linalg.norm(tangent, axis=1))[:, None]
    if flat[inside["LO"], 0].mean() > 0:
        flat[:, 0] *= -1
    if flat[inside["VMV"], 1].mean() > 0:
        flat[:, 1] *= -1
    along, across = np.full((2, len(here)), np.nan)
    along[here], across[here] = flat[:, 0] - flat[inside["V1"], 0].min(), flat[:, 1]
    return along, across


def _lay_out_early(
    cortex: Cortex,
    here: np.ndarray,
    along: np.ndarray,
    across: np.ndarray,
    depth: np.ndarray,
    elevation: np.ndarray,
) -> None:
    """Fill `depth` and `elevation` for V1, V2 and V3 of one hemisphere."""
    v1, v2, v3 = (here & cortex.in_region(name) for name in ("V1", "V2", "V3"))
    # behind the tip of V1 (along < 0) the fovea is a line where dorsal and ventral parts meet
    distance = np.hypot(np.maximum(along, 0), across)
    for one in (v1, v2, v3):
        depth[one] = distance[one] / distance[one].max()
    dorsal = across > 0

    def to(target: np.ndarray, group: np.ndarray) -> Float[np.ndarray, " n_group"]:
        tree = cKDTree(cortex.sphere[target])
        return np.maximum(tree.query(cortex.sphere[group])[0] - _HALF_SPACING, 0)

    below, above = to(v2 & dorsal, v1), to(v2 & ~dorsal, v1)
    elevation[v1] = (below - above) / (below + above)
    sign = np.where(dorsal, -1.0, 1.0)
    inner, outer = to(v1, v2), to(v3, v2)
    elevation[v2] = sign[v2] * outer / (inner + outer)
    inner, outer = to(v2, v3), to(here & ~(v1 | v2 | v3), v3)
    elevation[v3] = sign[v3] * inner / (inner + outer)


def _evenly(values: Float[np.ndarray, " n_values"]) -> Float[np.ndarray, " n_values"]:
    """Ranks, scaled to between 0 and 1."""
    from scipy.stats import rankdata  # takes a second to import

    return (rankdata(values) - 0.5) / len(values)
