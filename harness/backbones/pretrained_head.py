"""The classifier that a network's weights came with: 1,000 classes of ImageNet, of timm's networks."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
import torch
from jaxtyping import Float

from harness.backbones.checkpoint_place import locate_checkpoint
from harness.backbones.weight_files import read_weight_file
from harness.config import AnyBackboneConfig, BackboneConfig
from harness.storage import content_hash, explain_hub_errors

N_CLASSES = 1000


@dataclass(frozen=True)
class PretrainedHead:
    """A linear classifier of ImageNet's 1,000 classes.

    Attributes
    ----------
    weight : float array [1000, n_channels]
    bias : float array [1000]
    """

    weight: Float[np.ndarray, "n_classes n_channels"]
    bias: Float[np.ndarray, " n_classes"]

    @property
    def fingerprint(self) -> str:
        """Hash of the weights."""
        return content_hash(self.weight, self.bias)


def load_pretrained_head(config: AnyBackboneConfig, n_features: int) -> PretrainedHead | None:
    """Load the classifier of a timm network's weights.

    Parameters
    ----------
    config : BackboneConfig
    n_features : int
        Width of the backbone's features.

    Returns
    -------
    PretrainedHead or None
        None for other libraries, untrained networks, and weights without a linear classifier of 1,000
        classes on these features.
    """
    if not isinstance(config, BackboneConfig) or config.library != "timm":
        return None
    if config.checkpoint is not None:
        found = _from_file(config)
    elif config.weights is not None:
        found = _from_hub(f"{config.model}.{config.weights}")
    else:
        return None
    if found is None or found[0].shape != (N_CLASSES, n_features) or found[1].shape != (N_CLASSES,):
        return None
    return PretrainedHead(*(part.detach().float().numpy() for part in found))


def _from_hub(name: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    settings = timm.get_pretrained_cfg(name)
    if settings is None or settings.num_classes != N_CLASSES:
        return None
    with explain_hub_errors(name):
        network: Any = timm.create_model(name, pretrained=True)
    layer = network.get_classifier()
    # distilled networks have two
    return (
        (layer.weight, layer.bias) if isinstance(layer, torch.nn.Linear) and layer.bias is not None else None
    )


def _from_file(config: BackboneConfig) -> tuple[torch.Tensor, torch.Tensor] | None:
    with torch.device("meta"):
        encoder: Any = timm.create_model(config.model)
    name = encoder.pretrained_cfg.get("classifier")
    if not isinstance(name, str):
        return None
    tensors = read_weight_file(locate_checkpoint(str(config.checkpoint)))
    if f"{name}.weight" not in tensors:
        convert = getattr(sys.modules[type(encoder).__module__], "checkpoint_filter_fn", None)
        tensors = {} if convert is None else convert(tensors, timm.create_model(config.model))
    weight, bias = (tensors.get(f"{name}.{part}") for part in ("weight", "bias"))
    return None if weight is None or bias is None else (weight, bias)
