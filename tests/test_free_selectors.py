"""Free selectors, one set per voxel, recover planted wiring wherever the voxels are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import TOKEN_SIZE, check_family, check_recovery, fit_planted, make_planted

from harness.config.mapping import FreeSelectorsConfig
from harness.mappings.factortopy.selectors import SelectorTensors
from harness.mappings.free_selectors import FreeSelectors
from harness.storage.errors import InputError

CONFIG = FreeSelectorsConfig(
    token_size=TOKEN_SIZE, n_channels=16, batch_size=48, steps=200, lr=1e-2, regularization_steps=100
)
QUICK = CONFIG.model_copy(update={"steps": 5})


def test_planted_selectors_are_recovered() -> None:
    check_recovery(CONFIG, off_scale=0.25)


def test_interface() -> None:
    check_family(QUICK)


def test_places_in_the_brain_do_not_matter() -> None:
    planted = make_planted()
    shuffled = replace(planted, coords=planted.coords[::-1].copy(), bounding_box=np.zeros((2, 3)))
    one, other = fit_planted(planted, QUICK), fit_planted(shuffled, QUICK)
    np.testing.assert_array_equal(one.layer, other.layer)
    np.testing.assert_array_equal(one.space, other.space)


def test_model_starts_undecided_and_predicts_parts_as_the_whole() -> None:
    torch.manual_seed(0)
    model = FreeSelectors(7, [3, 5], n_channels=4)
    start = model.selectors()
    assert torch.equal(start.space, torch.zeros(7, 2))
    assert torch.equal(start.layer, torch.full((7, 2), 0.5))
    assert model.regularizer(start).item() == pytest.approx(-1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    local = [torch.randn(2, width, 3, 3) for width in (3, 5)]
    global_ = [torch.randn(2, width) for width in (3, 5)]
    part = slice(2, 5)
    whole = model(local, global_, model.selectors())
    torch.testing.assert_close(model(local, global_, model.selectors(part), part), whole[:, part])


def test_one_layer_has_no_entropy() -> None:
    model = FreeSelectors(3, [2], n_channels=4)
    scale = torch.tensor([0.0, 0.5, 1.0])
    assert model.regularizer(
        SelectorTensors(torch.zeros(3, 2), torch.ones(3, 1), scale)
    ).item() == pytest.approx(1 / 6)
    with pytest.raises(InputError, match="at least one layer"):
        FreeSelectors(3, [], n_channels=4)
