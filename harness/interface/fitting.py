"""Fit a mapping from a backbone's layers to a brain's voxels, as a run does it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from harness.backbones import Backbone
from harness.brains import Brain
from harness.config import (
    MappingConfig,
    load_option,
)
from harness.mappings import (
    FitData,
    Mapping,
    fit_mapping,
    prepare_tokens,
    split_brain,
)


def fit(
    backbone: Backbone,
    brain: Brain,
    mapping: str = "factortopy",
    *,
    seed: int = 0,
    split_seed: int = 0,
    held_out: float | None = None,
    steps: int | None = None,
    device: str | torch.device | None = None,
    images_per_pass: int = 128,
    progress: bool = False,
    **settings: Any,
) -> Mapping:
    """Fit a mapping that predicts every voxel from the layers of a backbone.

    Split, tokens and fit are those of a run. Two fits differ by the sample of stimuli and the initialisation
    that their seeds draw: compare networks against refits (several seeds) of each.

    Parameters
    ----------
    backbone : Backbone
        From `load_backbone` or `Backbone.from_module`; not changed, but moved to `device`.
    brain : Brain
        From `load_brain` or `Brain.from_arrays`.
    mapping : str
        Family: "factortopy", "free_selectors", "attention" or "layer_ridge" (``docs/fitting.md``);
        "through_time" fits a single snapshot like "factortopy".
    seed : int
        Of the initialisation, the batches and the bootstrap sample of training stimuli.
    split_seed : int
        Of the held-out stimuli. Keep it fixed over the fits that you compare.
    held_out : float, optional
        Share of the stimuli that is only scored on, 0 to 1; by default 0.2.
    steps : int, optional
        Optimizer steps; not for "layer_ridge", which is solved.
    device : str or torch.device, optional
        By default the GPU, if there is one.
    images_per_pass : int
        Images per forward pass of the backbone; bounds memory.
    progress : bool
        Whether to show progress bars.
    **settings
        Other settings of the family, such as ``n_channels=16``, ``batch_size=32``, ``bootstrap=False``.

    Returns
    -------
    Mapping
        Per voxel: ``layer`` [n_voxels, n_layers], a distribution over layers; ``space`` [n_voxels, 2], −1
        to 1; ``scale`` [n_voxels], 0 (local) to 1 (global); ``weights`` [n_voxels, n_channels]; ``r2`` and
        ``correlation`` [n_voxels] on held-out stimuli. A family leaves what it lacks None.

    Raises
    ------
    InputError
        For an unknown family or setting, or too few stimuli on either side of the split.

    Examples
    --------
    >>> mapping = harness.fit(backbone, brain, steps=200)
    >>> mapping.r2.mean(), mapping.layer.argmax(axis=1)
    """
    given = {**settings, **{k: v for k, v in (("held_out", held_out), ("steps", steps)) if v is not None}}
    config: MappingConfig = load_option("mapping", mapping, given)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    split = split_brain(brain, config, split_seed)
    tokens = prepare_tokens(
        backbone,
        brain.stimuli,
        split,
        config,
        images_per_pass,
        device,
        Path(tempfile.gettempdir()),
        "tokens" if progress else None,
    )
    return fit_mapping(
        FitData(tokens, brain.responses, brain.coords, brain.bounding_box, split),
        config,
        seed=seed,
        bootstrap=config.bootstrap,
        device=device,
        progress="mapping" if progress else None,
    )
