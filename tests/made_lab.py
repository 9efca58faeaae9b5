"""An example of a user's module: a brain, a task and two networks, all small."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import harness


def draw_images(n_images: int, seed: int, edge: int = 32) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(one) for one in rng.integers(0, 256, (n_images, edge, edge, 3), dtype=np.uint8)]


def brain(n_images: int = 24, n_voxels: int = 30, subject: str | int | None = None) -> harness.Brain:
    """Return voxels that respond to the mean of a colour channel."""
    seed = 0 if subject is None else sum(map(ord, str(subject)))
    images = draw_images(n_images, seed)
    rng = np.random.default_rng(seed)
    colour = np.stack([np.asarray(image).mean(axis=(0, 1)) for image in images])
    responses = colour[:, np.arange(n_voxels) % 3] + rng.normal(size=(n_images, n_voxels))
    places = rng.uniform(-40, 40, (n_voxels, 3))
    return harness.Brain.from_arrays(
        responses,
        places,
        images,
        rois={"front": np.flatnonzero(places[:, 1] > 0)},
        roi_ranks={"front": 1},
        name="",
    )


def task(n_train: int = 30, n_test: int = 12) -> harness.Task:
    """Return dark and bright images."""

    def make(count: int, seed: int) -> tuple[list[Image.Image], np.ndarray]:
        labels = np.arange(count) % 2
        images = draw_images(count, seed)
        return [
            image.point(lambda v, b=label: v // 2 + 120 * b)
            for image, label in zip(images, labels, strict=True)
        ], labels

    return harness.Task.from_images(make(n_train, 1), make(n_test, 2), ["dark", "bright"])


def resnet() -> harness.Backbone:
    """Return torchvision's ResNet-18 with random weights."""
    from torchvision.models import resnet18

    network = resnet18()
    network.fc = nn.Identity()
    return harness.Backbone.from_module(
        network,
        ["layer1", "layer2", "layer3", "layer4"],
        image_size=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )


class Block(nn.Module):
    """Attention and MLP under names other than timm's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mix(self.before(x)).chunk(3, dim=-1)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v))
        return x + self.think(x)


class SmallViT(nn.Module):
    """A class token, two registers and 4 × 4 local tokens."""

    def __init__(self, width: int = 24, n_blocks: int = 3) -> None:
        super().__init__()
        self.prefix = nn.Parameter(torch.randn(1, 3, width) * 0.02)
        self.places = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        self.cut = nn.Conv2d(3, width, 8, 8)
        self.trunk = nn.ModuleDict({f"step{place}": Block(width) for place in range(n_blocks)})
        self.end = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        x = self.cut(images).flatten(2).transpose(1, 2) + self.places
        x = torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1)
        for block in self.trunk.values():
            x = block(x)
        return self.end(x)[:, 0]


def vit(n_blocks: int = 3, **settings: object) -> harness.Backbone:
    return harness.Backbone.from_module(
        SmallViT(n_blocks=n_blocks),
        [f"trunk.step{place}" for place in range(n_blocks)],
        image_size=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        prefix_tokens=3,
        **settings,
    )


def something_else() -> int:
    return 3
