"""Maps of voxels on the flat cortex: values, and the layers that voxels read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import Normalize, hsv_to_rgb
from matplotlib.patches import Rectangle
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from harness.brains import (
    HEMISPHERES,
    Surface,
)

MARGIN = 6.0  # cortex around the drawn areas, millimetres
OVERLAP = 8.0  # drawn beyond the margin and clipped, for straight edges
GAP = 12.0  # between the hemispheres
_NAME_SIZE = (19.0, 9.0)  # width and height of an area's name, with margins, millimetres
BORDER = "0.12"  # borders and names
_HALO = [withStroke(linewidth=2.2, foreground="white", alpha=0.85)]
# from the first layer (blue) to the last (red), in steps that look alike (Oklab); even ones would look green
_HUES = (0.70, 0.627, 0.581, 0.54, 0.499, 0.415, 0.255, 0.162, 0.117, 0.069, 0.0)
_DARKEST = 0.5  # brightness of a voxel that reads all layers alike


@dataclass(frozen=True)
class _Part:
    """What is drawn of a hemisphere; faces reach beyond the frame, which clips them."""

    frame: tuple[float, float, float, float]  # left, bottom, width, height
    faces: Int[np.ndarray, "n_faces 3"]
    outlines: list[Path]  # of the faces
    borders: Float[np.ndarray, "n_segments 2 2"]  # between areas
    names: dict[int, Float[np.ndarray, "2"]]  # places of areas' names


@dataclass(frozen=True)
class _Sheet:
    """A surface with its hemispheres moved together."""

    parts: tuple[_Part, ...]
    nearest: Int[np.ndarray, " n_vertices"]  # voxel whose colour a vertex takes; -1: none


@dataclass(frozen=True, eq=False)
class _Key:
    """A surface, equal to itself alone: comparing its arrays would take as long as cutting it."""

    surface: Surface

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.surface is self.surface

    def __hash__(self) -> int:
        return id(self.surface)


def colour_values(
    values: Float[np.ndarray, " n_voxels"],
    colour_map: str,
    limits: tuple[float | int, float | int] | None,
) -> tuple[ScalarMappable, Float[np.ndarray, "n_voxels 3"]]:
    """Colour scale and RGB colours of values; NaN stays NaN.

    Parameters
    ----------
    values : float array [n_voxels]
    colour_map : str
        Of matplotlib.
    limits : (low, high), optional
        Values at the ends of the colour map; by default the 1st and 99th percentile.
    """
    if limits is None:
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, [1, 99]) if len(finite) else (0.0, 1.0)
        limits = (float(low), float(high))
    scale = ScalarMappable(Normalize(*limits, clip=True), colormaps[colour_map])
    colours = scale.to_rgba(values)[:, :3]
    colours[~np.isfinite(values)] = np.nan
    return scale, colours


def draw_colour_bar(ax: Axes, scale: ScalarMappable, label: str) -> None:
    """Draw a colour bar under a map."""
    bar = ax.figure.colorbar(
        scale, ax=ax, orientation="horizontal", fraction=0.035, pad=0.02, aspect=32, shrink=0.6
    )
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)


def draw_flatmap_colours(
    ax: Axes,
    surface: Surface,
    colours: Float[np.ndarray, "n_voxels 3"],
    names: bool = True,
    blended: bool = True,
) -> None:
    """Draw one RGB colour (0 to 1) per voxel, such as `layer_colours`; rows with NaN stay grey.

    A face has the mean colour of its corners or, if not `blended`, that of most: for categories.
    """
    sheet = _cut_sheet(_Key(surface))
    grey = 0.55 + 0.35 * surface.shade[:, None].repeat(3, axis=1)
    painted = np.concatenate([colours, np.full((1, 3), np.nan)])[sheet.nearest]
    painted = np.where(np.isnan(painted), grey, painted)
    for part in sheet.parts:
        left, bottom, width, height = part.frame
        frame, faces = Rectangle((left, bottom), width, height, transform=ax.transData), part.faces
        face_colours = painted[faces].mean(axis=1) if blended else painted[_choose_corners(faces, painted)]
        if surface.area is not None:
            # faces on the rim are grey: half-tones would mean nothing
            rim = (sheet.nearest[faces] < 0).any(axis=1)
            face_colours[rim] = grey[faces[rim]].mean(axis=1)
        mesh = PathCollection(
            part.outlines, facecolors=face_colours.clip(0, 1), edgecolors="face", linewidths=0.4
        )
        mesh.set_rasterized(True)
        # limits are set below: measuring every face takes longer than drawing it
        ax.add_collection(mesh, autolim=False)
        mesh.set_clip_path(frame)
        if len(part.borders):
            borders = LineCollection(list(part.borders), colors=BORDER, linewidths=0.9, capstyle="round")
            ax.add_collection(borders, autolim=False)
            borders.set_clip_path(frame)
        for index, place in part.names.items() if names else ():
            text = ax.text(place[0], place[1], surface.area_names[index], ha="center", va="center")
            text.set(fontsize=7, color=BORDER, path_effects=_HALO)
    frames = [part.frame for part in sheet.parts]
    for (left, bottom, width, height), side in zip(frames, HEMISPHERES, strict=False):
        outer = (left + 2, "left") if side == "L" else (left + width - 2, "right")
        ax.text(outer[0], bottom + height - 2, side, ha=outer[1], va="top", fontsize=8, color=BORDER)
    lefts, bottoms, widths, heights = np.array(frames).T
    ax.set(xlim=(0, (lefts + widths).max()), ylim=(bottoms.min(), (bottoms + heights).max()))
    ax.set_aspect("equal")
    ax.axis("off")


def _choose_corners(
    faces: Int[np.ndarray, "n_faces 3"], painted: Float[np.ndarray, "n_vertices 3"]
) -> Int[np.ndarray, " n_faces"]:
    """Choose a corner with the majority colour of every face; the first if all differ."""
    one, two, three = faces.T
    return np.where((painted[two] == painted[three]).all(axis=1), two, one)


def layer_colours(layer: Float[np.ndarray, "n_voxels n_layers"]) -> Float[np.ndarray, "n_voxels 3"]:
    """Return RGB colours of layer selectors: hue from the most selected layer, brightness from confidence.

    Brightness rises with 1 − e³, where e = H(ω) / log L is the normalised entropy and 0 log 0 = 0, and is
    full from 0.8 on, as in Yang et al. 2024, "Brain decodes deep nets" (arXiv:2312.01280). It starts at
    `_DARKEST` instead of 0.2, so that hues can be told apart after short fits too.

    Parameters
    ----------
    layer : float array [n_voxels, n_layers]
        Distributions ω over layers.
    """
    return _colour(layer.argmax(axis=1), _entropy(layer), layer.shape[1])


def shade_layers(n_layers: int) -> Float[np.ndarray, "n_layers 3"]:
    """Return one colour per layer for areas, from blue (first) to red (last), as in `layer_colours`.

    ColorBrewer's Spectral: neighbouring layers differ more evenly than hues of equal brightness do.
    """
    return np.asarray(colormaps["Spectral_r"](np.linspace(0.02, 0.98, n_layers)))[:, :3]


def draw_layer_legend(ax: Axes, layers: tuple[str, ...]) -> None:
    """Draw the legend of `layer_colours`: a row per layer, the last on top; confidence 1 − e to the right."""
    entropy = np.linspace(1, 0, 48)
    rows = [_colour(np.full(48, index), entropy, len(layers)) for index in range(len(layers))]
    ax.imshow(np.array(rows), origin="lower", aspect="auto", extent=(0, 1, -0.5, len(layers) - 0.5))
    ax.set_yticks(range(len(layers)), layers, fontsize=7)
    ax.set_xticks([0, 1], ["0", "1"], fontsize=7)
    ax.set_xlabel("confidence", fontsize=8, labelpad=0)
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _entropy(layer: Float[np.ndarray, "n_voxels n_layers"]) -> Float[np.ndarray, " n_voxels"]:
    """Return entropy over log L; 0 for a single layer."""
    from scipy.special import xlogy  # takes half a second to import

    return -xlogy(layer, layer).sum(axis=1) / max(np.log(layer.shape[1]), 1e-12)


def _colour(
    best: Int[np.ndarray, " n_voxels"], entropy: Float[np.ndarray, " n_voxels"], n_layers: int
) -> Float[np.ndarray, "n_voxels 3"]:
    hue = np.interp(best / max(n_layers - 1, 1), np.linspace(0, 1, len(_HUES)), _HUES)
    brightness = _DARKEST + (1 - _DARKEST) * np.clip((1 - entropy**3) / 0.8, 0, 1)
    return hsv_to_rgb(np.stack([hue, np.full(len(hue), 0.82), brightness], axis=1))


@lru_cache(maxsize=8)
def _cut_sheet(key: _Key) -> _Sheet:
    """Crop to the voxels' part of the cortex and place the hemispheres side by side, vertically centred."""
    surface = key.surface
    nearest = np.full(len(surface.points), -1, dtype=np.int64)
    on_sheet = np.flatnonzero(surface.voxel_vertex >= 0)
    nearest[surface.voxel_vertex[on_sheet]] = on_sheet
    if surface.area is not None:
        voxel_area = np.where(surface.voxel_vertex >= 0, surface.area[surface.voxel_vertex], -1)
        for index in range(len(surface.area_names)):
            inside, own = np.flatnonzero(surface.area == index), np.flatnonzero(voxel_area == index)
            if len(own):
                tree = cKDTree(surface.points[surface.voxel_vertex[own]])
                nearest[inside] = own[tree.query(surface.points[inside])[1]]
    points = surface.points.astype(np.float64)
    part = _find_parts(surface)
    painted = (nearest >= 0) & (part >= 0)
    frames = {}
    edge = 0.0
    for index in sorted(np.unique(part[painted]), key=lambda index: points[part == index, 0].mean()):
        patch = points[painted & (part == index)]
        low, high = patch.min(axis=0) - MARGIN, patch.max(axis=0) + MARGIN
        # the sheet may end within the margin
        there = points[part == index]
        low, high = np.maximum(low, there.min(axis=0)), np.minimum(high, there.max(axis=0))
        points[part == index] += (edge - low[0], -(low[1] + high[1]) / 2)
        height, width = high[1] - low[1], high[0] - low[0]
        frames[int(index)] = (edge, -height / 2, width, height)
        edge += width + GAP
    parts = []
    for index, frame in frames.items():
        left, bottom, width, height = frame
        off_centre = np.abs(points - (left + width / 2, bottom + height / 2))
        near = (part == index) & (off_centre < (width / 2 + OVERLAP, height / 2 + OVERLAP)).all(axis=1)
        faces = surface.faces[near[surface.faces].all(axis=1)]
        borders, names = np.empty((0, 2, 2)), {}
        if surface.area is not None:
            borders = _outline_areas(points, faces, surface.area)
            names = _place_names(points, faces, surface.area)
        # closes thousands of polygons at once, in a fifth of the time
        outlines = list(PolyCollection(points[faces]).get_paths())
        parts.append(_Part(frame, faces, outlines, borders, names))
    return _Sheet(tuple(parts), nearest)


