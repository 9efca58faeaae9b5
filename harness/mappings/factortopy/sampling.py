"""Sample tokens at every voxel's own place without storing any sampled token.

A voxel's reading is linear in the tokens, in its shares of the tokens around its place, and in its weights,
so the order of products is free: voxels between the same four tokens are sorted together, and a few dense
matrix products multiply their weights by these tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness.mappings.factortopy.tiles import (
    read_tiles,
    stack_layers,
)

PARTS = (2, 2, 1)  # the two upper tokens around a place, the two lower ones, and the global one
N_SHARES = sum(PARTS)


def uses_tiles(device: torch.device) -> bool:
    """Whether tokens are sampled on this device in tiles, rather than cell by cell."""
    return device.type == "cuda"


def read_tokens(
    local: Sequence[Float[Tensor, "n_images height width n_channels"]]
    | Float[Tensor, "n_layers n_images height width n_channels"],
    global_: Sequence[Float[Tensor, "n_images n_channels"]] | Float[Tensor, "n_layers n_images n_channels"],
    space: Float[Tensor, "n_voxels 2"],
    layer: Float[Tensor, "n_voxels n_layers"],
    scale: Float[Tensor, " n_voxels"],
    weight: Float[Tensor, "n_voxels n_channels"],
) -> Float[Tensor, "n_images n_voxels"]:
    """Compute Σ_l ω_nl w_n · [(1 - α_n) sample(local_l, u_n) + α_n global_l] for every image and voxel n.

    `sample` is ``grid_sample``: bilinear, zero outside the image, ``align_corners=False``.

    Parameters
    ----------
    local, global_ : sequences of float tensors, one per layer, or one array of all layers each
        All with the same height and width.
    space : float tensor [n_voxels, 2]
        u: x along the width, then y; -1 and 1 are the image's edges.
    layer, scale, weight : float tensors [n_voxels, n_layers], [n_voxels], [n_voxels, n_channels]
        ω, α and w.
    """
    n_images, height, width, n_channels = local[0].shape
    cell, shares = _locate(space, scale, height, width)
    # the order of products that needs less memory: a voxel's weights are the same in all layers, so they can
    # multiply all layers' tokens before layers are mixed, or be expanded over the layers first
    expanded = N_SHARES * n_images > n_channels
    if uses_tiles(space.device):
        # `cell` counts along framed rows, of which the last token begins no cell
        cell = cell - cell // (width + 2)
        tokens = stack_layers(local), stack_layers(global_)
        return read_tiles(*tokens, cell, shares, layer, weight, expanded)
    if not expanded:
        framed = _Frame.apply("dylb", *local)
        whole = torch.stack([layer.T for layer in global_], dim=1)
        mixture = (shares[:, :, None] * layer[:, None, :]).flatten(1)
        return _Read.apply(framed, whole, weight, mixture, cell, width + 2).T
    framed = _Frame.apply("ldyb", *local).flatten(0, 1)[:, :, None]
    whole = torch.cat([layer.T for layer in global_])[:, None]
    readout = (layer[:, :, None] * weight[:, None, :]).flatten(1)
    return _Read.apply(framed, whole, readout, shares, cell, width + 2).T


def read_features(
    local: Sequence[Float[Tensor, "n_images height width n_channels"]],
    global_: Sequence[Float[Tensor, "n_images n_channels"]],
    space: Float[Tensor, "n_voxels 2"],
    layer: Float[Tensor, "n_voxels n_layers"],
    scale: Float[Tensor, " n_voxels"],
    most: int,
) -> Iterator[tuple[Int[Tensor, " n_chosen"], Float[Tensor, "n_chosen n_images n_channels"]]]:
    """Yield Σ_l ω_nl [(1 - α_n) sample(local_l, u_n) + α_n global_l] of voxels, a few at a time.

    Parameters
    ----------
    local, global_, space, layer, scale
        As of `read_tokens`.
    most : int
        Voxels at a time, to bound memory.

    Yields
    ------
    int tensor [n_chosen]
        The voxels; every voxel comes once.
    float tensor [n_chosen, n_images, n_channels]
    """
    n_images, height, width, n_channels = local[0].shape
    cell, shares = _locate(space, scale, height, width)
    framed = _Frame.apply("ylbd", *local)
    whole = torch.stack(list(global_))
    mixture = (shares[:, :, None] * layer[:, None, :]).flatten(1)
    for first in cell.unique().tolist():
        below = first + width + 2
        around = torch.cat([*framed[first : first + 2], *framed[below : below + 2], whole]).flatten(1)
        for voxels in (cell == first).nonzero().squeeze(1).split(most):
            yield voxels, (mixture[voxels] @ around).view(len(voxels), n_images, n_channels)


def _locate(
    space: Float[Tensor, "n_voxels 2"], scale: Float[Tensor, " n_voxels"], height: int, width: int
) -> tuple[Int[Tensor, " n_voxels"], Float[Tensor, "n_voxels 5"]]:
    """Find the first of the four framed tokens around each place, and shares of the four and the global."""
    # filled on the device: a copy from the host would stop it at every step
    size = torch.stack([space.new_full((), edge) for edge in (width, height)])
    # grid_sample's own expression and floor, so that gradients at a token's centre take the same side
    place = ((space + 1) * size - 1) / 2
    corner = place.detach().floor()
    inside = ((corner >= -1) & (corner < size)).all(dim=1)
    x, y = (place - corner).unbind(dim=1)
    near = (1 - scale) * inside
    shares = [near * (1 - y) * (1 - x), near * (1 - y) * x, near * y * (1 - x), near * y * x, scale]
    column, row = corner.long().unbind(dim=1)
    return torch.where(inside, (row + 1) * (width + 2) + column + 1, 0), torch.stack(shares, dim=1)


class _Frame(torch.autograd.Function):
    """All layers' tokens in one array, framed by zeros, so that every place has four tokens around it.

    [n_images, height, width, n_channels] each → axes as in `axes`: d channels, l layers, b images, and y for
    both axes of the framed image, row by row.
    """

    @staticmethod
    def forward(ctx: Any, axes: str, *layers: Tensor) -> Tensor:
        n_images, height, width, n_channels = layers[0].shape
        sizes = {"d": n_channels, "y": (height + 2) * (width + 2), "l": len(layers), "b": n_images}
        framed = layers[0].new_zeros([sizes[axis] for axis in axes])
        ctx.axes, ctx.size = axes, (height + 2, width + 2)
        for inner, layer in zip(_inside(framed, axes, ctx.size), layers, strict=True):
            inner.copy_(layer)
        return framed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_inside(gradient, ctx.axes, ctx.size)


def _inside(framed: Tensor, axes: str, size: tuple[int, int]) -> list[Tensor]:
    """Return views of each layer's tokens [n_images, height, width, n_channels] in a framed array."""
    layers = framed.movedim([axes.index(axis) for axis in "lbyd"], [0, 1, 2, 3]).unflatten(2, size)
    return list(layers[:, :, 1:-1, 1:-1].unbind())


