"""One interface to every pretrained vision network."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from harness.config import PreprocessingConfig
from harness.storage import (
    InputError,
    as_rgb,
    content_hash,
)


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of a network's input; stored in every snapshot.

    Attributes
    ----------
    size : int
        Edge of the square input, pixels.
    mean, std : 3 floats, of RGB in 0 to 1
    interpolation : str
        Name as in timm: bicubic, bilinear, ...
    crop_pct : float
        Share of the resized image's edge that the centre crop keeps.
    crop_mode : str
        How oblong images become square: center crops, squash distorts, border adds a frame.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    crop_mode: str = "center"

    def changed(self, wanted: PreprocessingConfig) -> Preprocessing:
        """Apply what the configuration overrides."""
        return replace(self, **{name: value for name, value in wanted if value is not None})

    @cached_property
    def _transform(self) -> Any:
        # timm takes seconds to import
        from timm.data.transforms_factory import create_transform

        return create_transform(
            (3, self.size, self.size),
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
        )

    def __call__(self, images: Sequence[Image.Image]) -> Float[Tensor, "n_images 3 height width"]:
        """Preprocess images into the network's input; upright, and on white where they are transparent."""
        return torch.stack([self._transform(as_rgb(image)) for image in images])


class TextTower(abc.ABC):
    """The text side of a contrastive model, kept as pretrained: copies of a backbone share it."""

    logit_scale: float

    def __deepcopy__(self, memo: dict[int, object]) -> TextTower:
        """Return itself: it never changes, and a copy per snapshot would take its memory again."""
        return self

    @abc.abstractmethod
    def embed(self, texts: Sequence[str]) -> Float[Tensor, "n_texts n_channels"]:
        """Unit-length embeddings of texts, comparable with the backbone's features."""

    def fingerprint(self) -> str | None:
        """Hash all that the embeddings depend on; None if that is unknown."""
        return None

    def copy_to_train(self) -> TextEncoder:
        """Return a trainable copy of the network; an `InputError` if there is none."""
        raise InputError("this backbone's text tower cannot be trained; expected an open_clip backbone")

    def embed_classes(
        self, class_names: Sequence[str], templates: Sequence[str]
    ) -> Float[Tensor, "n_classes n_channels"]:
        """Build a zero-shot head (Radford et al. 2021): mean over templates (``{}``: class), unit length."""
        rows = [self.embed([template.format(name) for template in templates]) for name in class_names]
        return nn.functional.normalize(torch.stack([row.mean(dim=0) for row in rows]), dim=1)


class TextEncoder(nn.Module, abc.ABC):
    """A trainable text tower; calling it with token ids gives unit-length embeddings."""

    @abc.abstractmethod
    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "n_texts context"]:
        """Token ids of texts."""

    @abc.abstractmethod
    def forward(self, ids: Int[Tensor, "n_texts context"]) -> Float[Tensor, "n_texts n_channels"]:
        """Unit-length embeddings."""

    @abc.abstractmethod
    def scale(self) -> Float[Tensor, ""]:
        """Trainable factor of the cosine similarities."""


