"""A snapshot as open_clip keeps models on the hub: its configuration, weights and tokenizer.

Both towers are exported. The text tower is the pretrained one, or the tuned one where the method trains it.
The fine-tuned head is in ``classifier.safetensors``, as open_clip's networks have no classifier.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.exports.exported_model import (
    ExportedModel,
    check_equal,
    sample_images,
    write_classifier,
)
from harness.storage import (
    InputError,
    write_json,
)

# open_clip's names of timm's crop modes
RESIZE_MODES = {"center": "shortest", "squash": "squash", "border": "longest"}
INTERPOLATIONS = ("bicubic", "bilinear")


def write_open_clip(folder: Path, exported: ExportedModel) -> None:
    """Write the network, its configuration, its tokenizer and the head; open_clip loads ``local-dir:FOLDER``.

    The folder is loaded back with open_clip and both towers are compared with the run's.

    Raises
    ------
    InputError
        If open_clip cannot build the network at its image size, cannot preprocess images as the run does, or
        loads a network that computes something else.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file

    from harness.backbones import load_open_clip

    preprocessing = describe_preprocessing(exported)
    settings = describe_network(exported)
    network = load_open_clip(exported.backbone_config).eval()
    network.visual = exported.backbone.encoder
    if exported.model.texts is not None:
        tuned: Any = exported.model.texts.encoder
        network.load_state_dict(tuned.model.state_dict(), strict=False)  # all but the image tower
    state = {name: part.detach().contiguous() for name, part in network.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    _write_tokenizer(folder, exported, settings)
    write_json(folder / "open_clip_config.json", {"model_cfg": settings, "preprocess_cfg": preprocessing})
    write_classifier(folder, exported)
    images = sample_images(exported.backbone.preprocessing.size)
    with torch.no_grad():
        loaded = open_clip.create_model_from_pretrained(f"local-dir:{folder}", return_transform=False).eval()
        check_equal(loaded.encode_image(images, normalize=False), exported.backbone(images), "open_clip")
        words = torch.arange(1, 1 + settings["text_cfg"].get("context_length", 77))[None]
        expected = network.encode_text(words, normalize=True)
        check_equal(loaded.encode_text(words, normalize=True), expected, "open_clip")


def describe_network(exported: ExportedModel) -> dict[str, Any]:
    """Return open_clip's configuration of the architecture, as the run uses it."""
    import open_clip

    backbone = exported.backbone_config
    settings: dict[str, Any] = open_clip.get_model_config(backbone.model)
    vision = settings["vision_cfg"]
    if exported.backbone.flags["quick_gelu"]:
        settings["quick_gelu"] = True
    if "timm_model_name" in vision:
        if backbone.image_size is not None and backbone.image_size != vision.get("image_size"):
            raise InputError(
                f"backbone.image_size: found {backbone.image_size}, expected {vision.get('image_size')}: "
                f"open_clip builds {backbone.model} at no other size"
            )
        vision["timm_model_pretrained"] = False
    elif backbone.image_size is not None:
        vision["image_size"] = backbone.image_size
    return settings


def describe_preprocessing(exported: ExportedModel) -> dict[str, Any]:
    """Return open_clip's settings of the preprocessing; an `InputError` if it has no such one."""
    ours = exported.backbone.preprocessing
    if ours.interpolation not in INTERPOLATIONS:
        raise InputError(
            f"backbone.preprocessing.interpolation: found {ours.interpolation}, expected "
            f"{' or '.join(INTERPOLATIONS)}: open_clip knows no other"
        )
    if ours.crop_pct != 1:
        raise InputError(
            f"backbone.preprocessing.crop_pct: found {ours.crop_pct}, expected 1: open_clip knows no other"
        )
    return {
        "mean": list(ours.mean),
        "std": list(ours.std),
        "interpolation": ours.interpolation,
        "resize_mode": RESIZE_MODES[ours.crop_mode],
    }


def _write_tokenizer(folder: Path, exported: ExportedModel, settings: dict[str, Any]) -> None:
    """Write the tokenizer of a network that does not use CLIP's, as far as the run has it."""
    from harness.backbones import CLIP_NAME, build_tokenizer

    if exported.backbone_config.model == CLIP_NAME:
        from transformers import PreTrainedTokenizerFast

        tokenizer = build_tokenizer()
        tokenizer.no_padding()  # open_clip asks for its own
        tokenizer.no_truncation()
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="<pad>",
            unk_token="<unknown>",
            bos_token="<start>",
            eos_token="<end>",
        ).save_pretrained(folder)
        # from a folder, open_clip reads the folder's own; from the hub, this repository's
        settings["text_cfg"]["hf_tokenizer_name"] = exported.repository or CLIP_NAME
    elif "hf_tokenizer_name" in settings["text_cfg"] and exported.backbone_config.text:
        import open_clip

        open_clip.get_tokenizer(exported.backbone_config.model).save_pretrained(folder)
