"""A run's last snapshot as a model of MLflow's: an exported graph, which loads without this package."""

from __future__ import annotations

from importlib.metadata import version
from inspect import signature
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness.backbones import encoder_hash
from harness.config import Config
from harness.finetuning import (
    TunedModel,
    read_snapshot,
    tune,
)
from harness.runs import (
    Inputs,
    list_snapshots,
    snapshot_folder,
)


class Classifier(nn.Module):
    """Preprocessed images to the logits of the last task, adapters merged."""

    def __init__(self, model: TunedModel) -> None:
        super().__init__()
        self.backbone = model.merged_backbone()
        self.head = model.heads[-1]
        # heads built from class names read features of length 1
        self.normalise = model.normalises

    def forward(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> Float[Tensor, "n_images n_classes"]:
        """Compute logits."""
        features = self.backbone(images)
        return self.head(nn.functional.normalize(features, dim=1) if self.normalise else features)


def save_model(config: Config, run: Path, inputs: Inputs, target: Path) -> None:
    """Save the last snapshot of a run as an MLflow model with its signature, into a new folder.

    ``mlflow.pytorch.load_model`` returns a module from preprocessed images, float32 [n_images, 3, height,
    width], to logits [n_images, n_classes]. The graph is that of `torch.export`; nothing is pickled.
    """
    from mlflow.models import infer_signature
    from mlflow.pytorch import save_model as save

    if "serialization_format" not in signature(save).parameters:
        raise RuntimeError(f"mlflow {version('mlflow')} can only pickle models, expected a newer one")
    tasks, backbone = inputs.tasks, inputs.backbone
    # before the method adds to its weights
    pretrained = encoder_hash(backbone)
    model = tune(backbone, [task.n_classes for task in tasks], config.method, config.seed, tasks)
    read_snapshot(snapshot_folder(run, list_snapshots(run)[-1]), model, pretrained)
    classifier = Classifier(model.cpu()).eval()
    # with two images, their number stays free
    images = backbone.preprocessing(tasks[-1].test[:2]["image"])
    with torch.no_grad():
        logits = classifier(images)
    save(
        classifier,
        target,
        signature=infer_signature(images.numpy(), logits.numpy()),
        input_example=images.numpy(),
        serialization_format="pt2",
        # otherwise MLflow starts a process that imports the model to find them
        pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
    )
