"""Checkpoints to resume training from: weights, optimizer state and the step, without pickles.

They need nothing else: batches, learning rate and randomness of a step are functions of the seed and the step
(see `seed_step`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.storage import (
    InputError,
    content_hash,
    read_json,
    read_record,
    read_weights,
    remove_path,
    write_atomically,
    write_record,
)


def write_checkpoint(
    folder: Path,
    step: int,
    state: dict[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
    scaler: Any = None,
    notes: Any = None,
) -> None:
    """Write a checkpoint as ``folder/step-…``, then remove older ones.

    Parameters
    ----------
    folder : Path
    step : int
        Steps done.
    state : dict of str to Tensor
        All tensors that training changes.
    optimizers : sequence of Optimizer
        Their per-parameter states must be tensors and numbers.
    scaler : torch.amp.GradScaler, optional
        For float16 training.
    notes : JSON-serialisable, optional
        Anything else, for `read_notes`.
    """
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in state.items()}
    for place, optimizer in enumerate(optimizers):
        for parameter, entries in optimizer.state_dict()["state"].items():
            tensors.update(
                {
                    f"optimizer.{place}.{parameter}.{key}": torch.as_tensor(part).contiguous()
                    for key, part in entries.items()
                }
            )
    target = folder / f"step-{step:08d}"
    with write_atomically(target) as temporary:
        temporary.mkdir()
        save_file(tensors, temporary / "state.safetensors")
        progress = {
            "step": step,
            "scaler": scaler.state_dict() if scaler else None,
            "notes": notes,
            "state_hash": content_hash(tensors),
        }
        write_record(temporary / "progress.json", progress, "")
    for path in _list_own(folder):
        if path != target:
            remove_path(path)


def remove_checkpoints(folder: Path) -> None:
    """Remove a run's checkpoints; if their folder is a link, also from where it leads, which stays."""
    for path in _list_own(folder) if folder.is_symlink() else []:
        remove_path(path)
    remove_path(folder)


def _list_own(folder: Path) -> list[Path]:
    """List checkpoints, and what killed processes have left of some."""
    return [*folder.glob("step-*"), *folder.glob(".step-*.partial")]


def find_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint; None if there are none."""
    return max(folder.glob("step-*"), default=None)


def checkpoint_step(path: Path) -> int:
    """Return the steps done at a checkpoint from `find_checkpoint`; an `InputError` if it was renamed."""
    return _read_progress(path)["step"]


def _read_progress(path: Path) -> dict[str, Any]:
    file = path / "progress.json"
    wrong = InputError(f"{file}: not a checkpoint's progress; remove {path} to start over")
    if not isinstance(read_json(file), dict):
        raise wrong
    progress = read_record(file, "")
    step, named = progress.get("step"), path.name.removeprefix("step-")
    if type(step) is not int:
        raise wrong
    if not named.isdecimal() or int(named) != step:
        raise InputError(f"{path}: found the checkpoint of step {step}; remove it to start over")
    return progress


def read_notes(path: Path) -> Any:
    """Read a checkpoint's notes; None if it has none."""
    return _read_progress(path).get("notes")


def read_checkpoint(
    path: Path, module: nn.Module, optimizers: Sequence[torch.optim.Optimizer], scaler: Any = None
) -> int:
    """Restore a checkpoint and return the steps done.

    Raises
    ------
    InputError
        If it is corrupt or of another model; remove it to start over.
    """
    tensors = read_weights(path / "state.safetensors")
    progress = _read_progress(path)
    if progress.get("state_hash", "") not in ("", content_hash(tensors)):
        raise InputError(f"{path}: its tensors have changed; remove it to start over")
    state = {name.removeprefix("model."): part for name, part in tensors.items() if name.startswith("model.")}
    try:
        found = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise InputError(f"{path}: does not fit the model ({detail}); remove it to start over") from None
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    different = sorted({*found.unexpected_keys, *trained.intersection(found.missing_keys)})
    if different:
        raise InputError(f"{path}: found weights of another model ({different[0]}); remove it to start over")
    for place, optimizer in enumerate(optimizers):
        entries: dict[int, dict[str, Tensor]] = {}
        for name, part in tensors.items():
            if name.startswith(f"optimizer.{place}."):
                parameter, key = name.removeprefix(f"optimizer.{place}.").split(".", 1)
                entries.setdefault(int(parameter), {})[key] = part
        optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    if scaler is not None and progress.get("scaler"):
        scaler.load_state_dict(progress["scaler"])
    return progress["step"]


def seed_step(seed: int, step: int, process: int) -> None:
    """Seed torch for a process's step, so that a resumed step draws the same (dropout, for example)."""
    words = np.random.SeedSequence((seed, step, process)).generate_state(2, np.uint32)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))
