"""Attention over tokens recovers planted wiring, even if it moves with the image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import N_IMAGES, TOKEN_SIZE, check_family, check_recovery, fit_planted, make_planted

from harness.config.mapping import (
    AttentionConfig,
    FreeSelectorsConfig,
)
from harness.mappings.attention import (
    Attention,
    Reading,
    where_attended,
)
from harness.storage.errors import InputError
from harness.tokens.extraction import LayerTokens

CONFIG = AttentionConfig(
    token_size=TOKEN_SIZE, n_channels=16, batch_size=48, steps=200, lr=1e-2, regularization_steps=100
)
QUICK = CONFIG.model_copy(update={"steps": 5})


def test_planted_selectors_are_recovered() -> None:
    check_recovery(CONFIG, off_scale=0.1)


def test_interface() -> None:
    check_family(QUICK)


def test_what_moves_with_the_image_is_followed() -> None:
    """Voxels read a token marked in one channel, at a different place in every image."""
    generator = torch.Generator().manual_seed(0)
    marked = torch.randint(TOKEN_SIZE**2, (N_IMAGES,), generator=generator)
    local = torch.randn(N_IMAGES, 6, TOKEN_SIZE**2, generator=generator)
    local[:, 0] = 0
    local[torch.arange(N_IMAGES), 0, marked] = 6
    read = local[torch.arange(N_IMAGES), :, marked][:, 1:]
    responses = read @ torch.randn(5, 40, generator=generator)
    planted = make_planted()
    moving = replace(
        planted,
        tokens=LayerTokens(
            (local.view(N_IMAGES, 6, TOKEN_SIZE, TOKEN_SIZE),),
            (torch.randn(N_IMAGES, 6, generator=generator),),
            ("block0",),
        ),
        responses=responses.numpy(),
        coords=planted.coords[:40],
    )
    assert fit_planted(moving, CONFIG).r2.mean() > 0.7
    fixed = FreeSelectorsConfig(**CONFIG.model_dump(exclude={"family"}))
    assert fit_planted(moving, fixed).r2.mean() < 0.3


def make_model() -> tuple[Attention, list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    model = Attention(7, [3, 5], n_channels=4, n_places=6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    local = [torch.randn(2, width, 2, 3, generator=generator) for width in (3, 5)]
    global_ = [torch.randn(2, width, generator=generator) for width in (3, 5)]
    return model, local, global_


def test_prediction_by_hand() -> None:
    model, local, global_ = make_model()
    found = model(local, global_, model.selectors())
    layer = model.layer_logits.softmax(dim=1)
    for image in range(2):
        for voxel in range(7):
            value = torch.zeros(4)
            for index in range(2):
                places = local[index][image].flatten(1).T
                keys = torch.cat(
                    [
                        places @ model.local_key[index].weight.T,
                        global_[index][image : image + 1] @ model.global_key[index].weight.T,
                    ]
                )
                logits = (keys + model.place) @ model.query[voxel] / 2
                logits[-1] += np.log(6)
                values = torch.cat(
                    [
                        places @ model.local_value[index].weight.T,
                        global_[index][image : image + 1] @ model.global_value[index].weight.T,
                    ]
                )
                value = value + layer[voxel, index] * (logits.softmax(0) @ values)
            expected = value @ model.weight[voxel] / 4 + model.bias[voxel]
            torch.testing.assert_close(found[image, voxel], expected)
    part = slice(2, 5)
    torch.testing.assert_close(model(local, global_, model.selectors(part), part), found[:, part])


def test_start_is_undecided() -> None:
    _, local, global_ = make_model()
    model = Attention(7, [3, 5], n_channels=4, n_places=6)
    start = model.selectors()
    assert torch.equal(start.layer, torch.full((7, 2), 0.5))
    assert model.regularizer(start).item() == pytest.approx(-1)
    space, scale = where_attended(model, [LayerTokens(tuple(local), tuple(global_), ("a", "b"))])
    torch.testing.assert_close(scale, torch.full((7,), 0.5))
    torch.testing.assert_close(space, torch.zeros(7, 2))
    assert model.regularizer(Reading(torch.ones(7, 1), start.query)).item() == 0


def test_where_attended_by_hand() -> None:
    model, local, global_ = make_model()
    tokens = LayerTokens(tuple(local), tuple(global_), ("a", "b"))
    with torch.no_grad():
        for module in (*model.local_key, *model.global_key):
            module.weight.zero_()
        model.place.zero_()
        # by embeddings alone: nearly all on the right token of the upper row
        model.place[2] = 50.0
        model.query.fill_(1.0)
    space, scale = where_attended(model, [tokens.take([0]), tokens.take([1])])
    torch.testing.assert_close(space, torch.tensor([[2 / 3, -0.5]]).expand(7, 2))
    torch.testing.assert_close(scale, torch.zeros(7))
    with torch.no_grad():
        model.place[2], model.place[6] = 0.0, 500.0
    space, scale = where_attended(model, [tokens])
    assert torch.isfinite(space).all()
    torch.testing.assert_close(scale, torch.ones(7))


def test_a_layer_is_needed() -> None:
    with pytest.raises(InputError, match="at least one layer"):
        Attention(3, [], n_channels=4, n_places=6)
