"""Read weights from a file: safetensors, or a file of `torch.save` that holds nothing but tensors."""

from __future__ import annotations

import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.storage import (
    InputError,
    read_weights,
    refuse_endless,
    tell_format,
)

log = logging.getLogger(__name__)

# keys under which training scripts keep the weights, beside optimizer and epoch, in order of preference
# (encoder: I-JEPA): trained weights before their moving averages, but a teacher before its student
SECTIONS = (
    *("state_dict", "model", "model_state_dict", "model_state", "teacher", "module", "encoder"),
    *("net", "net_state_dict", "network", "network_state_dict", "backbone", "weights", "params", "student"),
    *(
        "state_dict_ema",
        "model_ema",
        "model_ema_state_dict",
        "ema_state_dict",
        "ema_model",
        "ema",
        "params_ema",
    ),
)
DEEPEST = 8  # sections within sections
# MoCo v3 stores the encoder beside its momentum copy and the predictor
BASE_ENCODER = "module.base_encoder."
# prefixes added by wrappers: data parallel, compile, a model around the network; not network., which is
# timm's own name in VOLO
WRAPPERS = ("module.", "_orig_mod.", "_forward_module.", "model.", "net.", "backbone.")
MOST_NAMED = 3
LONGEST_HEADER = 10**8  # bytes; safetensors' own limit


