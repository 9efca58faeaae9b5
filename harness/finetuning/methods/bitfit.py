"""BitFit: only biases are trained, and the head (Ben Zaken et al. 2022)."""

from __future__ import annotations

from harness.finetuning.methods.opening import (
    Added,
    Opening,
)
from harness.storage import InputError


def open_biases(opening: Opening) -> Added:
    """Open the encoder's biases; an `InputError` if it has none."""
    names = dict(opening.backbone.encoder.named_parameters())
    biases = [parameter for name, parameter in names.items() if name.endswith("bias")]
    if not biases:
        raise InputError("method: found bitfit with a backbone without biases, expected one with biases")
    for parameter in biases:
        parameter.requires_grad_(True)
    return Added()