class Backbone(nn.Module, abc.ABC):
    """A vision encoder; calling it returns the features that heads and probes read.

    Attributes
    ----------
    encoder : nn.Module
        The network; fine-tuning changes nothing else.
    preprocessing : Preprocessing
    layers : tuple of str
        Names of the layers that `tokens` returns, from input to output.
    widths : tuple of int
        Channels of each of them.
    n_features : int
        Width of the features.
    text : TextTower or None
        Enables zero-shot.
    flags : dict
        Properties that weights do not show, such as the activation; for snapshots' manifests.
    """

    encoder: nn.Module
    layers: tuple[str, ...]
    widths: tuple[int, ...]
    n_features: int

    def __init__(self, preprocessing: Preprocessing, text: TextTower | None) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.text = text
        self.flags: dict[str, bool | int | str] = {}

    @staticmethod
    def from_module(
        model: nn.Module,
        layers: Sequence[str],
        *,
        image_size: int,
        mean: Sequence[float | int],
        std: Sequence[float | int],
        features: str | None = None,
        layout: Literal["tokens", "channels_first", "channels_last"] | None = None,
        prefix_tokens: int | None = None,
        class_token: bool = True,
        interpolation: str = "bicubic",
        crop_pct: float = 1.0,
        crop_mode: str = "center",
    ) -> Backbone:
        """Make a backbone of any network with named layers.

        Layers are read by forward hooks, so the network needs no method but ``forward``. Parameters that the
        features do not depend on, such as a classifier above `features`, are never trained: replace a
        classifier by ``nn.Identity()`` for distributed training.

        Parameters
        ----------
        model : nn.Module
            Takes images [n_images, 3, image_size, image_size]. Not copied.
        layers : sequence of str
            Dotted names of modules, from input to output, as in ``model.named_modules()``. Each returns
            [n, tokens, channels], [n, channels, height, width], [n, height, width, channels] or
            [n, channels].
        image_size : int
            Edge of the square input, pixels.
        mean, std : 3 floats, of RGB in 0 to 1
            What the network was trained with.
        features : str, optional
            Name of the module whose output, averaged over places, heads and probes read. By default the
            output of the network, which is then [n_images, n_channels].
        layout : "tokens", "channels_first" or "channels_last", optional
            Of the layers' outputs; by default recognised by their shape.
        prefix_tokens : int, optional
            Class and register tokens before the local tokens; by default 0 or 1, whichever leaves a square.
        class_token : bool
            Whether the first prefix token is a class token. It is then the layer's global token; without one,
            that is the mean of the local tokens.
        interpolation : str
            Of the resize: "bicubic", "bilinear", ...
        crop_pct : float
            Share of the resized image's edge that the centre crop keeps.
        crop_mode : str
            "center" crops oblong images, "squash" distorts them, "border" adds a frame.

        Returns
        -------
        Backbone
            In evaluation mode.

        Raises
        ------
        InputError
            If a layer does not exist, does not run or returns another shape, or the layers are not in order.

        Examples
        --------
        >>> network = torchvision.models.resnet18(weights="DEFAULT")
        >>> backbone = harness.Backbone.from_module(
        ...     network, ["layer1", "layer2", "layer3", "layer4"], features="layer4", image_size=224,
        ...     mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
        ... )
        """
        from harness.backbones.module_backbone import ModuleBackbone

        for name, values in (("mean", mean), ("std", std)):
            if len(values) != 3:
                raise InputError(f"{name}: found {list(values)}, expected 3 numbers, of red, green and blue")
        red, green, blue = map(float, mean)
        deviation = tuple(map(float, std))
        preprocessing = Preprocessing(
            size=image_size,
            mean=(red, green, blue),
            std=(deviation[0], deviation[1], deviation[2]),
            interpolation=interpolation,
            crop_pct=crop_pct,
            crop_mode=crop_mode,
        )
        return ModuleBackbone(
            model, layers, preprocessing, features, layout, prefix_tokens, class_token
        ).eval()

    @abc.abstractmethod
    def forward(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> Float[Tensor, "n_images n_channels"]:
        """Features of preprocessed images."""

    @abc.abstractmethod
    def tokens(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]]:
        """Return local grid and global token of every layer; without a class token, the mean of the grid."""

    def features_and_tokens(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> tuple[
        Float[Tensor, "n_images n_channels"],
        tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]],
    ]:
        """Return the results of `forward` and `tokens`, from one pass where the library can."""
        return self(images), self.tokens(images)

    def depths(self) -> dict[str, int]:
        """Return the depth of every encoder parameter by name: 0 for the stem, then block by block."""
        from timm.models import group_parameters

        encoder: Any = self.encoder
        found: dict[str, int] = group_parameters(encoder, encoder.group_matcher(coarse=False), reverse=True)
        return found

    def parameter_layers(self) -> dict[str, str]:
        """Return the layer of every encoder parameter by name: ``stem``, a layer, or ``top``.

        Where blocks differ from the layers of `tokens` (stages of several blocks), they are ``depth-01`` …
        """
        depths = self.depths()
        n_blocks = max(depths.values())
        names = ["stem", *self.layers, "top"]
        if n_blocks not in (len(self.layers), len(self.layers) + 1):
            names = ["stem", *(f"depth-{depth:02d}" for depth in range(1, n_blocks + 1))]
        return {name: names[depth] for name, depth in depths.items()}


def split_tokens(
    grids: Sequence[Tensor], prefixes: Sequence[Tensor | None]
) -> tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]]:
    """Split grids [n_images, n_channels, height, width] and prefix tokens into local and global tokens.

    The first prefix token is the class token, the others are registers. Without prefix, the mean of the grid
    is the global token.
    """
    global_ = [
        prefix[:, 0] if prefix is not None and prefix.shape[1] else grid.mean(dim=(2, 3))
        for grid, prefix in zip(grids, prefixes, strict=True)
    ]
    return list(grids), global_


def encoder_hash(backbone: Backbone) -> str:
    """Hash a backbone's weights."""
    return content_hash(dict(backbone.encoder.state_dict()))
