"""The old head of EWC and LwF, which gives a pretrained backbone's old answers.

Backbones come without their pretraining heads, and many never had one. So an old head is built on a proxy, a
task that stands for the pretraining data (``method.proxy``): CLIP's zero-shot head if there are a text tower
and prompt templates for the proxy's classes, else a linear probe fitted on the proxy's training images. It
takes unit-length features and stays fixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from harness.backbones import (
    Backbone,
    TextTower,
)
from harness.measures import fit_linear_layers
from harness.storage import InputError
from harness.tokens import extract_features
from tasks import Task

# of the linear probe
RATE, STEPS, WEIGHT_DECAY, BATCH = 0.1, 500, 0.01, 64


@dataclass(frozen=True)
class OldHead:
    """A fixed linear head on unit-length features."""

    weight: Float[Tensor, "n_classes n_channels"]
    bias: Float[Tensor, " n_classes"]

    def __call__(self, features: Float[Tensor, "n_images n_channels"]) -> Float[Tensor, "n_images n_classes"]:
        """Compute logits."""
        return functional.linear(functional.normalize(features.float(), dim=1), self.weight, self.bias)


def build_old_head(
    teacher: Backbone, text: TextTower | None, proxy: Task, device: torch.device | str
) -> OldHead:
    """Build a zero-shot head for the proxy's classes if it has prompt templates, else a linear probe.

    Parameters
    ----------
    teacher : Backbone
        As pretrained, in evaluation mode.
    text : TextTower or None
    proxy : Task
    device : torch.device or str
        Of the teacher and of the head.
    """
    if text is not None and proxy.templates:
        weight = text.logit_scale * text.embed_classes(proxy.class_names, proxy.templates)
        return OldHead(weight.to(device), torch.zeros(len(weight), device=device))
    labels = torch.tensor(proxy.train["label"], device=device)
    if labels.ndim != 1:
        raise InputError(
            f"method.proxy: found the multi-label task {proxy.name}, expected one label per image"
        )
    features = extract_features(teacher, proxy.train["image"], BATCH, device).to(device)
    return OldHead(*fit_probe(functional.normalize(features, dim=1), labels, proxy.n_classes))


def fit_probe(
    features: Float[Tensor, "n_images n_channels"], labels: Int[Tensor, "n_images *n_labels"], n_classes: int
) -> tuple[Float[Tensor, "n_classes n_channels"], Float[Tensor, " n_classes"]]:
    """Fit a linear probe on features of about unit length; return its weight and bias."""
    padded = functional.pad(features, (0, 1), value=1.0)
    (layer,) = fit_linear_layers(padded, labels, n_classes, [RATE], STEPS, WEIGHT_DECAY)
    return layer[:-1].T.contiguous(), layer[-1].contiguous()