def read_weight_file(path: Path) -> dict[str, Tensor]:
    """Read the weights in a file by name; floating-point ones become float32.

    The content tells the format, whatever the name. Sections of a training script's file and prefixes of
    wrappers are stripped; what lies beside them is left out, which is logged. MoCo v3's files are reduced to
    the base encoder.

    Raises
    ------
    InputError
        If the file is missing or corrupt, or holds anything but tensors: that is not unpickled.
    """
    refuse_endless(path)
    if path.is_dir():
        raise InputError(f"{path}: found a folder, expected a file (.safetensors, .pth, .pt, .bin)")
    if not path.is_file():
        found = tell_format(path)
        raise InputError(f"{path}: {f'found {found}' if found else 'no such file'}")
    content: Any = read_weights(path) if _is_safetensors(path) else _read_torch_file(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: found a {type(content).__name__}, expected tensors by name")
    tensors = _find_tensors(content, path)
    if not tensors:
        others = [str(name) for name, part in content.items() if _list_tensors(part)]
        where = f" at the top or under a usual name, only in {_name_few(others)}" if others else ""
        raise InputError(
            f"{path}: found no tensors{where}, expected tensors by name, or a section of them such as "
            "state_dict or model"
        )
    return {
        name: part.float() if part.is_floating_point() else part
        for name, part in _unwrap(tensors, path).items()
    }


def _find_tensors(content: Any, path: Path, depth: int = 0) -> dict[str, Tensor]:
    """Tensors of the first of `SECTIONS` that holds some, or else of the content itself."""
    if not isinstance(content, Mapping) or depth > DEEPEST:
        return {}
    for place, name in enumerate(SECTIONS):
        if found := _find_tensors(content.get(name), path, depth + 1):
            others = [other for other in SECTIONS[place + 1 :] if _list_tensors(content.get(other))]
            if others:
                log.warning(
                    "warning: %s: reading the weights in %s, not those in %s", path, name, _name_few(others)
                )
            return found
    return _list_tensors(content)


def _list_tensors(content: Any) -> dict[str, Tensor]:
    """Tensors by name at the top of the content."""
    if not isinstance(content, Mapping):
        return {}
    return {str(name): part for name, part in content.items() if isinstance(part, Tensor)}


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load weights that match every name and shape, and that can be weights.

    Only batch counters may be missing: old files lack them, and evaluation does not use them.

    Raises
    ------
    InputError
        If a name or shape does not match; if a tensor holds NaN or infinity, is complex or of whole numbers
        where the network has floating-point ones, or is a matrix or kernel of zeros only. What the network is
        initialised to is excepted, such as an attention mask of −∞ or a kernel that starts at zero.
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
    _check_values(expected, tensors, path)
    module.load_state_dict(tensors, strict=False)


def _check_values(initial: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that cannot be trained weights, by the values that the network is initialised to."""
    kinds, broken, empty = [], [], []
    for name, own in initial.items():
        if name not in tensors or not own.is_floating_point():  # counters and indices are whole numbers
            continue
        part = tensors[name]
        if not part.is_floating_point():
            kinds.append(name)
        elif not part.isfinite().all() and own.isfinite().all():
            broken.append(name)
        # biases, norms, tokens and gates may be zero; a matrix or kernel passes nothing on
        elif name.endswith("weight") and part.ndim > 1 and not part.any() and own.any():
            empty.append(name)
    if kinds:
        kind = str(tensors[kinds[0]].dtype).removeprefix("torch.")
        raise InputError(
            f"{path}: found {_name_few(kinds)} of type {kind}, expected floating-point weights "
            "(quantised ones are not loaded)"
        )
    if broken:
        part = tensors[broken[0]]
        count = int((~part.isfinite()).sum())
        raise InputError(
            f"{path}: found NaN or infinity in {_name_few(broken)} ({count} of {part.numel()} numbers in the "
            "first), expected finite weights: the file is damaged, or its training diverged"
        )
    if empty:
        raise InputError(
            f"{path}: found only zeros in {_name_few(empty)}, expected trained weights: the file may be "
            "incomplete"
        )


def _name_few(names: Sequence[str]) -> str:
    few = ", ".join(f"{name:.80}" for name in names[:MOST_NAMED])
    return few if len(names) <= MOST_NAMED else f"{few} and {len(names) - MOST_NAMED} more"


def _summarise(kind: str, names: Any) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > MOST_NAMED else ""
    return f"{len(names)} {kind} ({', '.join(sorted(names)[:MOST_NAMED])}{more})"


def _is_safetensors(path: Path) -> bool:
    """Whether a file starts as safetensors do: the length of a header in JSON, and the header."""
    with path.open("rb") as file:
        start = file.read(9)
    if len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_HEADER:
        return True
    # so that a broken file is called what its name says
    return path.suffix.lower() == ".safetensors" and start[:2] != b"PK" and start[:1] != b"\x80"


def _read_torch_file(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(2)
    if start != b"PK" and start[:1] != b"\x80":  # neither an archive nor a pickle
        found = tell_format(path)
        raise InputError(
            f"{path}: not a readable file of weights "
            f"({f'found {found}' if found else 'corrupt, or not written by torch'})"
        )
    members = _list_members(path)
    if members and not any(name.endswith("data.pkl") for name in members):
        kind = "a numpy archive (.npz)" if members[0].endswith(".npy") else "a zip archive (unpack it)"
        raise InputError(
            f"{path}: found {kind} of {_name_few(members)}, expected tensors by name (.safetensors, .pth)"
        )
    if any(name.endswith("/constants.pkl") for name in members):
        raise InputError(
            f"{path}: found a TorchScript archive, expected tensors by name (.safetensors, .pth); "
            "the hub has OpenAI's weights as safetensors"
        )
    try:
        # an open file: torch goes by the suffix of a path
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # about the pickle protocol, before the file is refused
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL (\S+)", str(error))
        raise InputError(
            f"{path}: holds {name[1] if name else 'another pickle'}, which is not loaded; expected "
            "tensors, text and numbers. If you trust the file, save its state_dict as safetensors"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        detail = " ".join(str(error).split())[:150] or type(error).__name__
        raise InputError(f"{path}: not a readable file of weights ({detail})") from None


def _list_members(path: Path) -> list[str]:
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def _unwrap(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Strip wrappers' prefixes; a few tensors beside the wrapped network, such as of a loss, are left out."""
    if any(name.startswith(BASE_ENCODER) for name in tensors):
        return {
            name.removeprefix(BASE_ENCODER): part
            for name, part in tensors.items()
            if name.startswith(BASE_ENCODER)
        }
    for prefix in WRAPPERS:
        inside = {
            name.removeprefix(prefix): part for name, part in tensors.items() if name.startswith(prefix)
        }
        if 2 * len(inside) >= len(tensors):
            beside = [name for name in tensors if not name.startswith(prefix)]
            if beside:
                log.warning(
                    "warning: %s: reading the tensors named %s…, not the %d beside them (%s)",
                    path,
                    prefix,
                    len(beside),
                    _name_few(beside),
                )
            return _unwrap(inside, path)
    return tensors
