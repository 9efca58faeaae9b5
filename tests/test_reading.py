"""Reading tokens equals grid_sample and inner products, in values and gradients."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from gradients import assert_same_with_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.mappings.factortopy import sampling
from harness.mappings.factortopy.sampling import (
    N_SHARES,
    read_tokens,
)


@dataclass(frozen=True)
class Reading:
    """Arguments of `read_tokens` in float64, with gradients."""

    local: tuple[Tensor, ...] | Tensor
    global_: tuple[Tensor, ...] | Tensor
    space: Tensor
    layer: Tensor
    scale: Tensor
    weight: Tensor

    @property
    def leaves(self) -> list[Tensor]:
        return [*self.local, *self.global_, self.space, self.layer, self.scale, self.weight]

    def read(self, tiled: bool = False) -> Tensor:
        """Read by cell as on a CPU, or in tiles as on a GPU."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sampling, "uses_tiles", lambda device: tiled)
            return self._read()

    def _read(self) -> Tensor:
        return read_tokens(self.local, self.global_, self.space, self.layer, self.scale, self.weight)

    def read_plainly(self) -> Tensor:
        """Apply the formula as written: every voxel's token of every layer by grid_sample."""
        grid = self.space.view(1, -1, 1, 2).expand(len(self.local[0]), -1, -1, -1)
        total = torch.zeros(1, dtype=torch.float64)
        for place, (local, global_) in enumerate(zip(self.local, self.global_, strict=True)):
            sampled = F.grid_sample(local.permute(0, 3, 1, 2), grid, align_corners=False).squeeze(-1)
            mixed = (1 - self.scale) * sampled + self.scale * global_[:, :, None]
            total = total + self.layer[:, place] * torch.einsum("idv,vd->iv", mixed, self.weight)
        return total


def draw_reading(
    n_voxels: int,
    n_images: int,
    size: tuple[int, int],
    n_layers: int,
    n_channels: int,
    spread: float,
    seed: int,
) -> Reading:
    """Draw random tokens and selectors, with places up to `spread` from the centre."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    uniform = torch.rand(n_voxels, 3, dtype=torch.float64, generator=generator)
    reading = Reading(
        local=tuple(draw(n_images, *size, n_channels) for _ in range(n_layers)),
        global_=tuple(draw(n_images, n_channels) for _ in range(n_layers)),
        space=(uniform[:, :2] * 2 - 1) * spread,
        layer=draw(n_voxels, n_layers).softmax(dim=1),
        scale=uniform[:, 2].clone(),
        weight=draw(n_voxels, n_channels),
    )
    for leaf in reading.leaves:
        leaf.requires_grad_()
    return reading


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    n_voxels=st.integers(1, 500),
    # few images with many channels, and many with few: both orders of contraction
    shape=st.sampled_from([(1, 5), (1, 4), (1, 1), (2, 17), (3, 8), (2, 10)]),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    n_layers=st.integers(1, 4),
    spread=st.sampled_from([0.0, 0.4, 1.0, 1.6]),
    seed=st.integers(0, 2**31),
)
def test_reading_is_grid_sample(
    data: st.DataObject,
    n_voxels: int,
    shape: tuple[int, int],
    size: tuple[int, int],
    n_layers: int,
    spread: float,
    seed: int,
) -> None:
    reading = draw_reading(n_voxels, shape[0], size, n_layers, shape[1], spread, seed)
    for axis, length in enumerate((size[1], size[0])):
        # token centres, the edges, the middle, between edge and outermost centre, far outside
        special = [(2 * i + 1) / length - 1 for i in range(length)]
        special += [-1.0, 1.0, 0.0, -1 + 0.3 / length, 1 - 0.3 / length, -1 - 1 / length, 1 + 1 / length, 3.0]
        where = st.tuples(st.integers(0, n_voxels - 1), st.sampled_from(special))
        with torch.no_grad():
            for voxel, place in data.draw(st.lists(where, max_size=30)):
                reading.space[voxel, axis] = place
    for tiled in (False, True):
        assert_same_with_gradients(reading.read(tiled), reading.read_plainly(), reading.leaves)


def test_by_hand() -> None:
    """Tokens 1, 2 over 3, 4: the image's centre is their mean; an edge is half a token, half nothing."""
    tokens = torch.tensor([[[[1.0], [2.0]], [[3.0], [4.0]]]])
    space = torch.tensor([[0.0, 0.0], [0.5, -0.5], [-0.5, 0.5], [1.0, 0.5], [1.0, 1.0], [0.0, 0.0]])
    scale = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.25])
    layer = torch.ones(6, 1)
    found = read_tokens([tokens], [torch.tensor([[10.0]])], space, layer, scale, torch.full((6, 1), 2.0))
    expected = 2 * torch.tensor([[2.5, 2.0, 3.0, 2.0, 1.0, 0.75 * 2.5 + 0.25 * 10]])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("n_channels", [N_SHARES * 2, N_SHARES * 2 - 1])
@pytest.mark.parametrize("spread", [0.0, 1.6])
def test_tiles_are_full_of_one_cell_or_spread_over_all(n_channels: int, spread: float) -> None:
    """A thousand voxels fill eight tiles of the middle cell, or parts of tiles of all 42 and of none."""
    reading = draw_reading(1000, 2, (5, 6), 3, n_channels, spread, seed=2)
    stacked = Reading(torch.stack(reading.local), torch.stack(reading.global_), *reading.leaves[-4:])
    assert_same_with_gradients(stacked.read(tiled=True), reading.read(), reading.leaves)


@pytest.mark.parametrize("n_channels", [N_SHARES * 2, N_SHARES * 2 - 1])
def test_a_subset_of_voxels_reads_what_it_reads_among_all(n_channels: int) -> None:
    reading = draw_reading(200, 2, (3, 5), 3, n_channels, 1.0, seed=0)
    everything = reading.read()
    some = torch.tensor([7, 3, 150, 42])
    part = read_tokens(
        reading.local,
        reading.global_,
        reading.space[some],
        reading.layer[some],
        reading.scale[some],
        reading.weight[some],
    )
    torch.testing.assert_close(part, everything[:, some], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_channels", [N_SHARES * 2, N_SHARES * 2 - 1])
def test_inputs_are_not_changed_and_memory_format_does_not_matter(n_channels: int) -> None:
    reading = draw_reading(50, 2, (4, 3), 2, n_channels, 1.0, seed=1)
    before = [leaf.detach().clone() for leaf in reading.leaves]
    expected = reading.read()
    expected.sum().backward()
    for leaf, was in zip(reading.leaves, before, strict=True):
        torch.testing.assert_close(leaf.detach(), was, rtol=0, atol=0)
    channels_first = tuple(
        layer.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) for layer in reading.local
    )
    other = read_tokens(
        channels_first, reading.global_, reading.space, reading.layer, reading.scale, reading.weight
    )
    torch.testing.assert_close(other, expected, rtol=0, atol=0)
