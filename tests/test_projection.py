"""Images of what a region reads, by hand, and against predictions of fitted models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from planted import fit_planted, make_planted
from scipy.stats import ortho_group

from harness.config.mapping import (
    AttentionConfig,
    FactorTopyConfig,
    FreeSelectorsConfig,
    LayerRidgeConfig,
)
from harness.mappings.factortopy.model import FactorTopy
from harness.mappings.mapping import Mapping
from harness.measures.channels import (
    Directions,
    leading_directions,
)
from harness.measures.projection import (
    Reader,
    open_reader,
    project_tokens,
)
from harness.storage.errors import InputError
from harness.tokens.extraction import LayerTokens
from harness.tokens.frame import TokenFrame

QUICK = {"steps": 4, "token_size": 4, "n_channels": 5, "batch_size": 16}


def made_tokens(grids: tuple[tuple[int, int], ...] = ((3, 4), (3, 4)), seed: int = 0) -> LayerTokens:
    generator = torch.Generator().manual_seed(seed)
    local = tuple(torch.randn(2, 3 + index, *grid, generator=generator) for index, grid in enumerate(grids))
    return LayerTokens(
        local, tuple(layer.mean(dim=(2, 3)) for layer in local), tuple(f"b{i}" for i in range(len(grids)))
    )


def made_reader(tokens: LayerTokens, n_channels: int = 4) -> Reader:
    """Make a nontrivial frame, and bottlenecks that map token channel c to channel c + layer."""
    widths = [layer.shape[1] for layer in tokens.local]
    frame = TokenFrame(
        tuple(torch.full((width,), 0.5) for width in widths),
        torch.arange(2.0, 2 + len(widths)),
        tuple(torch.zeros(width) for width in widths),
        torch.ones(len(widths)),
    )
    local = []
    for index, width in enumerate(widths):
        bottleneck = torch.zeros(n_channels, width)
        for channel in range(min(width, n_channels - index)):
            bottleneck[channel + index, channel] = 1
        local.append(bottleneck)
    return Reader(frame, tuple(local))


def test_a_region_that_reads_one_channel_of_one_layer_shows_that_channel() -> None:
    tokens = made_tokens()
    weights = np.zeros((6, 4))
    weights[:, 2] = np.arange(1, 7)
    directions = leading_directions(weights)
    found = project_tokens(tokens, made_reader(tokens), directions, np.array([0.0, 1.0], np.float32))
    # channel 2 of layer 1 is token channel 1 in the frame: minus 0.5, divided by 3
    expected = (tokens.local[1][:, 1].numpy() - 0.5) / 3
    np.testing.assert_allclose(found.mixed[..., 0], expected, atol=1e-6)
    np.testing.assert_allclose(found.layers[1][..., 0], expected, atol=1e-6)
    np.testing.assert_allclose(found.layers[0][..., 0], (tokens.local[0][:, 2].numpy() - 0.5) / 2, atol=1e-6)
    # there is only one direction
    assert not found.mixed[..., 1:].any()


def test_layers_are_mixed_as_they_are_read() -> None:
    tokens = made_tokens()
    directions = leading_directions(np.random.default_rng(0).normal(size=(9, 4)))
    found = project_tokens(tokens, made_reader(tokens), directions, np.array([0.25, 0.75], np.float32))
    assert found.mixed.shape == (2, 3, 4, 3)
    np.testing.assert_allclose(found.mixed, 0.25 * found.layers[0] + 0.75 * found.layers[1], atol=1e-6)


def test_layers_of_other_grids_are_mixed_on_the_finest() -> None:
    tokens = made_tokens(((4, 6), (2, 3)))
    tokens = replace(tokens, local=(tokens.local[0], torch.full_like(tokens.local[1], 2.0)))
    directions = leading_directions(np.eye(4)[[2]])
    found = project_tokens(tokens, made_reader(tokens), directions, np.array([0.5, 0.5], np.float32))
    assert [picture.shape for picture in found.layers] == [(2, 4, 6, 3), (2, 2, 3, 3)]
    expected = 0.5 * found.layers[0][..., 0] + 0.5 * (2 - 0.5) / 3
    np.testing.assert_allclose(found.mixed[..., 0], expected, atol=1e-6)


def test_a_rotation_of_the_channels_changes_no_picture() -> None:
    tokens, rng = made_tokens(), np.random.default_rng(0)
    weights, layer = rng.normal(size=(9, 4)), np.array([0.3, 0.7], np.float32)
    reader = made_reader(tokens)
    rotation = ortho_group.rvs(4, random_state=1).astype(np.float32)
    turned = replace(reader, local=tuple(torch.from_numpy(rotation.T) @ local for local in reader.local))
    one = project_tokens(tokens, reader, leading_directions(weights), layer)
    other = project_tokens(tokens, turned, leading_directions(weights @ rotation), layer)
    np.testing.assert_allclose(other.mixed, one.mixed, atol=1e-5)


# an anchor is no part of the model that is built again here
@pytest.mark.parametrize("config", [FactorTopyConfig(**QUICK, anchor="none"), FreeSelectorsConfig(**QUICK)])
def test_what_is_projected_is_what_a_fitted_voxel_reads(
    config: FactorTopyConfig | FreeSelectorsConfig,
) -> None:
    planted = make_planted()
    mapping = fit_planted(planted, config)
    assert mapping.learned is not None and mapping.weights is not None and mapping.bias is not None
    assert mapping.space is not None and mapping.scale is not None
    tokens = planted.tokens.take(range(5))
    reader = open_reader(mapping, Path("m"))
    framed = reader.frame.apply(tokens)
    predicted = predict_again(mapping, planted.coords, planted.bounding_box, framed, config)
    whole = [
        tokens.numpy() @ mapping.learned[f"model.global_bottleneck.{index}.weight"].T
        for index, tokens in enumerate(framed.global_)
    ]
    for voxel in (0, 40, 95):
        weights, layer = mapping.weights[voxel], mapping.layer[voxel]
        directions = leading_directions(weights[None])  # w divided by its length
        picture = project_tokens(tokens, reader, directions, layer).mixed[..., 0]
        where = torch.from_numpy(mapping.space[voxel]).view(1, 1, 1, 2).expand(5, -1, -1, -1)
        near = F.grid_sample(torch.from_numpy(picture)[:, None], where, align_corners=False).flatten()
        local = np.linalg.norm(weights) * near.numpy()
        global_ = sum(layer[index] * (part @ weights) for index, part in enumerate(whole))
        read = (1 - mapping.scale[voxel]) * local + mapping.scale[voxel] * global_
        np.testing.assert_allclose(
            read / config.n_channels + mapping.bias[voxel], predicted[:, voxel], atol=1e-6, rtol=1e-4
        )
        assert np.ptp(local) > 100 * 1e-6


def predict_again(
    mapping: Mapping,
    coords: np.ndarray,
    bounding_box: np.ndarray,
    framed: LayerTokens,
    config: FactorTopyConfig | FreeSelectorsConfig,
) -> np.ndarray:
    """Predict with the model of a mapping, rebuilt from what was learned."""
    from harness.mappings.free_selectors import FreeSelectors

    widths = [layer.shape[1] for layer in framed.global_]
    model: FactorTopy | FreeSelectors
    if isinstance(config, FactorTopyConfig):
        model = FactorTopy(torch.tensor(coords), torch.tensor(bounding_box), widths, config.n_channels)
    else:
        model = FreeSelectors(len(coords), widths, config.n_channels)
    assert mapping.learned is not None
    state = {
        name.removeprefix("model."): torch.from_numpy(array)
        for name, array in mapping.learned.items()
        if name.startswith("model.")
    }
    state |= {"weight": torch.from_numpy(mapping.weights), "bias": torch.from_numpy(mapping.bias)}
    problems = model.load_state_dict(state, strict=False)
    assert not problems.unexpected_keys
    assert set(problems.missing_keys) <= {"places", "expansion", "bounding_box"}
    with torch.no_grad():
        return model(framed.local, framed.global_, model.selectors()).numpy()


def test_values_are_the_channels_of_attention() -> None:
    planted = make_planted()
    mapping = fit_planted(planted, AttentionConfig(**QUICK))
    reader = open_reader(mapping, Path("m"))
    assert mapping.learned is not None and mapping.weights is not None
    for index, local in enumerate(reader.local):
        np.testing.assert_array_equal(local, mapping.learned[f"model.local_value.{index}.weight"])
    # any grid works: attention encodes places in its keys
    tokens = planted.tokens.take(range(2))
    larger = replace(tokens, local=tuple(F.interpolate(layer, (6, 7)) for layer in tokens.local))
    directions = leading_directions(mapping.weights)
    assert project_tokens(larger, reader, directions, mapping.layer[0]).mixed.shape == (2, 6, 7, 3)


def test_mappings_without_channels_are_refused() -> None:
    planted = make_planted()
    ridge = fit_planted(planted, LayerRidgeConfig(pool=1, n_folds=2, alphas=[1.0]))
    with pytest.raises(InputError, match=r"^place: found a mapping of family layer_ridge, .* factortopy, fr"):
        open_reader(ridge, Path("place"))
    mapping = fit_planted(planted, FactorTopyConfig(**QUICK))
    with pytest.raises(InputError, match=r"^place: saved without learned\.safetensors"):
        open_reader(replace(mapping, learned=None), Path("place"))
    assert mapping.learned is not None
    name = "model.local_bottleneck.1.weight"
    for absent in (name, "frame.local_scale"):
        part = {key: array for key, array in mapping.learned.items() if key != absent}
        with pytest.raises(InputError, match=r"^place: learned\.safetensors has no '.*" + absent[-5:]):
            open_reader(replace(mapping, learned=part), Path("place"))


def test_nothing_is_read_in_no_direction() -> None:
    tokens = made_tokens()
    none = Directions(np.zeros((0, 4)), np.zeros((3, 0)), np.zeros(0))
    found = project_tokens(tokens, made_reader(tokens), none, np.array([0.5, 0.5], np.float32))
    assert not found.mixed.any()
