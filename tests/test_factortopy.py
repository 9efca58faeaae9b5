"""FactorTopy against grid_sample, closed forms and its documented guarantees."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from gradients import assert_same_with_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.mappings.factortopy.model import FactorTopy
from harness.mappings.factortopy.position_encoding import position_encoding
from harness.mappings.factortopy.selectors import SelectorTensors
from harness.storage.errors import InputError

BOX = torch.tensor([[-40.0, -30.0, -20.0], [60.0, 30.0, 20.0]], dtype=torch.float64)


def predict_plainly(model: FactorTopy, coords: Tensor, local: list[Tensor], global_: list[Tensor]) -> Tensor:
    """Apply the formula as written, one layer after the other."""
    encoding = position_encoding(coords, BOX)
    chosen = SelectorTensors(
        model.space_selector(encoding).tanh(),
        model.layer_selector(encoding).softmax(dim=-1),
        model.scale_selector(encoding).squeeze(-1).sigmoid(),
    )
    scale = chosen.scale[:, None]
    mixed = torch.zeros(1, dtype=torch.float64)
    for i, (local_layer, global_layer) in enumerate(zip(local, global_, strict=True)):
        tokens = torch.einsum("bchw,dc->bdhw", local_layer, model.local_bottleneck[i].weight)
        grid = chosen.space.view(1, -1, 1, 2).expand(len(tokens), -1, -1, -1)
        sampled = F.grid_sample(tokens, grid, align_corners=False).squeeze(-1).transpose(1, 2)
        whole = global_layer @ model.global_bottleneck[i].weight.T
        mixed = mixed + chosen.layer[:, i, None] * ((1 - scale) * sampled + scale * whole[:, None, :])
    return (mixed * model.weight).mean(dim=-1) + model.bias


@settings(max_examples=30, deadline=None)
@given(
    n_voxels=st.integers(1, 500),
    n_images=st.integers(1, 4),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    n_channels=st.integers(1, 12),
    spread=st.sampled_from([0.0, 0.5, 5.0, 500.0]),
    seed=st.integers(0, 2**31),
)
def test_model_is_its_formula(
    n_voxels: int,
    n_images: int,
    size: tuple[int, int],
    widths: list[int],
    n_channels: int,
    spread: float,
    seed: int,
) -> None:
    """Compare from all voxels at the centre (spread 0) to all in the corners (saturated tanh)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        coords = draw_coords(n_voxels)
        model = make_model(coords, widths, n_channels, spread)
        local = [torch.randn(n_images, width, *size, dtype=torch.float64) for width in widths]
        global_ = [torch.randn(n_images, width, dtype=torch.float64) for width in widths]
    parameters = list(model.parameters())
    plain = predict_plainly(model, coords, local, global_)
    assert_same_with_gradients(model(local, global_), plain, parameters)


def draw_coords(n_voxels: int) -> Tensor:
    """Draw coordinates anywhere in the box."""
    return BOX[0] + torch.rand(n_voxels, 3, dtype=torch.float64) * (BOX[1] - BOX[0])


def make_model(coords: Tensor, widths: list[int], n_channels: int, spread: float) -> FactorTopy:
    """Make a model in float64 whose selectors' last layers are random."""
    model = FactorTopy(coords, BOX, widths, n_channels).double()
    for network in (model.space_selector, model.layer_selector, model.scale_selector):
        torch.nn.init.normal_(network[-1].weight, std=spread)
    return model


def test_subset_of_voxels_has_the_selectors_it_has_among_all() -> None:
    torch.manual_seed(0)
    coords = draw_coords(20)
    assert torch.equal(position_encoding(coords, BOX)[5:9], position_encoding(coords[5:9], BOX))
    # the module owns its box: later changes by the caller do not reach it
    box = BOX.clone()
    model = FactorTopy(coords, box, [3], 2)
    box += 1
    assert torch.equal(model.bounding_box, BOX)


