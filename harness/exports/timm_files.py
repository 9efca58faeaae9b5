"""A snapshot as timm keeps models on the hub: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.exports.exported_model import (
    ExportedModel,
    check_equal,
    sample_images,
    write_classifier,
)

if TYPE_CHECKING:
    from torch import nn
else:
    nn = Any

# recommendations of the source weights for another test, and its classes
OF_OTHER_WEIGHTS = ("test_input_size", "test_crop_pct", "label_names", "label_descriptions", "label_offset")


def write_timm(folder: Path, exported: ExportedModel) -> bool:
    """Write the network with the head as its classifier; timm then loads ``local-dir:FOLDER``.

    The folder is loaded back with timm and compared with the run's network.

    Returns
    -------
    bool
        Whether the head is in the network. A few families classify by more than a linear layer; their head
        is in ``classifier.safetensors``.

    Raises
    ------
    InputError
        If the network that timm loads computes something else.
    """
    import timm
    import torch
    from timm.models import save_for_hf

    network: Any = copy.deepcopy(exported.backbone.encoder)
    inside = put_head(network, exported.head)
    network.pretrained_cfg = describe_preprocessing(network.pretrained_cfg, exported)
    labels = {"label_names": list(exported.task.class_names)} if inside else {}
    save_for_hf(network, str(folder), model_config=labels, safe_serialization=True)
    if not inside:
        write_classifier(folder, exported)
    images = sample_images(exported.backbone.preprocessing.size)
    with torch.no_grad():
        expected = exported.backbone(images)
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        check_equal(loaded(images), exported.classify(expected) if inside else expected, "timm")
    return inside


def put_head(network: Any, head: nn.Linear) -> bool:
    """Give a network without classifier a linear head, in place.

    Returns
    -------
    bool
        False if its family classifies by more than a linear layer; it is then left without classifier.
    """
    import torch

    with torch.random.fork_rng(devices=[]):  # timm draws weights that are replaced
        network.reset_classifier(head.out_features)
    found = network.get_classifier()
    # distilled networks have two, whose logits are averaged
    parts = list(found) if isinstance(found, tuple | list) else [found]
    linear = (torch.nn.Linear, torch.nn.Conv2d)
    if not all(
        isinstance(part, linear) and part.weight.numel() == head.weight.numel() and part.bias is not None
        for part in parts
    ):
        network.reset_classifier(0)
        return False
    for part in parts:
        part.weight.data.copy_(head.weight.data.reshape(part.weight.shape))
        part.bias.data.copy_(head.bias.data)
    return True


def name_classifiers(network: Any) -> list[str]:
    """Names of a network's classifiers among its modules."""
    found = network.get_classifier()
    parts = list(found) if isinstance(found, tuple | list) else [found]
    return [name for name, part in network.named_modules() if any(part is one for one in parts)]


def describe_preprocessing(settings: dict[str, Any], exported: ExportedModel) -> dict[str, Any]:
    """Return timm's settings of the weights, with the preprocessing of the run."""
    ours = exported.backbone.preprocessing
    kept = {name: value for name, value in settings.items() if name not in OF_OTHER_WEIGHTS}
    return kept | {
        "architecture": exported.backbone_config.model,
        "input_size": (3, ours.size, ours.size),
        "mean": tuple(ours.mean),
        "std": tuple(ours.std),
        "interpolation": ours.interpolation,
        "crop_pct": ours.crop_pct,
        "crop_mode": ours.crop_mode,
    }
