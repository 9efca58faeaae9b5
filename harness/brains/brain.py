"""`Brain`, the common form of every source of brain data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from PIL import Image

from harness.storage import (
    InputError,
    content_hash,
    unknown_name,
)


@dataclass(frozen=True)
class Roi:
    """A region of interest.

    Attributes
    ----------
    name : str
    voxels : int array [n_roi_voxels]
        Indices into the brain's voxels.
    rank : float or None
        Place in the visual hierarchy, 1 for V1; None: unranked.
    """

    name: str
    voxels: Int[np.ndarray, " n_roi_voxels"]
    rank: float | None


@dataclass(frozen=True)
class Surface:
    """Flat cortex to draw on, both hemispheres in one mesh.

    Attributes
    ----------
    points : float array [n_vertices, 2]
    faces : int array [n_faces, 3]
    shade : float array [n_vertices], 0 (sulcus) to 1 (gyrus)
    voxel_vertex : int array [n_voxels]
        Vertex of every voxel; -1 off the sheet, as for a voxel below the cortex.
    area : int array [n_vertices] or None
        Index into `area_names` of every vertex's area, -1 for none. An area is drawn filled, with border and
        name: every vertex has the colour of the nearest voxel of its area.
    area_names : tuple of str
    """

    points: Float[np.ndarray, "n_vertices 2"]
    faces: Int[np.ndarray, "n_faces 3"]
    shade: Float[np.ndarray, " n_vertices"]
    voxel_vertex: Int[np.ndarray, " n_voxels"]
    area: Int[np.ndarray, " n_vertices"] | None = None
    area_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Brain:
    """A subject: what was shown, what was measured, and where.

    A row (image) of `responses` is a stimulus averaged over its repeats, or a single repeat. Rows of equal
    `stimulus_ids` show the same picture and are never on both sides of a split.

    Attributes
    ----------
    name : str
    stimuli : sequence of PIL images, RGB, [n_images]; decoded on demand, in any order
    responses : float32 array [n_images, n_voxels]
    coords : float32 array [n_voxels, 3], millimetres
        On a surface, places on the sphere, with the right hemisphere shifted along x.
    bounding_box : float32 array [2, 3]
        Minimum and maximum of the subject's coordinates, the same for every subset of voxels.
    hemisphere : str array [n_voxels], "L" or "R"
    rois : tuple of Roi; they may overlap
    noise_ceiling : float32 array [n_voxels] or None
        Share of the variance over all rows that a perfect model could explain, 0 to 1; None: unknown. Rows
        with other numbers of repeats have another ceiling: `score_on`.
    surface : Surface or None
        Flat cortex to draw on; None: voxels are drawn at their coordinates.
    fingerprint : str
        Hash of everything that results depend on: stimuli, responses and coordinates.
    stimulus_ids : int or str array [n_images]
        Picture of every row; by default each row has its own (0 to n_images - 1).
    n_repeats : int array [n_images] or None
        Presentations that a row averages; None: unknown.
    session : int array [n_images] or None
        Session in which a row was measured; None: unknown, or rows average over sessions.
    shared : bool array [n_images] or None
        Whether all subjects of the data set saw the picture; None: unknown.
    fingerprints : dict of str to str
        Content hash of every source file, by its name below the source's folder. A folder of images is one
        entry whose name ends in a slash. Empty without files.
    """

    name: str
    stimuli: Sequence[Image.Image]
    responses: Float[np.ndarray, "n_images n_voxels"]
    coords: Float[np.ndarray, "n_voxels 3"]
    bounding_box: Float[np.ndarray, "2 3"]
    hemisphere: Shaped[np.ndarray, " n_voxels"]
    rois: tuple[Roi, ...]
    noise_ceiling: Float[np.ndarray, " n_voxels"] | None
    surface: Surface | None
    fingerprint: str
    stimulus_ids: Shaped[np.ndarray, " n_images"] = None  # type: ignore[assignment]
    n_repeats: Int[np.ndarray, " n_images"] | None = None
    session: Int[np.ndarray, " n_images"] | None = None
    shared: Bool[np.ndarray, " n_images"] | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.stimulus_ids is None:
            object.__setattr__(self, "stimulus_ids", np.arange(len(self.responses)))

    @classmethod
    def from_arrays(
        cls,
        responses: Any,
        coordinates: Any,
        stimuli: Any,
        *,
        rois: Any = None,
        roi_ranks: Mapping[str, float | int] | None = None,
        noise_ceiling: Any = None,
        hemisphere: Any = None,
        stimulus_ids: Any = None,
        n_repeats: Any = None,
        session: Any = None,
        shared: Any = None,
        name: str = "arrays",
        standardise: bool = True,
    ) -> Brain:
        """Make a brain from arrays in memory, with the checks of ``brain=arrays``.

        Voxels with a value that is not finite, or with one value for all stimuli, are dropped with a warning.
        Rows that show the same pixels count as one picture, which is never on both sides of a split.

        Parameters
        ----------
        responses : array [n_images, n_voxels]
            Numbers in any unit, one row per stimulus.
        coordinates : array [n_voxels, 3]
            Millimetres. On a surface, shift the right hemisphere along x until the two are apart.
        stimuli : sequence of PIL images or paths, uint8 array [n_images, height, width, 3], or folder
            One image per row, in the order of the rows; a folder's images are sorted by name. They are
            shown upright by their EXIF orientation, transparent pixels on white.
        rois : dict of name to voxel numbers or to a mask [n_voxels], or a name per voxel, optional
            Regions of a dictionary may overlap. A voxel named "" is in no region.
        roi_ranks : dict of name to float, optional
            Place in the visual hierarchy, 1 for V1.
        noise_ceiling : float array [n_voxels], optional
            Explainable share of the variance over all rows, 0 to 1.
        hemisphere : array [n_voxels] of "L" and "R", optional
            By default L where x < 0.
        stimulus_ids : int or str array [n_images], optional
            Equal where the picture is the same; by default each row's own.
        n_repeats : int array [n_images], optional
            Presentations that a row averages.
        session : int array [n_images], optional
            Session in which a row was measured.
        shared : bool array [n_images], optional
            Whether all subjects of the data set saw the picture.
        name : str
            Name in titles and tables.
        standardise : bool
            Whether to give every voxel mean 0 and variance 1 over all rows.

        Raises
        ------
        InputError
            If an array does not fit the others; it names the array.

        Examples
        --------
        >>> brain = harness.Brain.from_arrays(
        ...     responses, coordinates, images, rois={"V1": np.arange(50)}, roi_ranks={"V1": 1}
        ... )
        """
        from harness.brains.arrays_in_memory import brain_from_arrays

        return brain_from_arrays(
            responses,
            coordinates,
            stimuli,
            name=name,
            rois=rois,
            roi_ranks=roi_ranks,
            standardise=standardise,
            noise_ceiling=noise_ceiling,
            hemisphere=hemisphere,
            stimulus_ids=stimulus_ids,
            n_repeats=n_repeats,
            session=session,
            shared=shared,
        )

    @property
    def n_images(self) -> int:
        """Number of rows of the responses."""
        return int(self.responses.shape[0])

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return int(self.coords.shape[0])

    def score_on(self, rows: Int[np.ndarray, " n_rows"], averaged: bool = False) -> Brain:
        """Return the brain with the noise ceiling of some rows, such as the held-out ones.

        A row that averages n repeats has the ceiling p / (p + 1/n), p being the ratio of signal to noise
        variance of single repeats. `noise_ceiling` gives p by the mean of 1/n over all rows; the mean over
        `rows` then gives theirs (Allen et al. 2022, as in `harness.brains.ceilings`). Everything else stays;
        without a ceiling or numbers of repeats, the ceiling does too.

        Parameters
        ----------
        rows : int array [n_rows], 0 to n_images - 1, at least one
        averaged : bool
            Whether each row stands for the average over all rows of its picture. If numbers of repeats are
            unknown, every row counts as one.
        """
        if self.noise_ceiling is None or (self.n_repeats is None and not averaged):
            return self
        repeats = np.ones(len(self.responses)) if self.n_repeats is None else self.n_repeats
        if averaged:
            _, picture = np.unique(self.stimulus_ids, return_inverse=True)
            repeats_of_rows = np.bincount(picture, weights=repeats)[picture[rows]]
        else:
            repeats_of_rows = repeats[rows]
        all_rows, own = float(np.mean(1 / repeats)), float(np.mean(1 / repeats_of_rows))
        if own == all_rows:
            return self
        ceiling = self.noise_ceiling.astype(np.float64)
        # p / (p + own), with p = all_rows · ceiling / (1 − ceiling), without dividing by 0
        scored = ceiling * all_rows / (ceiling * all_rows + (1 - ceiling) * own)
        return replace(self, noise_ceiling=scored.astype(np.float32))

    def select_voxels(self, voxels: Int[np.ndarray, " n_chosen"]) -> Brain:
        """Return the brain with some of its voxels, in the given order.

        The bounding box stays, so a voxel's fit does not depend on which others are selected. ROIs keep their
        selected voxels; a ROI without any is dropped.

        Parameters
        ----------
        voxels : int array [n_chosen], 0 to n_voxels - 1, each at most once

        Raises
        ------
        InputError
            If no voxel is chosen, or one twice, or one that does not exist.
        """
        place = np.full(self.n_voxels, -1, dtype=np.int64)
        if not len(voxels) or voxels.min() < 0 or voxels.max() >= self.n_voxels:
            raise InputError(
                f"brain {self.name}: voxels {_summarise(voxels)} chosen, expected "
                f"one or more of 0 to {self.n_voxels - 1}"
            )
        place[voxels] = np.arange(len(voxels))
        if (place >= 0).sum() < len(voxels):
            raise InputError(f"brain {self.name}: found voxels chosen twice, expected each at most once")
        if np.array_equal(voxels, np.arange(self.n_voxels)):
            return self
        rois = [replace(roi, voxels=np.sort(place[roi.voxels][place[roi.voxels] >= 0])) for roi in self.rois]
        surface = self.surface
        if surface is not None:
            surface = replace(surface, voxel_vertex=surface.voxel_vertex[voxels])
        return replace(
            self,
            responses=self.responses[:, voxels],
            coords=self.coords[voxels],
            hemisphere=self.hemisphere[voxels],
            rois=tuple(roi for roi in rois if len(roi.voxels)),
            noise_ceiling=None if self.noise_ceiling is None else self.noise_ceiling[voxels],
            surface=surface,
            fingerprint=content_hash(self.fingerprint, np.asarray(voxels, dtype=np.int64)),
        )

    def select_rois(self, names: Sequence[str]) -> Brain:
        """Return the brain with the voxels of some ROIs, in their old order.

        The ROI table keeps the named ROIs and those that lie wholly within them, so no ROI is there in part.

        Raises
        ------
        InputError
            For an unknown ROI.
        """
        known = {roi.name: roi for roi in self.rois}
        for name in names:
            if name not in known:
                raise unknown_name(f"ROI of brain {self.name}", name, known)
        chosen = np.unique(np.concatenate([known[name].voxels for name in names])) if names else np.arange(0)
        whole = tuple(roi for roi in self.rois if np.isin(roi.voxels, chosen).all())
        return replace(self, rois=whole).select_voxels(chosen)

    def select_ceiling(self, minimum: float) -> Brain:
        """Return the brain with the voxels whose noise ceiling is at least `minimum` (0 to 1).

        Raises
        ------
        InputError
            If the noise ceiling is unknown, or no voxel reaches it.
        """
        if self.noise_ceiling is None:
            raise InputError(
                f"brain {self.name}: the noise ceiling is unknown; expected no brain.min_ceiling"
            )
        chosen = np.flatnonzero(self.noise_ceiling >= minimum)
        if not len(chosen):
            raise InputError(
                f"brain {self.name}: no voxel has a noise ceiling of {minimum:g} or more; "
                f"the highest is {self.noise_ceiling.max():.3g}"
            )
        return self.select_voxels(chosen)


def _summarise(voxels: Int[np.ndarray, " n_chosen"]) -> str:
    return f"{voxels.min()} to {voxels.max()}" if len(voxels) else "none"


class Pictures(Sequence[Image.Image]):
    """Images in one array of bytes."""

    def __init__(self, pixels: UInt8[np.ndarray, "n_images height width 3"]) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> Pictures: ...
    def __getitem__(self, index: int | slice) -> Image.Image | Pictures:
        if isinstance(index, slice):
            return Pictures(self.pixels[index])
        return Image.fromarray(self.pixels[index])


class StoredPictures(Sequence[Image.Image]):
    """Images that stay in their source files and are decoded on demand."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the pictures in order."""


def fingerprint(pixels: np.ndarray | str, responses: np.ndarray, coords: np.ndarray) -> str:
    """Hash everything that a brain's results depend on; pictures may be given as a hash."""
    return content_hash(pixels, responses, coords)
