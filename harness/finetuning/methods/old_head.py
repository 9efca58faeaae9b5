"""The answers that a pretrained backbone gave before: what stands for the old head of EWC and LwF.

The harness takes pretrained backbones without their heads, and many never had one. So an old head is made on
a proxy, a task that stands for what the backbone was pretrained on (``method.proxy``): with a text tower and
sentences for the proxy's classes it is CLIP's zero-shot head; else a linear probe fitted on the proxy's
training images. It reads unit-length features and does not change.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
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

# of the probe that is fitted where there are no texts
RATE, STEPS, WEIGHT_DECAY, BATCH = 0.1, 500, 0.01, 64


@dataclass(frozen=True)
class OldHead:
    """A fixed linear head on unit-length features."""

    weight: Float[Tensor, "n_classes n_channels"]
    bias: Float[Tensor, " n_classes"]

    def __call__(self, features: Float[Tensor, "n_images n_channels"]) -> Float[Tensor, "n_images n_classes"]:
        """Logits."""
        return functional.linear(functional.normalize(features.float(), dim=1), self.weight, self.bias)


def build_old_head(
    teacher: Backbone, text: TextTower | None, proxy: Task, device: torch.device | str
) -> OldHead:
    """Zero-shot head of the proxy's classes where texts can say them, else a linear probe on its images.

    Parameters
    ----------
    teacher : Backbone
        As pretrained, in evaluation mode.
    text : TextTower or None
    proxy : Task
    device : torch.device or str
        Where the teacher is, and the head shall be.
    """
    if text is not None and proxy.templates:
        weight = text.logit_scale * text.embed_classes(proxy.class_names, proxy.templates)
        return OldHead(weight.to(device), torch.zeros(len(weight), device=device))
    labels = torch.tensor(proxy.train["label"], device=device)
    if labels.ndim != 1:
        raise InputError(
            f"method.proxy: found {proxy.name}, whose images have several labels, "
            "accepted: a task of one label an image"
        )
    features = extract_features(teacher, proxy.train["image"], BATCH, device).to(device)
    padded = functional.pad(functional.normalize(features, dim=1), (0, 1), value=1.0)
    (layer,) = fit_linear_layers(padded, labels, proxy.n_classes, [RATE], STEPS, WEIGHT_DECAY)
    return OldHead(layer[:-1].T.contiguous(), layer[-1].contiguous())
