"""The sinusoidal position encoding, and its compact form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from harness.mappings.factortopy.position_encoding import (
    compact_encoding,
    position_encoding,
)
from harness.storage.errors import InputError

BOX = torch.tensor([[-40.0, -30.0, -20.0], [60.0, 30.0, 20.0]], dtype=torch.float64)


def test_position_encoding_by_hand() -> None:
    box = torch.tensor([[-10.0, 0.0, 5.0], [40.0, 20.0, 6.0]])
    found = position_encoding(torch.tensor([[15.0, 10.0, 5.0]]), box)
    assert found.shape == (1, 192)
    for feature, angle in (
        (0, 50.0),
        (62, 50 * 1000 ** (-31 / 32)),
        (64, 20.0),
        (66, 20 * 1000 ** (-1 / 32)),
        (128, 0.0),
    ):
        assert found[0, feature].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert found[0, feature + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


@pytest.mark.parametrize(
    "box",
    [
        torch.zeros(2, 3),
        torch.tensor([[0.0, 0, 0], [1, float("nan"), 1]]),
        torch.tensor([[1.0, 1, 1], [0, 0, 0]]),
    ],
)
def test_box_without_extent_is_refused(box: Tensor) -> None:
    with pytest.raises(InputError, match="bounding_box"):
        position_encoding(torch.zeros(2, 3), box)


def test_voxel_outside_of_the_box_is_named() -> None:
    coords = torch.tensor([[0.0, 0.0, 0.0], [0.0, 31.5, 0.0]], dtype=torch.float64)
    with pytest.raises(InputError, match=r"voxel 1 at \[0.0, 31.5, 0.0\] is not in bounding_box"):
        position_encoding(coords, BOX)
    coords[1, 1] = float("nan")
    with pytest.raises(InputError, match="voxel 1"):
        compact_encoding(coords, BOX)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
@pytest.mark.parametrize("flat", [False, True])
def test_compact_encoding_is_the_encoding(dtype: torch.dtype, bound: float, flat: bool) -> None:
    """Compare everywhere in the box, corners included, also without extent along an axis."""
    torch.manual_seed(0)
    box = BOX.clone()
    box[:, 2] = box[0, 2] if flat else box[:, 2]
    coords = box[0] + torch.rand(500, 3, dtype=torch.float64) * (box[1] - box[0])
    coords = torch.cat([coords, box]).to(dtype)
    places, expansion = compact_encoding(coords, box.to(dtype))
    assert places.dtype == expansion.dtype == dtype
    exact = position_encoding(coords.double(), box)
    torch.testing.assert_close((places @ expansion).double(), exact, rtol=0, atol=bound)
    if dtype == torch.float32:
        assert places.shape[1] < 192 / 2


def test_compact_encoding_of_a_voxel_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    coords = BOX[0] + torch.rand(20, 3, dtype=torch.float64) * (BOX[1] - BOX[0])
    (all_, expansion), (some, same) = compact_encoding(coords, BOX), compact_encoding(coords[5:9], BOX)
    assert torch.equal(expansion, same)
    torch.testing.assert_close(all_[5:9], some, rtol=0, atol=1e-14)