def test_no_layers_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        FactorTopy(torch.zeros(2, 3), BOX.float(), [], 4)


def test_start_is_undecided() -> None:
    torch.manual_seed(0)
    model = FactorTopy(torch.rand(50, 3), BOX.float(), [3, 4, 5, 6], 16)
    chosen = model.selectors()
    assert torch.equal(chosen.space, torch.zeros(50, 2))
    torch.testing.assert_close(chosen.layer, torch.full((50, 4), 0.25))
    assert torch.equal(chosen.scale, torch.full((50,), 0.5))
    assert model.regularizer().item() == pytest.approx(-1.0)
    assert 0.24 < model.weight.abs().max().item() <= 0.25  # uniform within 1/sqrt(16)


def test_regularizer_by_hand() -> None:
    torch.manual_seed(0)
    model = make_model(draw_coords(2), [3, 3], 2, spread=0.0)
    chosen = SelectorTensors(
        space=torch.zeros(2, 2, dtype=torch.float64),
        layer=torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.float64),
        scale=torch.tensor([1.0, 0.5], dtype=torch.float64),
    )
    # negative entropies 0 and -1 (in units of the largest); squared distances 0.25 and 0
    assert model.regularizer(chosen).item() == pytest.approx(-0.5 + 0.125)


def test_regularizer_of_one_layer_is_finite() -> None:
    torch.manual_seed(0)
    model = make_model(draw_coords(7), [3], 2, spread=1.0)
    assert model.regularizer().item() == pytest.approx((model.selectors().scale - 0.5).square().mean().item())


def test_selectors_given_are_the_ones_used() -> None:
    torch.manual_seed(0)
    model = make_model(draw_coords(9), [3, 4], 2, spread=1.0)
    local = [torch.randn(2, n, 3, 4, dtype=torch.float64) for n in (3, 4)]
    global_ = [torch.randn(2, n, dtype=torch.float64) for n in (3, 4)]
    assert torch.equal(model(local, global_), model(local, global_, model.selectors()))
    last = SelectorTensors(
        model.selectors().space, torch.tensor([[0.0, 1.0]]).double().repeat(9, 1), torch.ones(9).double()
    )
    expected = (global_[1] @ model.global_bottleneck[1].weight.T) @ model.weight.T / 2 + model.bias
    torch.testing.assert_close(model(local, global_, last), expected)


def test_memory_format_does_not_matter() -> None:
    torch.manual_seed(0)
    model = make_model(draw_coords(9), [3], 2, spread=1.0)
    local, global_ = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    last = local.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model([local], [global_]), model([last], [global_]))


def test_a_part_of_the_voxels_is_predicted_as_among_all() -> None:
    model = make_model(draw_coords(50), [4, 3], 6, 0.5)
    local = [torch.randn(3, width, 4, 5, dtype=torch.float64) for width in (4, 3)]
    global_ = [torch.randn(3, width, dtype=torch.float64) for width in (4, 3)]
    part = model(local, global_, voxels=slice(10, 23))
    torch.testing.assert_close(part, model(local, global_)[:, 10:23], rtol=1e-12, atol=1e-12)


def test_voxels_that_have_wholly_decided_have_finite_gradients() -> None:
    """Softmax underflows to 0, where the gradient of the entropy is infinite."""
    layer = torch.tensor([[0.0, 300.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    scale = torch.full((2,), 0.5)
    model = FactorTopy(torch.rand(2, 3), torch.tensor([[0.0] * 3, [1.0] * 3]), [4, 4, 4], 2)
    chosen = SelectorTensors(torch.zeros(2, 2), layer.softmax(dim=1), scale)
    assert chosen.layer[0].tolist() == [0, 1, 0]
    found = model.regularizer(chosen)
    assert found.item() == pytest.approx(-0.5)  # one voxel of two has maximal entropy
    found.backward()
    assert torch.isfinite(layer.grad).all()
