"""Tokens are brought into one frame, and a frame can be kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from harness.storage.errors import InputError
from harness.tokens import frame
from harness.tokens.extraction import LayerTokens
from harness.tokens.frame import (
    StandardTokens,
    TokenFrame,
    one_array,
    standardize_tokens,
)


def test_standardize_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = LayerTokens(
        local=(torch.randn(10, 3, 6, 9, generator=generator) * 7 + 2, torch.ones(10, 2, 4, 4)),
        global_=(torch.randn(10, 3, generator=generator) * 0.1 - 5, torch.zeros(10, 2)),
        layers=("a", "b"),
    )
    train = torch.arange(6)
    found = standardize_tokens(tokens, train, token_size=4, device="cpu")
    assert [tuple(layer.shape) for layer in found.local] == [(10, 3, 4, 4), (10, 2, 4, 4)]
    for layer in (found.local[0].flatten(2).transpose(1, 2), found.global_[0][:, None]):
        torch.testing.assert_close(layer[train].mean((0, 1)), torch.zeros(3), atol=1e-5, rtol=0)
        assert layer[train].square().mean().item() == pytest.approx(1, abs=1e-5)
    # one scale per layer preserves ratios between channels
    resized = F.interpolate(tokens.local[0], (4, 4), mode="bilinear", align_corners=False)
    ratio = found.local[0][train].std((0, 2, 3)) / resized[train].std((0, 2, 3))
    torch.testing.assert_close(ratio, ratio[:1].expand(3))
    assert torch.equal(found.local[1], torch.zeros(10, 2, 4, 4))
    assert torch.equal(found.global_[1], torch.zeros(10, 2))


def made(n_images: int = 12) -> LayerTokens:
    generator = torch.Generator().manual_seed(1)
    return LayerTokens(
        local=(torch.randn(n_images, 3, 4, 4, generator=generator) * 5 + 9,),
        global_=(torch.randn(n_images, 3, generator=generator) - 2,),
        layers=("a",),
    )


def test_frame_of_other_images_is_that_of_the_training_stimuli() -> None:
    tokens = made()
    found = standardize_tokens(tokens, torch.arange(8), 4, "cpu")
    again = TokenFrame.from_arrays(found.frame.arrays()).apply(tokens)
    torch.testing.assert_close(again.local[0], found.local[0])
    torch.testing.assert_close(again.global_[0], found.global_[0])
    train = tokens.local[0][:8]
    centre = train.mean(dim=(0, 2, 3))
    np.testing.assert_allclose(found.frame.arrays()["local_centre.0"], centre, rtol=1e-6)
    spread = (train - centre[:, None, None]).square().mean().sqrt()
    np.testing.assert_allclose(found.frame.arrays()["local_scale"], [spread], rtol=1e-6)


@pytest.mark.parametrize("ahead", [False, True])
def test_stream_hands_over_every_batch_in_order(ahead: bool) -> None:
    tokens = standardize_tokens(made(), torch.arange(8), 4, "cpu")
    half = replace(tokens, local=tuple(layer.half() for layer in tokens.local), fetched_ahead=ahead)
    batches = torch.tensor([3, 0, 3, 11, 5]).split(2)
    streamed = list(half.stream(batches))
    assert [part.n_images for part in streamed] == [2, 2, 1]
    for part, batch in zip(streamed, batches, strict=True):
        assert part.local[0].dtype == part.global_[0].dtype == torch.float32
        assert not isinstance(part, StandardTokens)
        torch.testing.assert_close(part.local[0], tokens.local[0][batch], atol=1e-2, rtol=1e-3)
        assert torch.equal(part.global_[0], tokens.global_[0][batch])
    assert list(half.stream([])) == []


def test_layers_in_one_array_are_gathered_together(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = made()
    tokens = replace(
        tokens, local=(tokens.local[0],) * 3, global_=(tokens.global_[0],) * 3, layers=("a", "b", "c")
    )
    apart = standardize_tokens(tokens, torch.arange(8), 4, "cpu")
    assert one_array(apart.local) is None
    monkeypatch.setattr(frame, "gathers_together", lambda device: True)
    together = standardize_tokens(tokens, torch.arange(8), 4, "cpu")
    rows = [3, 0, 3]
    for part, expected in ((together, apart), (together.take(rows), apart.take(rows))):
        for layers, others in ((part.local, expected.local), (part.global_, expected.global_)):
            array = one_array(layers)
            assert array is not None and torch.equal(array, torch.stack(others))
            assert array.data_ptr() == layers[0].data_ptr()
    assert together.local[1].is_contiguous(memory_format=torch.channels_last)
    assert one_array(together.local[::-1]) is one_array(together.local[::2]) is None


def test_stream_may_be_left_early_and_says_what_went_wrong() -> None:
    tokens = replace(standardize_tokens(made(), torch.arange(8), 4, "cpu"), fetched_ahead=True)
    stream = tokens.stream(torch.arange(12).split(2))
    next(stream)
    stream.close()
    with pytest.raises(IndexError):
        list(tokens.stream([torch.tensor([99])]))


def test_layer_that_is_not_finite_is_named() -> None:
    tokens = made()
    tokens.local[0][3, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match=r"'a'.*not finite"):
        standardize_tokens(tokens, torch.arange(8), 4, "cpu")