class _Read(torch.autograd.Function):
    """Σ_sm mixture_nsm (readout_n · token_s(n),m) with the tokens s(n) of voxel n's cell, and the global one.

    framed [n_features, n_tokens, n_mixed, n_images], whole [n_features, n_mixed, n_images],
    readout [n_voxels, n_features], mixture [n_voxels, 5 * n_mixed], cell [n_voxels] → [n_voxels, n_images]
    """

    @staticmethod
    def forward(
        ctx: Any, framed: Tensor, whole: Tensor, readout: Tensor, mixture: Tensor, cell: Tensor, below: int
    ) -> Tensor:
        n_features, _, n_mixed, n_images = framed.shape
        order = cell.argsort()
        counts = torch.bincount(cell).tolist()
        readout, mixture = readout.index_select(0, order), mixture.index_select(0, order)
        # products with the upper two tokens (neighbours in a row are adjacent), the lower two, and the global
        # one. Separate arrays, because allocators keep arrays of this size but return larger ones
        products = [readout.new_empty(len(order), n * n_mixed * n_images) for n in PARTS]
        cells = _cells(counts)
        for (_, voxels), rows in zip(cells, _rows(framed, cells, below), strict=True):
            for tokens, product in zip(rows, products[:2], strict=True):
                torch.mm(readout[voxels], tokens, out=product[voxels])
        torch.mm(readout, whole.view(n_features, -1), out=products[2])
        ctx.save_for_backward(framed, whole, readout, mixture, order, *products)
        ctx.counts, ctx.below = counts, below
        mixed = readout.new_zeros(len(order), 1, n_images)
        for part, product in zip(_parts(mixture, n_mixed), products, strict=True):
            mixed.baddbmm_(part[:, None, :], product.view(len(order), -1, n_images))
        return _put_back(mixed.squeeze(1), order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        framed, whole, readout, mixture, order, *products = ctx.saved_tensors
        n_features, _, n_mixed, n_images = framed.shape
        gradient = gradient.index_select(0, order)
        parts = _parts(mixture, n_mixed)
        to_mixture = torch.empty_like(mixture)
        for to_part, product in zip(_parts(to_mixture, n_mixed), products, strict=True):
            to_part.copy_(torch.bmm(product.view(len(order), -1, n_images), gradient[:, :, None]).squeeze(2))

        to_framed = torch.zeros_like(framed)
        of_whole = (parts[2][:, :, None] * gradient[:, None, :]).flatten(1)
        to_readout = of_whole @ whole.view(n_features, -1).T
        to_whole = (readout.T @ of_whole).view_as(whole)
        cells = _cells(ctx.counts)
        rows, to_rows = (_rows(tensor, cells, ctx.below) for tensor in (framed, to_framed))
        for (_, voxels), own, to_own in zip(cells, rows, to_rows, strict=True):
            for part, tokens, to_tokens in zip(parts[:2], own, to_own, strict=True):
                # one part at a time: all together would be as large as the products
                to_product = (part[voxels, :, None] * gradient[voxels, None, :]).flatten(1)
                to_readout[voxels].addmm_(to_product, tokens.T)
                to_tokens.addmm_(readout[voxels].T, to_product)
        return to_framed, to_whole, _put_back(to_readout, order), _put_back(to_mixture, order), None, None


def _parts(mixture: Float[Tensor, "n_voxels n_all_mixed"], n_mixed: int) -> Sequence[Tensor]:
    return mixture.split([n * n_mixed for n in PARTS], dim=1)


def _cells(counts: list[int]) -> list[tuple[int, slice]]:
    """List the cells with voxels, and the slice of each cell's voxels after sorting by cell."""
    found, start = [], 0
    for cell, count in enumerate(counts):
        if count:
            found.append((cell, slice(start, start + count)))
        start += count
    return found


def _rows(framed: Tensor, cells: list[tuple[int, slice]], below: int) -> list[list[Tensor]]:
    """Return every cell's two neighbouring tokens and the two below them, as two matrices (views)."""
    return [
        [framed[:, start : start + 2].view(len(framed), -1) for start in (first, first + below)]
        for first, _ in cells
    ]


def _put_back(values: Tensor, order: Tensor) -> Tensor:
    # gathering rows takes a third of the time of scattering them
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    return values.index_select(0, places)