def _find_parts(surface: Surface) -> Int[np.ndarray, " n_vertices"]:
    """Number the connected part (hemisphere) of every vertex; -1: in no face."""
    n_vertices, (one, two, three) = len(surface.points), surface.faces.T
    edges = coo_array(
        (np.ones(2 * len(one)), (np.concatenate([one, two]), np.concatenate([two, three]))), (n_vertices,) * 2
    )
    part = connected_components(edges, directed=False)[1].astype(np.int64)
    part[np.setdiff1d(np.arange(n_vertices), surface.faces)] = -1
    return part


def _outline_areas(
    points: Float[np.ndarray, "n_vertices 2"],
    faces: Int[np.ndarray, "n_faces 3"],
    area: Int[np.ndarray, " n_vertices"],
) -> Float[np.ndarray, "n_segments 2 2"]:
    """Draw lines through the midpoints of edges between areas."""
    after = np.roll(faces, -1, axis=1)
    crossed = area[faces] != area[after]
    middles = (points[faces] + points[after]) / 2
    two, three = crossed.sum(axis=1) == 2, crossed.all(axis=1)
    # three areas meet at the centre of a face
    centres = np.broadcast_to(points[faces[three]].mean(axis=1)[:, None], middles[three].shape)
    spokes = np.stack([centres, middles[three]], axis=2).reshape(-1, 2, 2)
    return np.concatenate([middles[two][crossed[two]].reshape(-1, 2, 2), spokes])


def _place_names(
    points: Float[np.ndarray, "n_vertices 2"],
    faces: Int[np.ndarray, "n_faces 3"],
    area: Int[np.ndarray, " n_vertices"],
) -> dict[int, Float[np.ndarray, "2"]]:
    """Place each name where its area is widest and free of other names; the smallest area first."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    once, counts = np.unique(edges, axis=0, return_counts=True)
    ends = once[counts == 1]  # of the sheet
    used = np.unique(faces)
    inside = {int(index): used[area[used] == index] for index in np.unique(area[used]) if index >= 0}
    places: dict[int, Float[np.ndarray, "2"]] = {}
    for index, here in sorted(inside.items(), key=lambda item: len(item[1])):
        border = np.union1d(used[area[used] != index], ends)
        room = cKDTree(points[border]).query(points[here])[0]
        for other in places.values():
            across, down = np.abs(points[here] - other).T
            # names are wider than tall
            room = np.minimum(room, np.maximum(across / _NAME_SIZE[0], down / _NAME_SIZE[1]) * room.max())
        places[index] = points[here[room.argmax()]]
    return places
