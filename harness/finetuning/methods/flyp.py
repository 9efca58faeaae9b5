"""FLYP: fine-tune like you pretrain (Goyal et al., CVPR 2023).

The loss is CLIP's, on pairs of an image and a sentence with its class name. Both towers and the logit scale
are trained; the head is built from the tuned text tower. As in the paper, images of one class in a batch are
negatives of each other. SigLIP backbones use the same softmax loss.
"""

from __future__ import annotations

import warnings

import open_clip
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from harness.finetuning.methods.class_texts import ClassTexts
from harness.finetuning.methods.objective import (
    Context,
    Objective,
    Terms,
)
from harness.finetuning.methods.opening import (
    Added,
    Opening,
)
from harness.finetuning.methods.tuned import TunedModel
from harness.storage import InputError
from tasks import Task


class Flyp(Objective):
    """The contrastive loss over the images of all processes."""

    def __init__(self, model: TunedModel, task: Task, process: int, n_processes: int) -> None:
        super().__init__(model, task)
        # each process computes its own share of the logits; gradients pass through the gathered features
        self._loss = open_clip.ClipLoss(
            local_loss=True, gather_with_grad=True, rank=process, world_size=n_processes
        )

    def forward(self, images: Float[Tensor, "n_images 3 height width"], labels: Tensor) -> Terms:
        """Compute the contrastive loss."""
        if labels.ndim != 1:
            raise InputError("method: found flyp with a multi-label task, expected one label per image")
        texts = self.model.texts
        assert texts is not None
        features = functional.normalize(self.model.backbone(images).float(), dim=1)
        embeddings = texts(labels).float()
        with warnings.catch_warnings():
            # open_clip gathers with a function that torch is about to rename
            warnings.filterwarnings("ignore", r"torch\.distributed\.nn\.functional", FutureWarning)
            return {"contrastive_loss": self._loss(features, embeddings, texts.encoder.scale())}


def open_both_towers(opening: Opening) -> Added:
    """Open the image tower and a copy of the text tower, which encodes the tasks' class names."""
    backbone = opening.backbone
    if backbone.text is None:
        raise InputError(
            "method: found flyp with a backbone without a text tower, "
            "expected a contrastive one of open_clip, such as backbone=mini_clip"
        )
    backbone.requires_grad_(True)
    sentences = []
    for task in opening.tasks:
        if task is None or not task.templates:
            found = f"method: found flyp with task {'none' if task is None else task.name}"
            raise InputError(f"{found}, expected a task with prompt templates")
        sentences.append((task.class_names, task.templates))
    texts = ClassTexts(backbone.text.copy_to_train(), *sentences[0])
    for names, templates in sentences[1:]:
        texts.add(names, templates)
    return Added(texts=texts)


def build(model: TunedModel, task: Task, context: Context) -> Flyp:
    """Build the objective from a run's settings."""
    return Flyp(model, task, context.process, context.n_processes)
