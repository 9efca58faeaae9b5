"""Class names as sentences, and the text tower that encodes them while it is trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from harness.backbones import TextEncoder


class ClassTexts(nn.Module):
    """Sentences ``template(class name)``, tokenized once, and their encoder.

    With several tasks, the first is current until `choose` selects another.
    """

    def __init__(self, encoder: TextEncoder, class_names: Sequence[str], templates: Sequence[str]) -> None:
        super().__init__()
        self.encoder = encoder
        self._chosen = self._n_tasks = 0
        self.add(class_names, templates)

    def add(self, class_names: Sequence[str], templates: Sequence[str]) -> None:
        """Add another task's classes."""
        rows = [
            self.encoder.tokenize([template.format(name) for template in templates]) for name in class_names
        ]
        # not part of the state: the tokens can be recomputed
        self.register_buffer(f"ids_{self._n_tasks}", torch.stack(rows), persistent=False)
        self._n_tasks += 1

    def choose(self, place: int) -> None:
        """Make a task current, by its index from 0."""
        self._chosen = place

    @property
    def ids(self) -> Int[Tensor, "n_classes n_templates context"]:
        """Tokens of the current task's sentences."""
        return self._ids_of(self._chosen)

    def _ids_of(self, place: int) -> Int[Tensor, "n_classes n_templates context"]:
        found: Tensor = getattr(self, f"ids_{place}")
        return found

    def forward(self, labels: Int[Tensor, " n_images"]) -> Float[Tensor, "n_images n_channels"]:
        """Compute the unit-length embedding of one sentence per label, each with a random template."""
        # on the CPU, so that every device draws the same
        drawn = torch.randint(self.ids.shape[1], labels.shape).to(labels.device)
        return self.encoder(self.ids[labels, drawn])

    @torch.no_grad()
    def head(self, place: int = 0) -> Float[Tensor, "n_classes n_channels"]:
        """Build the zero-shot head (Radford et al. 2021) from the current tower, times its logit scale.

        `place` is the task's index, from 0.
        """
        mean = torch.stack([self.encoder(ids).mean(dim=0) for ids in self._ids_of(place)])
        return self.encoder.scale() * functional.normalize(mean, dim=1)
