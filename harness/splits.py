"""Which stimuli a mapping is fitted on, and which it is only scored on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from harness.errors import InputError
from harness.files import read_json, write_json


@dataclass(frozen=True)
class Split:
    """Which stimuli are fitted on and which are only scored on: sorted, disjoint indices."""

    train: Int[np.ndarray, " n_train"]
    held_out: Int[np.ndarray, " n_held_out"]


def split_stimuli(n_images: int, fraction_held_out: float, seed: int) -> Split:
    """Draw the held-out stimuli.

    Raises
    ------
    InputError
        If fewer than two stimuli would be left on either side.
    """
    n_held_out = round(n_images * fraction_held_out)
    if n_held_out < 2 or n_images - n_held_out < 2:
        raise InputError(
            f"mapping.held_out: {fraction_held_out} of {n_images} stimuli leaves "
            f"{n_images - n_held_out} to fit on and {n_held_out} to score on; at least 2 of each are needed"
        )
    order = np.random.default_rng(seed).permutation(n_images)
    return Split(train=np.sort(order[n_held_out:]), held_out=np.sort(order[:n_held_out]))


def save_split(split: Split, path: Path) -> None:
    """Write a split as JSON."""
    write_json(path, {"train": split.train.tolist(), "held_out": split.held_out.tolist()})


def load_split(path: Path) -> Split:
    """Read a split; `InputError` names the file if it is missing or holds none."""
    content = read_json(path)
    try:
        parts = {name: np.array(content[name]) for name in ("train", "held_out")}
        whole = all(part.ndim == 1 and part.dtype.kind == "i" and part.min() >= 0 for part in parts.values())
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole or np.intersect1d(parts["train"], parts["held_out"]).size:
        raise InputError(
            f"{path}: not a split; expected disjoint lists of stimulus indices 'train' and 'held_out'"
        )
    return Split(**parts)
