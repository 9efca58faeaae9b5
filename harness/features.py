"""What the layers of a backbone say of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from harness.backbones.backbone import Backbone


@dataclass(frozen=True)
class LayerTokens:
    """Tokens of some layers for some images; the layers' widths may differ.

    Attributes
    ----------
    local : tuple of float tensors [n_images, n_channels, height, width], one per layer
    global_ : tuple of float tensors [n_images, n_channels], one per layer
    layers : tuple of str
        Names, from input to output.
    """

    local: tuple[Float[Tensor, "n_images _ _ _"], ...]
    global_: tuple[Float[Tensor, "n_images _"], ...]
    layers: tuple[str, ...]

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.local[0])

    def take(
        self, indices: Sequence[int] | Int[np.ndarray, " n_taken"] | Int[Tensor, " n_taken"]
    ) -> LayerTokens:
        """The tokens of some images, in the given order; an image may be taken more than once.

        The memory format of local tokens (channels last or first) is kept.
        """
        chosen = torch.as_tensor(indices, dtype=torch.long)
        return LayerTokens(
            local=tuple(layer[chosen.to(layer.device)] for layer in self.local),
            global_=tuple(layer[chosen.to(layer.device)] for layer in self.global_),
            layers=self.layers,
        )


@torch.no_grad()
def extract_tokens(
    backbone: Backbone,
    images: Sequence[Image.Image],
    token_size: int | None,
    batch_size: int,
    device: torch.device | str = "cpu",
    progress: str | None = None,
) -> LayerTokens:
    """Tokens of every layer for every image, kept in main memory.

    Parameters
    ----------
    backbone : Backbone
    images : sequence of PIL images
    token_size : int or None
        Rows and columns that local tokens are resized to (bilinear); None: as they are.
    batch_size : int
        Images per forward pass.
    device : torch.device or str
        Where the backbone runs.
    progress : str, optional
        Says so on a progress bar; None: no bar.
    """
    backbone = backbone.to(device).eval()
    local: list[list[Tensor]] = [[] for _ in backbone.layers]
    global_: list[list[Tensor]] = [[] for _ in backbone.layers]
    for inputs in _batches(backbone, images, batch_size, device, progress):
        grids, tokens = backbone.tokens(inputs)
        for place, (grid, token) in enumerate(zip(grids, tokens, strict=True)):
            if token_size is not None and grid.shape[2:] != (token_size, token_size):
                grid = functional.interpolate(
                    grid, (token_size, token_size), mode="bilinear", align_corners=False
                )
            local[place].append(grid.float().cpu())
            global_[place].append(token.float().cpu())
    return LayerTokens(
        tuple(torch.cat(parts) for parts in local),
        tuple(torch.cat(parts) for parts in global_),
        backbone.layers,
    )


@torch.no_grad()
def extract_features(
    backbone: Backbone,
    images: Sequence[Image.Image],
    batch_size: int,
    device: torch.device | str = "cpu",
    progress: str | None = None,
) -> Float[Tensor, "n_images n_channels"]:
    """Features, as heads and probes read them, of every image; parameters as for `extract_tokens`."""
    backbone = backbone.to(device).eval()
    parts = [
        backbone(inputs).float().cpu() for inputs in _batches(backbone, images, batch_size, device, progress)
    ]
    return torch.cat(parts)


def _batches(
    backbone: Backbone,
    images: Sequence[Image.Image],
    batch_size: int,
    device: torch.device | str,
    progress: str | None,
) -> Iterator[Float[Tensor, "n_images 3 height width"]]:
    for start in tqdm(range(0, len(images), batch_size), progress, disable=progress is None, leave=False):
        chosen = [images[index] for index in range(start, min(start + batch_size, len(images)))]
        yield backbone.preprocessing(chosen).to(device)
