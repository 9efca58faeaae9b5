"""Read weights from a file: safetensors, or a file of `torch.save` that holds nothing but tensors."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.storage import (
    InputError,
    read_weights,
)

# keys under which training scripts keep the weights, beside optimizer and epoch (encoder: I-JEPA)
SECTIONS = ("state_dict", "model", "teacher", "module", "encoder")
# MoCo v3 stores the encoder beside its momentum copy and the predictor
BASE_ENCODER = "module.base_encoder."
# prefixes added by wrappers: data parallel, compile, a model around the network
WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.")
MOST_NAMED = 3


def read_weight_file(path: Path) -> dict[str, Tensor]:
    """Read the weights in a file by name; floating-point ones become float32.

    Sections of a training script's file and prefixes of wrappers are stripped. MoCo v3's files are reduced to
    the base encoder.

    Raises
    ------
    InputError
        If the file is missing or corrupt, or holds anything but tensors: that is not unpickled.
    """
    if path.is_dir():
        raise InputError(f"{path}: found a folder, expected a file (.safetensors, .pth, .pt, .bin)")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    content: Any = read_weights(path) if path.suffix == ".safetensors" else _read_torch_file(path)
    while isinstance(content, Mapping) and (section := next(filter(content.__contains__, SECTIONS), None)):
        if not isinstance(content[section], Mapping):
            break
        content = content[section]
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: found a {type(content).__name__}, expected tensors by name")
    tensors = {str(name): part for name, part in content.items() if isinstance(part, Tensor)}
    if not tensors:
        raise InputError(f"{path}: found no tensors, expected tensors by name")
    return {
        name: part.float() if part.is_floating_point() else part for name, part in _unwrap(tensors).items()
    }


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load weights that match every name and shape; an `InputError` lists what does not.

    Only batch counters may be missing: old files lack them, and evaluation does not use them.
    """
    expected = module.state_dict()
    missing = [name for name in expected.keys() - tensors.keys() if not name.endswith("num_batches_tracked")]
    resized = [
        f"size mismatch for {name} (found {list(tensors[name].shape)}, expected {list(part.shape)})"
        for name, part in expected.items()
        if name in tensors and tensors[name].shape != part.shape
    ]
    problems = [
        _summarise("missing", missing),
        _summarise("unexpected", tensors.keys() - expected.keys()),
        "; ".join(resized[:MOST_NAMED]),
        f"{len(resized) - MOST_NAMED} more size mismatches" if len(resized) > MOST_NAMED else "",
    ]
    if any(problems):
        raise InputError(f"{path}: weights do not fit the architecture: {'; '.join(filter(None, problems))}")
    module.load_state_dict(tensors, strict=False)


def _summarise(kind: str, names: Any) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > MOST_NAMED else ""
    return f"{len(names)} {kind} ({', '.join(sorted(names)[:MOST_NAMED])}{more})"


def _read_torch_file(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(2)
    if start != b"PK" and start[:1] != b"\x80":  # neither an archive nor a pickle
        raise InputError(f"{path}: not a readable file of weights (corrupt, or not written by torch)")
    if _is_torchscript(path):
        raise InputError(
            f"{path}: found a TorchScript archive, expected tensors by name (.safetensors, .pth); "
            "the hub has OpenAI's weights as safetensors"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol, before the file is refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise InputError(
            f"{path}: holds {found[1] if found else 'another pickle'}, which is not loaded; expected "
            "tensors, text and numbers. If you trust the file, save its state_dict as safetensors"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        detail = " ".join(str(error).split())[:150] or type(error).__name__
        raise InputError(f"{path}: not a readable file of weights ({detail})") from None


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _unwrap(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if any(name.startswith(BASE_ENCODER) for name in tensors):
        return {
            name.removeprefix(BASE_ENCODER): part
            for name, part in tensors.items()
            if name.startswith(BASE_ENCODER)
        }
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in tensors):
            return _unwrap({name.removeprefix(prefix): part for name, part in tensors.items()})
    return tensors
