"""Extract layer tokens and features of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional

from harness.backbones import Backbone
from harness.storage import progress_bar


@dataclass(frozen=True)
class LayerTokens:
    """Tokens of layers for images; layers may differ in width.

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

    def cpu(self) -> LayerTokens:
        """Return the tokens in main memory."""
        return LayerTokens(
            tuple(layer.cpu() for layer in self.local),
            tuple(layer.cpu() for layer in self.global_),
            self.layers,
        )

    def take(
        self, indices: Sequence[int] | Int[np.ndarray, " n_taken"] | Int[Tensor, " n_taken"]
    ) -> LayerTokens:
        """Return the tokens of some images, in the given order, with repeats if asked for.

        The memory format of local tokens (channels last or first) stays.
        """
        chosen = torch.as_tensor(indices, dtype=torch.long)
        return LayerTokens(
            local=tuple(layer[chosen.to(layer.device)] for layer in self.local),
            global_=tuple(layer[chosen.to(layer.device)] for layer in self.global_),
            layers=self.layers,
        )


class LayerMeans:
    """Collects the mean local token of every layer and the features of some images, as they pass.

    Parameters
    ----------
    images : int array [n_images]
        Indices of the images. `iterate_tokens` passes them first, in batches of their own, so that nothing
        depends on what else is passed.
    """

    def __init__(self, images: Sequence[int] | Int[np.ndarray, " n_images"]) -> None:
        self.images = [int(index) for index in images]
        self._parts: list[list[Tensor]] = []

    def add(
        self, features: Float[Tensor, "n_batch n_channels"], grids: Sequence[Float[Tensor, "n_batch _ _ _"]]
    ) -> None:
        """Add the next images."""
        self._parts.append([*(grid.mean(dim=(2, 3)).float().cpu() for grid in grids), features.float().cpu()])

    def arrays(self, layers: Sequence[str]) -> dict[str, Float[np.ndarray, "n_images _"]]:
        """Return the means by layer, and last the ``features``, in the order of `images`."""
        joined = map(torch.cat, zip(*self._parts, strict=True))
        return {name: layer.numpy() for name, layer in zip((*layers, "features"), joined, strict=True)}


@torch.no_grad()
def extract_tokens(
    backbone: Backbone,
    images: Sequence[Image.Image],
    token_size: int | None,
    batch_size: int,
    device: torch.device | str = "cpu",
    progress: str | None = None,
    means: LayerMeans | None = None,
) -> LayerTokens:
    """Extract the tokens of every layer for every image into main memory.

    Parameters
    ----------
    backbone : Backbone
    images : sequence of PIL images
    token_size : int or None
        Edge of the grid that local tokens are resized to (bilinear); None: no resizing.
    batch_size : int
        Images per forward pass.
    device : torch.device or str
        Device of the backbone.
    progress : str, optional
        Label of a progress bar; None: no bar.
    means : LayerMeans, optional
        Collects means of its images in the same pass.
    """
    order = range(len(images))
    parts = [
        (rows, part.cpu())
        for rows, part in iterate_tokens(
            backbone, images, order, token_size, batch_size, device, progress, means
        )
    ]
    tokens = join_tokens([part for _, part in parts])
    if means is None:
        return tokens
    passed = [row for rows, _ in parts for row in rows]
    del parts
    return tokens.take(np.argsort(passed))


def join_tokens(parts: Sequence[LayerTokens]) -> LayerTokens:
    """Concatenate the tokens of all parts over images."""
    return LayerTokens(
        tuple(map(torch.cat, zip(*(part.local for part in parts), strict=True))),
        tuple(map(torch.cat, zip(*(part.global_ for part in parts), strict=True))),
        parts[0].layers,
    )


def iterate_tokens(
    backbone: Backbone,
    images: Sequence[Image.Image],
    order: Sequence[int],
    token_size: int | None,
    batch_size: int,
    device: torch.device | str = "cpu",
    progress: str | None = None,
    means: LayerMeans | None = None,
) -> Iterator[tuple[list[int], LayerTokens]]:
    """Yield indices of images and their tokens (float32 on the device), batch by batch.

    Parameters as for `extract_tokens`; `order` holds the indices of the images, in order, except that those
    of `means` come first.
    """
    backbone = backbone.to(device).eval()
    first = [] if means is None else means.images
    rest = np.array(order)[~np.isin(order, first)]
    n_first = -(-len(first) // batch_size)
    batches = _batches(backbone, images, (first, rest), batch_size, device, progress)
    for place, (rows, inputs) in enumerate(batches):
        with torch.no_grad():  # not around the yield: whoever reads the tokens may need gradients
            if means is not None and place < n_first:
                features, (grids, tokens) = backbone.features_and_tokens(inputs)
                means.add(features, grids)
            else:
                grids, tokens = backbone.tokens(inputs)
            local = []
            for grid in grids:
                if token_size is not None and grid.shape[2:] != (token_size, token_size):
                    grid = functional.interpolate(
                        grid, (token_size, token_size), mode="bilinear", align_corners=False
                    )
                local.append(grid.float())
        yield rows, LayerTokens(tuple(local), tuple(token.float() for token in tokens), backbone.layers)


@torch.no_grad()
def extract_features(
    backbone: Backbone,
    images: Sequence[Image.Image],
    batch_size: int,
    device: torch.device | str = "cpu",
    progress: str | None = None,
) -> Float[Tensor, "n_images n_channels"]:
    """Extract the features that heads and probes read; parameters as for `extract_tokens`."""
    backbone = backbone.to(device).eval()
    batches = _batches(backbone, images, (range(len(images)),), batch_size, device, progress)
    return torch.cat([backbone(inputs).float().cpu() for _, inputs in batches])


@torch.no_grad()
def extract_layer_means(
    backbone: Backbone,
    images: Sequence[Image.Image],
    order: Sequence[int],
    batch_size: int,
    device: torch.device | str = "cpu",
    progress: str | None = None,
) -> dict[str, Float[np.ndarray, "n_images _"]]:
    """Extract the mean local token of every layer, by name, and last the ``features``.

    Equal to what `LayerMeans` collects while tokens are extracted. Parameters as for `iterate_tokens`.
    """
    backbone = backbone.to(device).eval()
    means = LayerMeans(order)
    for _, inputs in _batches(backbone, images, (means.images,), batch_size, device, progress):
        features, (grids, _) = backbone.features_and_tokens(inputs)
        means.add(features, grids)
    return means.arrays(backbone.layers)


def _batches(
    backbone: Backbone,
    images: Sequence[Image.Image],
    orders: Sequence[Sequence[int] | Int[np.ndarray, " _"]],
    batch_size: int,
    device: torch.device | str,
    progress: str | None,
) -> Iterator[tuple[list[int], Float[Tensor, "n_images 3 height width"]]]:
    """Yield batches of images; none spans two orders."""
    batches = [
        [int(index) for index in order[start : start + batch_size]]
        for order in orders
        for start in range(0, len(order), batch_size)
    ]
    for rows in progress_bar(batches, progress):
        yield rows, backbone.preprocessing([images[index] for index in rows]).to(device)
