"""Responses generated from layer tokens by known wiring, and fits to them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from equality import assert_equal

from harness.config.mapping import MappingConfig
from harness.mappings.data import FitData
from harness.mappings.fit import fit_mapping
from harness.mappings.mapping import Mapping
from harness.mappings.splits import Split, split_stimuli
from harness.storage.errors import InputError
from harness.tokens.extraction import LayerTokens

N_IMAGES, N_LAYERS, N_PATCHES, PER_PATCH = 300, 3, 12, 8
NOISE = 0.25  # share of the responses' variance
TOKEN_SIZE = 4


@dataclass(frozen=True)
class Planted:
    """Tokens, responses generated from them, and the true selectors."""

    tokens: LayerTokens
    responses: np.ndarray
    coords: np.ndarray
    bounding_box: np.ndarray
    layer: np.ndarray
    space: np.ndarray
    local: np.ndarray


@cache
def make_planted() -> Planted:
    """Make patches of voxels that read from one layer, at one place, locally or globally."""
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator)

    def draw_smooth(*size: int) -> torch.Tensor:
        """Draw similar neighbours, as in images; they guide a voxel from the centre to its place."""
        height, width = size[2] + 2, size[3] + 2
        return 3 * F.avg_pool2d(draw(*size[:2], height, width), 3, stride=1)

    # widths, scales and offsets differ between layers and must not bias the fit
    local = tuple(
        draw_smooth(N_IMAGES, 6 + layer, TOKEN_SIZE, TOKEN_SIZE) * 5**layer + draw(1, 6 + layer, 1, 1) * 10
        for layer in range(N_LAYERS)
    )
    global_ = tuple(draw(N_IMAGES, 6 + layer) * 5**layer for layer in range(N_LAYERS))
    patch = torch.arange(N_PATCHES).repeat_interleave(PER_PATCH)
    centre = torch.stack([patch % 4, patch // 4, patch % 2], dim=1) * 40.0
    coords = centre + draw(len(patch), 3) * 3
    layer = patch % N_LAYERS
    is_local = patch % 4 != 3
    space = (torch.rand(N_PATCHES, 2, generator=generator) * 1.4 - 0.7)[patch]
    signal = torch.zeros(N_IMAGES, len(patch))
    for voxel in range(len(patch)):
        chosen = int(layer[voxel])
        where = space[voxel].view(1, 1, 1, 2).expand(N_IMAGES, -1, -1, -1)
        sampled = F.grid_sample(local[chosen], where, align_corners=False).flatten(1)
        read = sampled if is_local[voxel] else global_[chosen]
        signal[:, voxel] = (read - read.mean(0)) @ draw(read.shape[1])
    signal = (signal - signal.mean(0)) / signal.std(0)
    responses = math.sqrt(1 - NOISE) * signal + math.sqrt(NOISE) * draw(*signal.shape) + 3
    return Planted(
        tokens=LayerTokens(local, global_, tuple(f"block{i}" for i in range(N_LAYERS))),
        responses=responses.numpy(),
        coords=coords.numpy(),
        bounding_box=np.stack([coords.numpy().min(0), coords.numpy().max(0)]),
        layer=layer.numpy(),
        space=space.numpy(),
        local=is_local.numpy(),
    )


def fit_planted(
    planted: Planted,
    config: MappingConfig,
    seed: int = 0,
    bootstrap: bool = False,
    start: Mapping | None = None,
    split: Split | None = None,
) -> Mapping:
    """Fit any family of mappings, by default on four fifths of the stimuli."""
    split = split or split_stimuli(N_IMAGES, 0.2, seed=0)
    data = FitData(planted.tokens, planted.responses, planted.coords, planted.bounding_box, split)
    return fit_mapping(data, config, seed=seed, bootstrap=bootstrap, start=start)


def check_recovery(config: MappingConfig, off_scale: float) -> None:
    """Check recovery of planted selectors by a family with a place and a scale (to within `off_scale`)."""
    planted = make_planted()
    mapping = fit_planted(planted, config)
    assert mapping.space is not None and mapping.scale is not None
    assert mapping.r2.mean() > 0.9 * (1 - NOISE)
    assert (mapping.layer.argmax(axis=1) == planted.layer).mean() > 0.95
    apart = np.linalg.norm(mapping.space - planted.space, axis=1)[planted.local]
    assert (apart < 2 / TOKEN_SIZE).mean() > 0.95  # tokens are 2 / TOKEN_SIZE apart
    assert np.median(apart) < 0.2 / TOKEN_SIZE
    assert mapping.scale[planted.local].mean() < off_scale
    assert mapping.scale[~planted.local].mean() > 1 - off_scale


def check_family(config: MappingConfig) -> None:
    """Check every family: seeds, global random state, inputs, and the stimuli it is fitted on."""
    planted = make_planted()
    tokens = [layer.clone() for layer in (*planted.tokens.local, *planted.tokens.global_)]
    responses = planted.responses.copy()
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one = fit_planted(planted, config, seed=1, bootstrap=True)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], before_numpy)  # noqa: NPY002
    for old, now in zip(tokens, (*planted.tokens.local, *planted.tokens.global_), strict=True):
        assert torch.equal(old, now)
    np.testing.assert_array_equal(responses, planted.responses)

    assert (one.family, one.layers) == (config.family, planted.tokens.layers)
    assert one.layer.dtype == one.r2.dtype == np.float32
    np.testing.assert_allclose(one.layer.sum(axis=1), 1, atol=1e-5)
    torch.rand(3)
    assert_equal(one, fit_planted(planted, config, seed=1, bootstrap=True))
    for other in (
        fit_planted(planted, config, seed=2, bootstrap=True),
        fit_planted(planted, config, seed=1, bootstrap=False),
    ):
        assert not np.array_equal(one.layer, other.layer)

    # changing held-out stimuli leaves the selectors, but not the scores
    held_out = split_stimuli(N_IMAGES, 0.2, seed=0).held_out
    responses[held_out] *= -1
    local = tuple(layer.clone() for layer in planted.tokens.local)
    for layer in local:
        layer[torch.from_numpy(held_out)] += 5
    changed = replace(planted, responses=responses, tokens=replace(planted.tokens, local=local))
    other = fit_planted(changed, config, seed=1, bootstrap=True)
    assert not np.array_equal(one.r2, other.r2)
    assert_equal(one, replace(other, r2=one.r2, correlation=one.correlation))

    responses = planted.responses.copy()
    responses[:, 4] = 0.1
    constant = fit_planted(replace(planted, responses=responses), config)
    assert constant.r2[4] == constant.correlation[4] == 0
    assert np.isfinite(constant.layer).all()
    responses[0, 0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        fit_planted(replace(planted, responses=responses), config)
    with pytest.raises(InputError, match=r"tokens of 300 stimuli.*299"):
        fit_planted(replace(planted, responses=planted.responses[:-1]), config)
