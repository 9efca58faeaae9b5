"""FLYP: fine-tune as it was pretrained (Goyal et al., CVPR 2023).

The loss is CLIP's own, on pairs of an image and a sentence that says its class. Both towers and the logit
scale are trained; the head is made of the tuned text tower. As in the paper, two images of one class in a
batch are told apart like any others. A softmax stands for SigLIP's own loss, too.
"""

from __future__ import annotations

import warnings

import open_clip
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from harness.finetuning.methods.objective import (
    Objective,
    Terms,
)
from harness.finetuning.methods.tuned import TunedModel
from harness.storage import InputError
from tasks import Task


class Flyp(Objective):
    """The contrastive loss over the images of all processes."""

    def __init__(self, model: TunedModel, task: Task, process: int, n_processes: int) -> None:
        super().__init__(model, task)
        # each process its own share of the logits; gradients go through what is gathered
        self._loss = open_clip.ClipLoss(
            local_loss=True, gather_with_grad=True, rank=process, world_size=n_processes
        )

    def forward(self, images: Float[Tensor, "n_images 3 height width"], labels: Tensor) -> Terms:
        """The contrastive loss."""
        if labels.ndim != 1:
            raise InputError("method: found flyp with several labels an image, accepted: one label")
        texts = self.model.texts
        assert texts is not None
        features = functional.normalize(self.model.backbone(images).float(), dim=1)
        embeddings = texts(labels).float()
        with warnings.catch_warnings():
            # open_clip gathers by a function that torch is about to rename
            warnings.filterwarnings("ignore", r"torch\.distributed\.nn\.functional", FutureWarning)
            return {"contrastive_loss": self._loss(features, embeddings, texts.encoder.scale())}
