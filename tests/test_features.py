from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from harness.backbones.backbone import (
    Backbone,
    Preprocessing,
)
from harness.backbones.timm_backbone import load_timm
from harness.storage import PROGRESS_RECORDS
from harness.tokens.extraction import (
    LayerTokens,
    extract_features,
    extract_tokens,
)
from tasks.shapes import (
    render_scenes,
    sample_scenes,
)


class Pixels(Backbone):
    """Layers are the image itself, and the image at half the size with two extra channels."""

    def __init__(self) -> None:
        super().__init__(Preprocessing(8, (0.0,) * 3, (1.0,) * 3), None)
        self.encoder, self.layers, self.n_features = nn.Identity(), ("whole", "half"), 3

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))

    def tokens(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        half = functional.avg_pool2d(images, 2)
        half = torch.cat([half, half[:, :2]], dim=1)
        return [images, half], [images[:, :, 0, 0], half.mean(dim=(2, 3))]


def made(n_images: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(n_images)]


def test_tokens_are_those_of_the_backbone_in_the_order_of_the_images() -> None:
    images = made(5)
    pixels = torch.stack([torch.from_numpy(np.array(image)) for image in images]).permute(0, 3, 1, 2) / 255
    tokens = extract_tokens(Pixels(), images, None, batch_size=2)
    assert tokens.layers == ("whole", "half") and tokens.n_images == 5
    torch.testing.assert_close(tokens.local[0], pixels)
    torch.testing.assert_close(tokens.local[1][:, :3], functional.avg_pool2d(pixels, 2))
    torch.testing.assert_close(tokens.global_[0], pixels[:, :, 0, 0])
    assert [tuple(layer.shape[1:]) for layer in tokens.local] == [(3, 8, 8), (5, 4, 4)]
    torch.testing.assert_close(extract_features(Pixels(), images, 2), pixels.mean(dim=(2, 3)))


def test_local_tokens_are_resized_and_global_ones_are_not() -> None:
    images = made(3)
    free, resized = (extract_tokens(Pixels(), images, size, 2) for size in (None, 4))
    assert [layer.shape[2:] for layer in resized.local] == [(4, 4), (4, 4)]
    # bilinear at half the size, pixel centres aligned: the mean of four neighbours
    torch.testing.assert_close(resized.local[0], functional.avg_pool2d(free.local[0], 2))
    assert torch.equal(resized.local[1], free.local[1])
    for one, other in zip(free.global_, resized.global_, strict=True):
        assert torch.equal(one, other)


def test_batch_size_makes_no_difference() -> None:
    backbone = load_timm("palimpsest_mini", None, 0)
    images = [Image.fromarray(pixels) for pixels in render_scenes(sample_scenes(0, range(5)))]
    one, all_ = (extract_tokens(backbone, images, 4, batch_size) for batch_size in (1, 5))
    for name in ("local", "global_"):
        for first, second in zip(getattr(one, name), getattr(all_, name), strict=True):
            torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
            assert not first.requires_grad
    torch.testing.assert_close(
        extract_features(backbone, images, 2), extract_features(backbone, images, 5), rtol=1e-4, atol=1e-5
    )


def test_the_backbone_is_in_evaluation_mode() -> None:
    backbone = Pixels().train()
    extract_tokens(backbone, made(1), None, 1)
    assert not backbone.training
    extract_features(backbone.train(), made(1), 1)
    assert not backbone.training


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_take(kind: type) -> None:
    tokens = extract_tokens(Pixels(), made(4), None, 4)
    taken = tokens.take(kind([2, 0, 2]))
    assert taken.n_images == 3 and taken.layers == tokens.layers
    for place in range(2):
        assert torch.equal(taken.local[place], tokens.local[place][[2, 0, 2]])
        assert torch.equal(taken.global_[place], tokens.global_[place][[2, 0, 2]])


def test_take_nothing() -> None:
    assert extract_tokens(Pixels(), made(2), None, 2).take([]).n_images == 0


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_take_keeps_the_memory_format(memory_format: torch.memory_format) -> None:
    grid = torch.randn(4, 3, 5, 6).to(memory_format=memory_format)
    taken = LayerTokens((grid,), (torch.zeros(4, 3),), ("one",)).take([3, 1])
    assert taken.local[0].is_contiguous(memory_format=memory_format)
    assert torch.equal(taken.local[0], grid[[3, 1]])


def test_progress_is_shown_where_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROGRESS_RECORDS, "1")
    extract_tokens(Pixels(), made(2), None, 1)
    assert capsys.readouterr().err == ""
    extract_tokens(Pixels(), made(2), None, 1, progress="tokens")
    assert "tokens" in capsys.readouterr().err
