"""Stored tokens equal those in memory, wherever they are kept and at any precision."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from harness.backbones.backbone import (
    Backbone,
    Preprocessing,
)
from harness.config.mapping import FactorTopyConfig
from harness.storage.errors import InputError
from harness.tokens import store as token_store
from harness.tokens.extraction import (
    LayerMeans,
    extract_layer_means,
    extract_tokens,
)
from harness.tokens.frame import (
    StandardTokens,
    standardize_tokens,
)
from harness.tokens.store import (
    choose_place,
    store_tokens,
)

TRAIN = np.array([0, 2, 3, 5, 6, 8])


class TwoLayers(Backbone):
    """The image, and its mean at half the size with different widths; `change` is applied to the first."""

    def __init__(self, change: Callable[[Tensor], Tensor] = lambda layer: layer) -> None:
        super().__init__(Preprocessing(8, (0.0,) * 3, (1.0,) * 3), None)
        self.encoder, self.layers, self.n_features = nn.Identity(), ("whole", "half"), 3
        self.change = change

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))

    def tokens(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        half = nn.functional.avg_pool2d(images, 2)[:, :2]
        return [self.change(images), half], [images[:, :, 0, 0], half.mean(dim=(2, 3))]


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(10)]


def store(images: list[Image.Image], folder: Path, **settings: object) -> StandardTokens:
    chosen = {"precision": "float32", "place": "auto", **settings}
    backbone = chosen.pop("backbone", TwoLayers())
    config = FactorTopyConfig(token_size=4, **{f"token_{name}": value for name, value in chosen.items()})
    return store_tokens(backbone, images, TRAIN, config, batch_size=3, device="cpu", folder=folder)


@pytest.mark.parametrize("place", ["auto", "device", "memory", "disk"])
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_stored_tokens_are_standard_tokens(
    place: str, precision: str, images: list[Image.Image], tmp_path: Path
) -> None:
    found = store(images, tmp_path, place=place, precision=precision)
    plain = extract_tokens(TwoLayers(), images, 4, 3)
    expected = standardize_tokens(plain, torch.from_numpy(TRAIN), 4, "cpu")
    error = {"float32": 1e-6, "float16": 2**-11, "bfloat16": 2**-8}[precision]
    for one, other in zip((*found.local, *found.global_), (*expected.local, *expected.global_), strict=True):
        assert one.dtype == getattr(torch, precision)
        torch.testing.assert_close(one.float(), other, rtol=error, atol=1e-6)
    assert found.local[0].is_contiguous(memory_format=torch.channels_last)
    assert found.fetched_ahead == (place == "disk")
    for name, array in found.frame.arrays().items():
        np.testing.assert_allclose(array, expected.frame.arrays()[name], rtol=1e-6)
    # the token file has no name, so it cannot be left behind
    assert list(tmp_path.iterdir()) == []


def test_frame_is_measured_on_the_first_training_stimuli_where_there_are_many(
    images: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_bytes = 4 * (3 * 16 + 2 * 16 + 3 + 2)
    monkeypatch.setattr(token_store, "FRAME_BYTES", 4 * n_bytes)
    found = store(images, tmp_path)
    plain = extract_tokens(TwoLayers(), images, 4, 3)
    expected = standardize_tokens(plain, torch.from_numpy(TRAIN[:4]), 4, "cpu")
    torch.testing.assert_close(found.local[0], expected.local[0])
    torch.testing.assert_close(found.take([1, 9]).global_[1], expected.global_[1][[1, 9]])


def test_means_are_collected_in_the_pass_that_makes_tokens(images: list[Image.Image], tmp_path: Path) -> None:
    order = [9, 0, 4, 2]
    # 4 images in batches of 3: the second batch holds one, and none is shared with other images
    expected = extract_layer_means(TwoLayers(), images, order, 3)
    assert list(expected) == ["whole", "half", "features"]
    stored, extracted = LayerMeans(order), LayerMeans(order)
    config = FactorTopyConfig(token_size=4, token_precision="float32")
    found = store_tokens(TwoLayers(), images, TRAIN, config, 3, "cpu", tmp_path, means=stored)
    plain = extract_tokens(TwoLayers(), images, 4, 3, means=extracted)
    for means in (stored, extracted):
        arrays = means.arrays(TwoLayers().layers)
        assert list(arrays) == list(expected)
        assert all((arrays[name] == array).all() for name, array in expected.items())
    # the images' order is that of the stimuli all the same, and the frame is that of training stimuli
    alone = store(images, tmp_path)
    for one, other in zip((*found.local, *found.global_), (*alone.local, *alone.global_), strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(plain.local, extract_tokens(TwoLayers(), images, 4, 3).local, strict=True):
        torch.testing.assert_close(one, other)


def test_tokens_go_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    cpu = torch.device("cpu")
    assert choose_place(600, cpu) == "device"
    assert choose_place(601, cpu) == "disk"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert choose_place(301, cpu) == "disk"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (200, 500))
    cuda = torch.device("cuda")
    assert [choose_place(size, cuda) for size in (120, 121, 300, 301)] == [
        "device",
        "memory",
        "memory",
        "disk",
    ]


def test_full_disk_is_met_before_anything_is_written(
    images: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as error:
        store(images, tmp_path / "run", place="disk")
    assert error.value.filename == str(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_tokens_that_are_not_finite_are_refused(images: list[Image.Image], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^tokens of layer 'whole' hold values that are not finite"):
        store(images, tmp_path, backbone=TwoLayers(lambda layer: layer / 0))

    def one_giant(layer: Tensor) -> Tensor:
        # in an image that the frame is not measured on
        return torch.where(layer == layer.max(), 1e9, layer) if len(layer) == 1 else layer

    backbone = TwoLayers(one_giant)
    store(images, tmp_path, backbone=backbone)
    with pytest.raises(InputError, match=r"mapping\.token_precision: float16 is too narrow: .*'whole'"):
        store(images, tmp_path, backbone=backbone, precision="float16")
