"""A reading of a brain that is fitted once and kept: does another state of the network still fill it?

One ridge regression on the pooled tokens of all layers of a network, as it stands beside every mapping
(`harness.mappings.reference_ridge`), whose weights are then held fixed. Unlike a fit to the changed network,
it loses R² when the same content moves to other channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from harness.backbones import Backbone
from harness.mappings.layer_ridge import (
    draw_folds,
    himalaya_on,
    ridge_model,
)
from harness.mappings.reference_ridge import ALPHAS, N_FOLDS
from harness.mappings.splits import Split
from harness.mappings.voxel_scores import score
from harness.tokens import iterate_tokens

Pooled = Sequence[Float[Tensor, "n_images _"]]


def pool_layers(
    backbone: Backbone,
    images: Sequence[Image.Image],
    order: Sequence[int],
    batch_size: int,
    device: torch.device | str = "cpu",
    progress: str | None = None,
) -> list[Float[Tensor, "n_images n_features"]]:
    """Extract the global token and the mean local token of every layer: 2 · n_channels numbers per image.

    Parameters as for `harness.tokens.iterate_tokens`.
    """
    parts: list[list[Tensor]] = []
    for _, tokens in iterate_tokens(backbone, images, order, None, batch_size, device, progress):
        layers = zip(tokens.local, tokens.global_, strict=True)
        parts.append([torch.cat([global_, local.mean(dim=(2, 3))], dim=1).cpu() for local, global_ in layers])
    return [torch.cat(layer) for layer in zip(*parts, strict=True)]


class FrozenReading:
    """A ridge regression from the pooled tokens of all layers, with weights that no longer change.

    Features have mean 0 and variance 1 over the stimuli that it is fitted on, and every layer the same share
    of the variance. Every voxel has the penalty of `ALPHAS` that cross-validates best.

    Parameters
    ----------
    pooled : sequence of float tensors [n_train, n_features], one per layer
        From `pool_layers`, of the stimuli in `split.train`.
    responses : float array [n_train, n_voxels]
        To these stimuli.
    split : Split
    seed : int
        Of the folds.

    Raises
    ------
    TooFewStimuliError
        If there are too few stimuli for the folds.
    """

    def __init__(
        self, pooled: Pooled, responses: Float[np.ndarray, "n_train n_voxels"], split: Split, seed: int
    ) -> None:
        self._centres = [layer.mean(dim=0) for layer in pooled]
        self._scales = [
            _scale(layer, centre, len(pooled)) for layer, centre in zip(pooled, self._centres, strict=True)
        ]
        features = self._standardise(pooled)
        _, folds = draw_folds(split, N_FOLDS, seed, bootstrap=False)
        with himalaya_on("cpu"):
            self._model = ridge_model(len(features), features.shape[1], ALPHAS, folds)
            self._model.fit(features, torch.as_tensor(np.asarray(responses), dtype=torch.float32))

    def score(
        self, pooled: Pooled, responses: Float[np.ndarray, "n_images n_voxels"]
    ) -> Float[np.ndarray, " n_voxels"]:
        """R² (1 − SSE/SST) of every voxel for other images, or another state of the network; at most 1."""
        with himalaya_on("cpu"):
            predicted = self._model.predict(self._standardise(pooled))
        return score(predicted.cpu().numpy(), np.asarray(responses))[0]

    def _standardise(self, pooled: Pooled) -> Float[Tensor, "n_images n_features"]:
        layers = zip(pooled, self._centres, self._scales, strict=True)
        return torch.cat([(layer - centre) * scale for layer, centre, scale in layers], dim=1)


def _scale(
    layer: Float[Tensor, "n_images n_features"], centre: Float[Tensor, " n_features"], n_layers: int
) -> Float[Tensor, " n_features"]:
    """One over the deviation and the roots of the numbers of features and layers; 0 for constant features."""
    deviation = (layer - centre).square().mean(dim=0).sqrt()
    # constant features differ from their mean by rounding only
    varies = deviation > 1e-6 * layer.abs().amax(dim=0)
    return torch.where(varies, 1 / (deviation * (layer.shape[1] * n_layers) ** 0.5), 0.0)
