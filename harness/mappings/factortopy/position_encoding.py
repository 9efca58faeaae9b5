"""Position encoding of voxels as sines and cosines of their coordinates, in full and compact form."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from harness.storage import InputError

N_FREQUENCIES = 32
PERIOD_BASE = 1000.0
N_STEPS = 100.0  # steps along the longest axis of the bounding box
_N_GRID = 1024  # points along an axis, ten per step; the shortest wavelength is six steps
_MARGIN = 1.0  # steps beyond the box, because a voxel at its edge may be rounded out of it


def position_encoding(
    coords: Float[Tensor, "n_voxels 3"], bounding_box: Float[Tensor, "2 3"]
) -> Float[Tensor, "n_voxels n_features"]:
    """Compute sines and cosines of the voxels' positions, 64 per axis.

    Positions are scaled so that the longest axis of the box spans 100 steps from 0. Features are ordered by
    axis, then by frequency (1000^(-k/32), k = 0 … 31, highest first), then sine before cosine.

    Parameters
    ----------
    coords : float tensor [n_voxels, 3]
    bounding_box : float tensor [2, 3]
        Minimum and maximum of the subject's coordinates. Not computed from `coords`, so that a subset of
        voxels has the same encoding as within the whole brain.

    Raises
    ------
    InputError
        If the box has no extent or is not finite, or a voxel lies outside it.
    """
    return _waves(_steps(coords, bounding_box)).flatten(1)


def compact_encoding(
    coords: Float[Tensor, "n_voxels 3"], bounding_box: Float[Tensor, "2 3"]
) -> tuple[Float[Tensor, "n_voxels n_kept"], Float[Tensor, "n_kept n_features"]]:
    """Factorise `position_encoding` into two matrices whose product equals it up to rounding.

    Over the 100 steps of an axis, the 64 waves of at most a sixth of a cycle per step span only about 30
    functions (Landau and Pollak 1962, Bell Syst. Tech. J. 41:1295), and fewer over a shorter axis. This more
    than halves the work of networks on the first matrix. The second depends only on the box.

    Raises
    ------
    InputError
        As in `position_encoding`.
    """
    precise = bounding_box.double()
    waves = _waves(_steps(coords.double(), precise))
    values, expansions = [], []
    for axis, extent in enumerate(_steps(precise[1:], precise)[0]):
        grid = torch.linspace(-_MARGIN, extent.item() + _MARGIN, _N_GRID, dtype=torch.float64)
        _, strength, directions = torch.linalg.svd(_waves(grid[:, None])[:, 0], full_matrices=False)
        kept = directions[strength > 0.1 * torch.finfo(coords.dtype).eps * strength[0]]
        values.append(waves[:, axis] @ kept.T)
        expansions.append(kept)
    return torch.cat(values, dim=1).to(coords), torch.block_diag(*expansions).to(coords)


def _steps(
    coords: Float[Tensor, "n_voxels 3"], bounding_box: Float[Tensor, "2 3"]
) -> Float[Tensor, "n_voxels 3"]:
    """Scale positions within the box so that the longest axis spans `N_STEPS` from 0."""
    lowest, highest = bounding_box
    longest = (highest - lowest).max()
    if not (torch.isfinite(bounding_box).all() and longest > 0):
        raise InputError(
            f"bounding_box: expected a finite minimum and maximum per axis that differ along at least one, "
            f"found {bounding_box.tolist()}"
        )
    per_unit = N_STEPS / longest
    steps = (coords - lowest) * per_unit
    inside = (steps > -_MARGIN) & (steps < (highest - lowest) * per_unit + _MARGIN)
    if not inside.all():
        voxel = int((~inside.all(dim=1)).nonzero()[0])
        raise InputError(
            f"coords: voxel {voxel} at {coords[voxel].tolist()} is not in bounding_box, from "
            f"{lowest.tolist()} to {highest.tolist()}"
        )
    return steps


def _waves(steps: Float[Tensor, "n_places n_axes"]) -> Float[Tensor, "n_places n_axes n_features"]:
    frequencies = torch.logspace(0, 1 / N_FREQUENCIES - 1, N_FREQUENCIES, base=PERIOD_BASE).to(steps)
    angles = steps[..., None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(2)
