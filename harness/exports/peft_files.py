"""The adapter of a LoRA run as peft keeps it: ``adapter_config.json`` and ``adapter_model.safetensors``."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from harness.exports.exported_model import (
    ExportedModel,
    check_equal,
    sample_images,
    write_classes,
    write_classifier,
)
from harness.exports.timm_files import (
    name_classifiers,
    put_head,
)
from harness.storage import InputError


def write_adapter(folder: Path, exported: ExportedModel) -> bool:
    """Write the adapter; peft puts it onto the pretrained network.

    With timm, the head is among the adapter's modules (``modules_to_save``), so the pretrained network needs
    a classifier of as many classes. With open_clip, the adapter belongs to ``model.visual``, and the head is
    in ``classifier.safetensors``. The folder is loaded back with peft and compared with the run's network.

    Returns
    -------
    bool
        Whether the head is in the adapter.

    Raises
    ------
    InputError
        If the run has no adapter, or peft computes something else with it.
    """
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import save_file
    from torch import nn

    from harness.backbones import load_backbone

    adapted = exported.model.adapted
    if adapted is None:
        raise InputError(
            f"--format peft: found a run with method {exported.config.method.name}, expected lora"
        )
    pretrained = load_backbone(exported.backbone_config)
    network: Any = pretrained.encoder
    if any(isinstance(part, nn.MultiheadAttention) for part in network.modules()):
        raise InputError(
            "--format peft: found a network with torch's MultiheadAttention, which peft adapts in another "
            "way than the run did; --format huggingface has the adapters merged into the weights"
        )
    timm = exported.backbone_config.library == "timm"
    heads = name_classifiers(network) if timm and put_head(network, exported.head) else []
    settings: Any = copy.deepcopy(adapted.peft_config["default"])
    settings.inference_mode = True
    settings.base_model_name_or_path = exported.origin.hub_id
    settings.modules_to_save = heads or None
    state = get_peft_model_state_dict(adapted)
    for name in heads:
        part = network.get_submodule(name)
        state |= {f"base_model.model.{name}.{key}": value for key, value in part.state_dict().items()}
    settings.save_pretrained(str(folder))
    stored = {name: part.detach().contiguous().clone() for name, part in state.items()}
    save_file(stored, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    if heads:
        write_classes(folder, exported)
    else:
        write_classifier(folder, exported)
    images = sample_images(exported.backbone.preprocessing.size)
    with torch.no_grad():
        expected = exported.backbone(images)
        if heads:
            for name in heads:  # as in a new classifier: peft has to bring the head
                nn.init.zeros_(network.get_submodule(name).weight)
                nn.init.zeros_(network.get_submodule(name).bias)
            expected = exported.classify(expected)
        loaded = PeftModel.from_pretrained(network, str(folder)).eval()
        check_equal(loaded(images), expected, "peft")
    return bool(heads)
