"""What the writers of model folders are given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import (
    BackboneConfig,
    Config,
)
from harness.storage import (
    InputError,
    write_json,
)

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor, nn

    from harness.backbones import Backbone, Origin
    from harness.finetuning import TunedModel
    from tasks import Task
else:
    # torch and datasets take seconds to import, and the command's help needs neither
    Backbone = Origin = Task = TunedModel = Any

CLASSIFIER = "classifier.safetensors"
"""File of a head that the library's network has no place for."""

CLASSES = "classifier.json"
"""Its class names, and what it takes."""

TOLERANCE = 1e-4
"""Largest difference between the run's network and the exported one, as a share of the largest output."""


@dataclass(frozen=True)
class ExportedModel:
    """A snapshot with one of its heads.

    Attributes
    ----------
    config : Config
        Of the run.
    backbone_config : BackboneConfig
        Its backbone's, which is a library's.
    run : Path
    step : int
    task : Task
        Fine-tuned task whose head is exported.
    place : int
        Index of that head.
    model : TunedModel
        As trained, with adapters.
    backbone : Backbone
        The same with adapters merged.
    origin : Origin
        Of the pretrained weights.
    repository : str or None
        ``owner/name`` on the hub that the folder goes to.
    """

    config: Config
    backbone_config: BackboneConfig
    run: Path
    step: int
    task: Task
    place: int
    model: TunedModel
    backbone: Backbone
    origin: Origin
    repository: str | None

    @property
    def head(self) -> nn.Linear:
        """The exported head."""
        return self.model.heads[self.place]

    @property
    def normalised(self) -> bool:
        """Whether the head takes features of unit length."""
        return self.model.normalises

    def classify(self, features: Float[Tensor, "n_images n_channels"]) -> Float[Tensor, "n_images n_classes"]:
        """Compute the exported head's logits from features."""
        self.model.choose_head(self.place)
        return self.model.classify(features)


def sample_images(size: int) -> Float[Tensor, "2 3 height width"]:
    """Two preprocessed images of noise that networks are compared on; the same ones every time."""
    import torch

    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def check_equal(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """Raise an `InputError` unless a network read back computes what the run's network does.

    Parameters
    ----------
    found, expected : Tensor
        Outputs of both for the same images.
    what : str
        How it was read back, such as "timm".
    """
    # a diverged run has outputs that are no numbers
    bound = TOLERANCE * float(expected.nan_to_num().abs().max())
    if found.shape == expected.shape and found.allclose(expected, rtol=0, atol=bound, equal_nan=True):
        return
    seen = (
        f"outputs that differ by {float((found - expected).abs().max()):.2g}"
        if found.shape == expected.shape
        else f"outputs of shape {list(found.shape)}"
    )
    raise InputError(
        f"export: found {seen} when {what} loads the folder, expected those of the run "
        f"(within {bound:.2g}, shape {list(expected.shape)}); nothing was written"
    )


def write_classifier(folder: Path, exported: ExportedModel) -> None:
    """Write a head beside the network, for libraries whose network has no place for it.

    ``classifier.safetensors`` has ``weight`` [n_classes, n_channels] and ``bias`` [n_classes].
    """
    from safetensors.torch import save_file

    state = {name: part.detach().contiguous() for name, part in exported.head.state_dict().items()}
    save_file(state, folder / CLASSIFIER)
    write_classes(folder, exported)


def write_classes(folder: Path, exported: ExportedModel) -> None:
    """Write ``classifier.json``: class names in the order of the logits, and what the head takes."""
    write_json(
        folder / CLASSES,
        {
            "label_names": list(exported.task.class_names),
            "multi_label": exported.task.multi_label,
            "features_of_unit_length": exported.normalised,
        },
    )
