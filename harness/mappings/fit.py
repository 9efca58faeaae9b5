"""Fit a mapping of any family from layer tokens to voxel responses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from harness.backbones import Backbone
from harness.config import (
    MappingConfig,
    TrainedMappingConfig,
)
from harness.mappings.data import (
    FitData,
    FitOptions,
)
from harness.mappings.families import FAMILIES
from harness.mappings.mapping import Mapping
from harness.mappings.splits import Split
from harness.tokens import (
    LayerMeans,
    LayerTokens,
    extract_tokens,
    store_tokens,
)


def prepare_tokens(
    backbone: Backbone,
    images: Sequence[Image.Image],
    split: Split,
    config: MappingConfig,
    batch_size: int,
    device: str | torch.device,
    folder: Path,
    progress: str | None = None,
    means: LayerMeans | None = None,
) -> LayerTokens:
    """Extract a snapshot's tokens for `FitData`; all its fits share them, whatever their seeds.

    Parameters
    ----------
    backbone : Backbone
    images : sequence of PIL images
    split : Split
    config : MappingConfig
    batch_size : int
        Images per forward pass.
    device : torch.device or str
    folder : Path
        For a temporary file, if the tokens fit neither on the device nor in memory.
    progress : str, optional
        Label of a progress bar; None: no bar.
    means : LayerMeans, optional
        Collects means of its images in the same pass.
    """
    if not isinstance(config, TrainedMappingConfig):
        return extract_tokens(backbone, images, config.token_size, batch_size, device, progress, means)
    return store_tokens(
        backbone,
        images,
        split.train,
        config,
        batch_size,
        device,
        folder,
        progress,
        means,
    )


def fit_mapping(
    data: FitData,
    config: MappingConfig,
    *,
    seed: int,
    bootstrap: bool = False,
    device: str | torch.device = "cpu",
    progress: str | None = None,
    start: Mapping | None = None,
) -> Mapping:
    """Fit a mapping on the training stimuli and score it on the held-out ones.

    Parameters
    ----------
    data : FitData
    config : MappingConfig
        Chooses the family.
    seed, bootstrap, device, progress, start
        As in `FitOptions`.

    Raises
    ------
    InputError
        If `start` has other voxels, layers or channels, or the stimuli are too few for the settings.
    FitDivergedError
        If the loss is no longer finite.
    """
    fit = FAMILIES[config.family].load_fit()
    fitted: Mapping = fit(data, config, FitOptions(seed, bootstrap, device, progress, start))
    return fitted
