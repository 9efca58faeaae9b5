"""Classes as sentences, and the text tower that reads them while it is trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from harness.backbones.backbone import TextEncoder


class ClassTexts(nn.Module):
    """Sentences ``template(class name)``, tokenized once, and their encoder."""

    ids: Int[Tensor, "n_classes n_templates context"]

    def __init__(self, encoder: TextEncoder, class_names: Sequence[str], templates: Sequence[str]) -> None:
        super().__init__()
        self.encoder = encoder
        rows = [encoder.tokenize([template.format(name) for template in templates]) for name in class_names]
        # what can be made again is not part of the state
        self.register_buffer("ids", torch.stack(rows), persistent=False)

    def forward(self, labels: Int[Tensor, " n_images"]) -> Float[Tensor, "n_images n_channels"]:
        """Unit-length embedding of one sentence for each label; the template is drawn for each."""
        # on the CPU, so that a step draws the same on every device
        drawn = torch.randint(self.ids.shape[1], labels.shape).to(labels.device)
        return self.encoder(self.ids[labels, drawn])

    @torch.no_grad()
    def head(self) -> Float[Tensor, "n_classes n_channels"]:
        """Zero-shot head (Radford et al. 2021) of the tower as it is now, times its logit scale."""
        mean = torch.stack([self.encoder(ids).mean(dim=0) for ids in self.ids])
        return self.encoder.scale() * functional.normalize(mean, dim=1)
