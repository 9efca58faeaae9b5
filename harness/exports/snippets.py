"""Code that loads an exported model, for its card. `tests/test_export_hub.py` runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.exports.exported_model import (
    CLASSES,
    CLASSIFIER,
    ExportedModel,
)

if TYPE_CHECKING:
    from harness.config import BackboneConfig
else:
    BackboneConfig = Any

MINI = "palimpsest_mini"
REGISTERS = "import harness.backbones.mini  # registers the architecture with timm"


def describe_loading(exported: ExportedModel, library: str, head_inside: bool) -> str:
    """Say in words what the snippet needs."""
    lines = []
    if library == "peft":
        lines.append("peft puts the adapter onto the pretrained network.")
        if not _from_hub(exported):
            lines.append(
                "The snippet loads that with Palimpsest (the package `harness`), which must be installed."
            )
    else:
        lines.append(f"{library} loads the whole network.")
        if exported.backbone_config.model.startswith(MINI):
            lines.append(
                "Its architecture is Palimpsest's own: with Palimpsest installed, "
                "`import harness.backbones.mini` registers it with timm."
            )
    if not head_inside:
        lines.append(f"The fine-tuned head is in `{CLASSIFIER}`, its class names are in `{CLASSES}`.")
    if exported.repository is None:
        lines.append("`folder` is the folder of this file.")
    return " ".join(lines)


def write_snippet(exported: ExportedModel, library: str, head_inside: bool) -> str:
    """Write Python code that loads the model and names the class of an image file."""
    if library == "peft":
        parts = _load_adapter(exported, head_inside)
    elif library == "timm":
        parts = _load_timm(exported, head_inside)
    else:
        parts = _load_open_clip(exported)
    imports, setup, forward = parts
    if not head_inside or library == "peft":
        imports.add("import json")
        setup += [
            f'with open(f"{{folder}}/{CLASSES}") as file:',
            '    names = json.load(file)["label_names"]',
        ]
    if not head_inside:
        imports.add("from safetensors.torch import load_file")
        setup.append(f'head = load_file(f"{{folder}}/{CLASSIFIER}")')
        if exported.normalised:
            forward.append("    features = torch.nn.functional.normalize(features, dim=1)")
        forward.append('    logits = features @ head["weight"].T + head["bias"]')
    return "\n".join(
        [
            *_sort_imports({*imports, "import torch", "from PIL import Image"}),
            *([REGISTERS] if exported.backbone_config.model.startswith(MINI) and library != "peft" else []),
            "",
            *_locate(exported),
            *setup,
            'image = Image.open("image.png").convert("RGB")',
            "with torch.no_grad():",
            *forward,
            _write_answer(exported),
        ]
    )


def _write_answer(exported: ExportedModel) -> str:
    if exported.task.multi_label:
        return "print(dict(zip(names, logits.sigmoid()[0].tolist())))"
    return "print(names[logits.argmax()])"


def _locate(exported: ExportedModel) -> list[str]:
    if exported.repository is None:
        return ['folder = "."']
    return [f'folder = snapshot_download("{exported.repository}")']


def _sort_imports(lines: set[str]) -> list[str]:
    return sorted(lines, key=lambda line: (line.startswith("from"), line.lower()))


def _hub(exported: ExportedModel) -> set[str]:
    return set() if exported.repository is None else {"from huggingface_hub import snapshot_download"}


Parts = tuple[set[str], list[str], list[str]]


def _load_timm(exported: ExportedModel, head_inside: bool) -> Parts:
    setup = [
        'model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()',
        "settings = timm.data.resolve_model_data_config(model)",
        "transform = timm.data.create_transform(**settings, is_training=False)",
    ]
    if head_inside:
        setup.append('names = model.pretrained_cfg["label_names"]')
    name = "logits" if head_inside else "features"
    return {"import timm", *_hub(exported)}, setup, [f"    {name} = model(transform(image)[None])"]


def _load_open_clip(exported: ExportedModel) -> Parts:
    setup = [
        'model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")',
        "model.eval()",
    ]
    forward = ["    features = model.encode_image(transform(image)[None], normalize=False)"]
    return {"import open_clip", *_hub(exported)}, setup, forward


def _from_hub(exported: ExportedModel) -> bool:
    """Whether timm alone makes the pretrained network as the run used it."""
    backbone = exported.backbone_config
    plain = backbone.image_size is None and not backbone.preprocessing.model_dump(exclude_none=True)
    return backbone.library == "timm" and exported.origin.hub_id is not None and plain


def _load_adapter(exported: ExportedModel, head_inside: bool) -> Parts:
    backbone, imports = exported.backbone_config, {"from peft import PeftModel", *_hub(exported)}
    n_classes = exported.task.n_classes if head_inside else 0
    name = "logits" if head_inside else "features"
    if _from_hub(exported):
        imports.add("import timm")
        setup = [
            f'network = timm.create_model("{backbone.model}.{backbone.weights}", pretrained=True, '
            f"num_classes={n_classes})",
            "settings = timm.data.resolve_model_data_config(network)",
            "transform = timm.data.create_transform(**settings, is_training=False)",
        ]
        forward = [f"    {name} = model(transform(image)[None])"]
    else:
        imports.add("import harness")
        setup = [
            "backbone = harness.load_backbone(",
            f'    "{backbone.library}",',
            *(f"    {name}={_quote(value)}," for name, value in _list_backbone_settings(backbone).items()),
            ")",
            "network = backbone.encoder",
        ]
        if head_inside:
            setup.append(f"network.reset_classifier({n_classes})")
        forward = [f"    {name} = model(backbone.preprocessing([image]))"]
    setup.append("model = PeftModel.from_pretrained(network, folder).eval()")
    return imports, setup, forward


def _quote(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _list_backbone_settings(backbone: BackboneConfig) -> dict[str, Any]:
    """Settings that differ from the defaults; of a file elsewhere only its name."""
    from harness.backbones import describe_origin

    found: dict[str, Any] = backbone.model_dump(exclude_defaults=True, exclude={"library", "size", "name"})
    if "preprocessing" in found:
        found["preprocessing"] = backbone.preprocessing.model_dump(exclude_none=True)
    if backbone.checkpoint is not None and not describe_origin(backbone).shipped:
        found["checkpoint"] = Path(backbone.checkpoint).name
    return found
