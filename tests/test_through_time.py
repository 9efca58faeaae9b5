"""One mapping through time: each member is a FactorTopy, rotations are undone, changes are found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import N_IMAGES, check_family, make_planted
from pydantic import ValidationError

from harness.config.mapping import ThroughTimeConfig
from harness.mappings.data import FitData, FitOptions, Member
from harness.mappings.factortopy.model import FactorTopy
from harness.mappings.mapping import Mapping
from harness.mappings.splits import split_stimuli
from harness.mappings.through_time import ThroughTime, fit_through_time, rotate_onto
from harness.tokens.extraction import LayerTokens
from harness.tokens.frame import standardize_tokens

CONFIG = ThroughTimeConfig(token_size=4, n_channels=8, steps=60, regularization_steps=30)


def turn(tokens: LayerTokens, seed: int) -> LayerTokens:
    """Turn the axes of every layer's tokens, which changes nothing that a linear reader can read."""
    draw = np.random.default_rng(seed)
    local, global_ = [], []
    for grid, token in zip(tokens.local, tokens.global_, strict=True):
        rotation = torch.from_numpy(np.linalg.qr(draw.normal(size=(grid.shape[1],) * 2))[0]).float()
        local.append(torch.einsum("bchw,cd->bdhw", grid, rotation))
        global_.append(token @ rotation)
    return LayerTokens(tuple(local), tuple(global_), tokens.layers)


def member(tokens: LayerTokens, responses: np.ndarray | None = None, previous: int | None = None) -> Member:
    planted = make_planted()
    responses = planted.responses if responses is None else responses
    split = split_stimuli(N_IMAGES, 0.2, seed=0)
    return Member(FitData(tokens, responses, planted.coords, planted.bounding_box, split), previous)


def fit(members: list[Member], config: ThroughTimeConfig = CONFIG, seed: int = 0) -> list[Mapping]:
    return fit_through_time(members, config, FitOptions(seed, bootstrap=True))


def test_family() -> None:
    check_family(ThroughTimeConfig(token_size=4, n_channels=8, steps=20))


def test_a_rotation_of_the_channels_is_found_and_undone() -> None:
    tokens = make_planted().tokens
    train = torch.arange(200)
    target = standardize_tokens(tokens, train, 4, "cpu")
    turned = standardize_tokens(turn(tokens, seed=3), train, 4, "cpu")
    for place, rotation in enumerate(rotate_onto(target, turned, train)):
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(len(rotation)), atol=1e-5, rtol=0)
        torch.testing.assert_close(
            turned.global_[place] @ rotation, target.global_[place], atol=1e-4, rtol=1e-4
        )
    for rotation in rotate_onto(target, target, train):
        torch.testing.assert_close(rotation, torch.eye(len(rotation)), atol=1e-5, rtol=0)


def test_a_member_is_a_factortopy_of_its_own() -> None:
    torch.manual_seed(0)
    planted = make_planted()
    tokens = standardize_tokens(planted.tokens, torch.arange(200), 4, "cpu")
    coords = torch.from_numpy(planted.coords).float()
    box = torch.from_numpy(planted.bounding_box).float()
    base = FactorTopy(coords, box, [6, 7, 8], 5)
    rotations = [tuple(torch.linalg.qr(torch.randn(n, n))[0] for n in (6, 7, 8)) for _ in range(2)]
    model = ThroughTime(base, rotations)
    for parameter in (model.layer_change, model.log_gain, base.layer_selector[-1].weight):
        torch.nn.init.normal_(parameter, std=0.3)
    stimuli = tokens.take(torch.arange(9))
    for place, rotation in enumerate(rotations):
        for voxels in (slice(None), slice(10, 31)):
            features = base.layer_features(voxels)
            selectors = model.selectors(place, features, voxels)
            found = model(place, stimuli, selectors, features @ model.log_gain[place], voxels)
            alone = model.alone(place)(stimuli.local, stimuli.global_, voxels=voxels)
            torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-4)
            # by hand: rotated tokens through the base with changed logits, times the gain
            logits = base.layer_selector(base.encoding[voxels]) + features @ model.layer_change[place].T
            by_hand = base(
                [torch.einsum("bchw,cd->bdhw", x, r) for x, r in zip(stimuli.local, rotation, strict=True)],
                [x @ r for x, r in zip(stimuli.global_, rotation, strict=True)],
                base.selectors_at(logits, voxels),
                voxels,
            )
            bias = base.bias[voxels]
            by_hand = bias + (by_hand - bias) * (features @ model.log_gain[place]).exp()
            torch.testing.assert_close(found, by_hand, atol=1e-5, rtol=1e-4)


