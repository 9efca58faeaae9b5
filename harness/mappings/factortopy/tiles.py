"""Sample tokens at every voxel's own place on a GPU: the products of `sampling` in tiles of one shape.

On a GPU every operation costs a launch, and a number that Python needs stops the host until the device has
computed it. So voxels are cut, after sorting by cell, into tiles of `TILE` voxels of one cell each. How many
tiles there can be follows from the number of voxels and of cells alone, so all shapes are known beforehand:
a batched product multiplies all tiles at once, nothing is read by the host, and a step can be captured as a
CUDA graph. No sum depends on the order in which threads arrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

# row and column of the tokens around a place, in the order of `sampling`'s shares
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))
TILE = 128  # voxels: on average half a tile per cell is padding, and each tile copies its cell's tokens


def read_tiles(
    local: Float[Tensor, "n_layers n_images height width n_channels"],
    global_: Float[Tensor, "n_layers n_images n_channels"],
    cell: Int[Tensor, " n_voxels"],
    shares: Float[Tensor, "n_voxels 5"],
    layer: Float[Tensor, "n_voxels n_layers"],
    weight: Float[Tensor, "n_voxels n_channels"],
    expanded: bool,
) -> Float[Tensor, "n_images n_voxels"]:
    """Compute what `sampling.read_tokens` does.

    Parameters
    ----------
    local, global_ : float tensors
        All layers' tokens.
    cell : int tensor [n_voxels], 0 to (height + 1) (width + 1) - 1
        Which four tokens, of the image framed by zeros, lie around the voxel's place; row by row.
    shares : float tensor [n_voxels, 5]
        Of these four tokens (`CORNERS`) and of the global one.
    layer, weight : float tensors [n_voxels, n_layers], [n_voxels, n_channels]
    expanded : bool
        Whether weights are expanded over layers before they meet the tokens; otherwise layers are mixed
        after. Only memory and rounding depend on it.
    """
    # d channels, l layers, b images, y and x places
    framed = F.pad(local, (0, 0, 1, 1, 1, 1))
    if expanded:
        readout = (layer[:, :, None] * weight[:, None, :]).flatten(1)
        near, far = shares[:, :-1], shares[:, -1:]
        framed, whole = framed.permute(2, 3, 0, 4, 1).flatten(2, 3), global_.mT.flatten(0, 1)
    else:
        readout = weight
        near = (shares[:, :-1, None] * layer[:, None, :]).flatten(1)
        far = shares[:, -1:] * layer
        framed, whole = framed.permute(2, 3, 4, 0, 1).flatten(3), global_.permute(2, 0, 1).flatten(1)
    height, width = local.shape[2] + 1, local.shape[3] + 1
    corners = [framed[y : y + height, x : x + width] for y, x in CORNERS]
    tokens = torch.stack(corners, dim=3).flatten(3).flatten(0, 1)
    read = _ReadTiles.apply(tokens, readout, near, _cut(cell, len(tokens), tokens.dtype))
    return (read + _mix(far, readout @ whole)).T


@dataclass(frozen=True)
class _Tiles:
    """Places of voxels in tiles.

    Slots are the places of all tiles, tile by tile. Slots without a voxel name voxel 0 and have no share in
    `filled`.
    """

    slot_of_voxel: Int[Tensor, " n_voxels"]
    voxel_of_slot: Int[Tensor, " n_slots"]
    filled: Float[Tensor, "n_slots 1"]  # 1 or 0
    cell_of_tile: Int[Tensor, " n_tiles"]
    tiles_of_cell: Float[Tensor, "n_cells n_tiles"]  # 1 where a tile is of a cell


def _cut(cell: Int[Tensor, " n_voxels"], n_cells: int, dtype: torch.dtype) -> _Tiles:
    """Sort voxels by cell and cut each cell's into tiles; every shape follows from the arguments' shapes."""
    n_voxels = len(cell)
    # each cell's last tile holds one voxel at least
    n_tiles = (n_voxels + n_cells * (TILE - 1)) // TILE
    numbers = torch.arange(max(n_voxels, n_tiles, n_cells + 1), device=cell.device)
    ordered, order = cell.sort(stable=True)
    begins = torch.searchsorted(ordered, numbers[: n_cells + 1])
    n_of_cell = (begins.diff() + (TILE - 1)) // TILE
    ends = n_of_cell.cumsum(0)
    first_slot = (ends - n_of_cell) * TILE - begins[:-1]
    slots = first_slot.index_select(0, ordered) + numbers[:n_voxels]
    filled = torch.zeros(n_tiles * TILE, dtype=dtype, device=cell.device)
    cell_of_tile = torch.searchsorted(ends, numbers[:n_tiles], right=True).clamp(max=n_cells - 1)
    return _Tiles(
        torch.empty_like(order).scatter_(0, order, slots),
        order.new_zeros(n_tiles * TILE).scatter_(0, slots, order),
        filled.scatter_(0, slots, 1.0)[:, None],
        cell_of_tile,
        (cell_of_tile == numbers[:n_cells, None]).to(dtype),
    )


class _ReadTiles(torch.autograd.Function):
    """Σ_m mixture_nm (readout_n · tokens_c(n),m) with the tokens of voxel n's cell c(n).

    tokens [n_cells, n_features, n_mixed * n_images], readout [n_voxels, n_features], mixture
    [n_voxels, n_mixed] → [n_voxels, n_images]
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, readout: Tensor, mixture: Tensor, tiles: _Tiles) -> Tensor:
        in_tiles = readout.index_select(0, tiles.voxel_of_slot).unflatten(0, (-1, TILE))
        products = torch.bmm(in_tiles, tokens.index_select(0, tiles.cell_of_tile)).flatten(0, 1)
        mixed = _mix(mixture.index_select(0, tiles.voxel_of_slot), products)
        ctx.save_for_backward(tokens, readout, mixture, products)
        ctx.tiles = tiles
        return mixed.index_select(0, tiles.slot_of_voxel)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tokens, readout, mixture, products = ctx.saved_tensors
        tiles = ctx.tiles
        gradient = gradient.index_select(0, tiles.voxel_of_slot) * tiles.filled
        to_mixture = torch.bmm(products.unflatten(1, (mixture.shape[1], -1)), gradient[:, :, None]).squeeze(2)
        of_slots = mixture.index_select(0, tiles.voxel_of_slot)
        to_products = (of_slots[:, :, None] * gradient[:, None, :]).flatten(1).unflatten(0, (-1, TILE))
        to_readout = torch.bmm(to_products, tokens.index_select(0, tiles.cell_of_tile).mT).flatten(0, 1)
        in_tiles = readout.index_select(0, tiles.voxel_of_slot).unflatten(0, (-1, TILE))
        # a product, because adding tiles to cells by index would add in any order
        to_tokens = tiles.tiles_of_cell @ torch.bmm(in_tiles.mT, to_products).flatten(1)
        return (
            to_tokens.view_as(tokens),
            to_readout.index_select(0, tiles.slot_of_voxel),
            to_mixture.index_select(0, tiles.slot_of_voxel),
            None,
        )


def _mix(
    mixture: Float[Tensor, "n_places n_mixed"], products: Float[Tensor, "n_places n_mixed_images"]
) -> Float[Tensor, "n_places n_images"]:
    return torch.bmm(mixture[:, None, :], products.unflatten(1, (mixture.shape[1], -1))).squeeze(1)


def stack_layers(layers: Sequence[Tensor] | Tensor) -> Float[Tensor, "n_layers ..."]:
    """Return all layers' tokens as one array, as they are if they are that."""
    return layers if isinstance(layers, Tensor) else torch.stack(list(layers))
