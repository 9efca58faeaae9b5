"""What a region reads of an image: local tokens projected on the leading directions of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from harness.mappings import (
    FAMILIES,
    Mapping,
)
from harness.measures.channels import Directions
from harness.storage import InputError
from harness.tokens import (
    LayerTokens,
    TokenFrame,
)

N_COLOURS = 3


@dataclass(frozen=True)
class Reader:
    """From the tokens of any image to channels, as a mapping has learned it.

    Attributes
    ----------
    frame : TokenFrame
    local : tuple of float tensors [n_channels, n_token_channels], one per layer
    """

    frame: TokenFrame
    local: tuple[Float[Tensor, "n_channels _"], ...]


@dataclass(frozen=True)
class Projection:
    """What a region reads of some images; 0 is what it reads of the average token of the training stimuli.

    Attributes
    ----------
    layers : tuple of float arrays [n_images, height, width, 3], one per layer
        Each on the grid of its layer's tokens. Along the last axis the leading directions; 0 where there
        are fewer.
    mixed : float array [n_images, height, width, 3]
        Sum of the layers, weighted by the region's mean layer distribution, on the finest grid.
    """

    layers: tuple[Float[np.ndarray, "n_images _ _ 3"], ...]
    mixed: Float[np.ndarray, "n_images height width 3"]


def open_reader(mapping: Mapping, place: Path) -> Reader:
    """What takes tokens to the channels of a mapping.

    Parameters
    ----------
    mapping : Mapping
        Read with what it has learned.
    place : Path
        Where from: for messages.

    Raises
    ------
    InputError
        If the family has no channels, or the mapping was kept without what it has learned.
    """
    family = FAMILIES[mapping.family]
    if family.bottleneck is None:
        with_channels = ", ".join(name for name, each in FAMILIES.items() if each.bottleneck is not None)
        raise InputError(
            f"{place}: found a mapping of family {mapping.family}, which has no channels; "
            f"expected one of {with_channels}"
        )
    if mapping.learned is None:
        raise InputError(
            f"{place}: kept without what it has learned (learned.safetensors), as older runs were; remove "
            "this folder and track the run again"
        )
    names = [f"model.{family.bottleneck}.{index}.weight" for index in range(len(mapping.layers))]
    frame = {
        name.removeprefix("frame."): array
        for name, array in mapping.learned.items()
        if name.startswith("frame.")
    }
    try:
        local = tuple(torch.from_numpy(np.array(mapping.learned[name])) for name in names)
        return Reader(TokenFrame.from_arrays(frame), local)
    except KeyError as error:
        raise InputError(f"{place}: learned.safetensors has no {error.args[0]!r}") from None


def project_tokens(
    tokens: LayerTokens, reader: Reader, directions: Directions, layer: Float[np.ndarray, " n_layers"]
) -> Projection:
    """Project the local tokens of images on a region's directions.

    With x_ls the framed token of layer l at place s, B_l the bottleneck, d_k a direction and ω̄ the layer
    distribution, the layer's picture is d_k · B_l x_ls, and the mixed one Σ_l ω̄_l of that. It is the same
    after any rotation of the channels.

    Parameters
    ----------
    tokens : LayerTokens
        As the backbone gives them, on any grid: frame and bottleneck act on each place alone.
    reader : Reader
    directions : Directions
    layer : float array [n_layers]
        ω̄, the mean over the region's voxels.
    """
    chosen = np.zeros((N_COLOURS, directions.channels.shape[1]), dtype=np.float32)
    chosen[: len(directions.channels)] = directions.channels[:N_COLOURS]
    pictures = [
        torch.einsum("kc,bcyx->bkyx", torch.from_numpy(chosen) @ bottleneck, local)
        for bottleneck, local in zip(reader.local, reader.frame.apply(tokens.cpu()).local, strict=True)
    ]
    size = max((picture.shape[2:] for picture in pictures), key=lambda shape: shape[0] * shape[1])
    mixed = torch.zeros(*pictures[0].shape[:2], *size)
    for share, picture in zip(layer, pictures, strict=True):
        mixed += float(share) * functional.interpolate(picture, size, mode="bilinear", align_corners=False)
    return Projection(tuple(_last(picture) for picture in pictures), _last(mixed))


def _last(picture: Float[Tensor, "n_images 3 height width"]) -> Float[np.ndarray, "n_images height width 3"]:
    return picture.permute(0, 2, 3, 1).numpy()