def test_a_change_of_layer_is_found_and_a_rotation_is_none() -> None:
    """Half of layer 0's patches read from layer 1 later; members share all but their layers."""
    planted = make_planted()
    later = planted.responses.copy()
    # the responses of patches of layer 1 come to the places of patches of layer 0 and the reverse
    one, other = (np.flatnonzero(planted.layer == layer) for layer in (0, 1))
    moved, from_ = one[:16], other[:16]
    later[:, moved], later[:, from_] = planted.responses[:, from_], planted.responses[:, moved]
    turned = turn(planted.tokens, seed=1)
    fits = fit(
        [member(planted.tokens), member(planted.tokens), member(turned), member(planted.tokens, later)]
    )
    before, refit, rotated, after = (mapping.layer for mapping in fits)
    still = np.setdiff1d(np.arange(len(before)), np.concatenate([moved, from_]))
    change = np.abs(after - before).sum(axis=1)
    assert change[moved].mean() > 5 * np.abs(refit - before).sum(axis=1).mean()
    assert change[moved].mean() > 3 * change[still].mean()
    assert np.abs(rotated - before).sum(axis=1).mean() < 2 * np.abs(refit - before).sum(axis=1).mean()
    assert fits[2].r2.mean() == pytest.approx(fits[0].r2.mean(), abs=0.02)
    without = fit([member(planted.tokens), member(turned)], CONFIG.model_copy(update={"rotated": False}))
    assert without[1].r2.mean() < fits[2].r2.mean() - 0.1
    for mapping in fits:
        assert mapping.family == "through_time"
        np.testing.assert_array_equal(mapping.space, fits[0].space)
        np.testing.assert_array_equal(mapping.scale, fits[0].scale)
    weights = fits[1].weights / fits[0].weights  # the same for all channels: the gain
    np.testing.assert_allclose(weights, weights[:, :1].repeat(8, axis=1), rtol=1e-3)


def test_penalties_hold_snapshots_together() -> None:
    planted = make_planted()
    later = planted.responses[:, ::-1].copy()
    members = [member(planted.tokens), member(planted.tokens, later), member(planted.tokens, later, 1)]
    free, held = (fit(members, CONFIG.model_copy(update={"change_penalty": each})) for each in (0.0, 100.0))
    moved = [np.abs(fits[1].layer - fits[0].layer).sum(axis=1).mean() for fits in (free, held)]
    assert moved[1] < 0.05 * moved[0]


def test_states_are_not_selected() -> None:
    with pytest.raises(ValidationError, match=r"validation 0\.1 and warm_steps None, expected 0 and null"):
        ThroughTimeConfig(validation=0.1)
    with pytest.raises(ValidationError, match="warm_steps 5"):
        ThroughTimeConfig(warm_steps=5)


def test_members_share_nothing_but_tokens() -> None:
    planted = make_planted()
    data = member(planted.tokens).data
    few = CONFIG.model_copy(update={"steps": 10})
    one, two = fit([Member(data), Member(data)], few)
    assert not np.array_equal(one.layer, two.layer)  # each has its own sample
    again = fit([Member(data), Member(replace(data))], few)
    np.testing.assert_array_equal(one.layer, again[0].layer)
