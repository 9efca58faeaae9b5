"""Units of a network that are grafted: a backbone's layers, what stands before and after them, adapters."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from harness.backbones import Backbone
from harness.finetuning import TunedModel

_ENCODER = "backbone.encoder."
_ADAPTER = ".lora_"


def name_units(backbone: Backbone) -> dict[str, str]:
    """Return the unit of every tensor of a backbone's encoder, by name; units in the order of the network.

    Units are the layers of `Backbone.parameter_layers`, with ``stem`` and ``top``. Where blocks are finer
    than the layers that a brain reads (stages), all blocks of a layer make one unit. Buffers, such as the
    statistics of batch norm, go with the parameters beside them.
    """
    names = backbone.parameter_layers()
    own: dict[str, str] = {}
    for name, unit in names.items():
        inside = [layer for layer in backbone.layers if f".{layer}." in f".{name}"]
        own[name] = unit if unit in backbone.layers else max(inside, key=len, default=unit)
    own |= {name: _unit_beside(name, own) for name, _ in backbone.encoder.named_buffers() if name not in own}
    order = ["stem", *backbone.layers, *sorted(set(own.values()) - {"stem", "top", *backbone.layers}), "top"]
    return dict(sorted(own.items(), key=lambda item: order.index(item[1])))


def _unit_beside(name: str, units: Mapping[str, str]) -> str:
    """Unit of the first parameter in the same module as a buffer, or in the nearest one around it."""
    module = name.rpartition(".")[0]
    while module:
        for other, unit in units.items():
            if other.startswith(f"{module}."):
                return unit
        module = module.rpartition(".")[0]
    return "stem"


def changed_units(
    model: TunedModel, start: Mapping[str, Tensor], end: Mapping[str, Tensor]
) -> dict[str, tuple[str, ...]]:
    """Names of the tensors of every unit that fine-tuning has changed, in the order of the network.

    Parameters
    ----------
    model : TunedModel
        Tuned by the run's method: its adapters belong to the layers they adapt.
    start, end : mappings of name to tensor
        Changing states of the first and the last snapshot.
    """
    tensors: dict[str, list[str]] = {}
    for name, unit in name_units(model.backbone).items():
        if f"{_ENCODER}{name}" in end:
            tensors.setdefault(unit, []).append(f"{_ENCODER}{name}")
    return {
        unit: tuple(names)
        for unit, names in tensors.items()
        if any(not torch.equal(start[name], end[name]) for name in names)
    }


def changed_adapters(
    units: Mapping[str, tuple[str, ...]], start: Mapping[str, Tensor], end: Mapping[str, Tensor]
) -> dict[str, tuple[str, ...]]:
    """Names of the tensors of every LoRA adapter that fine-tuning has changed, by the module it adapts.

    Empty without adapters. An adapter that is alone in its layer is that layer's unit, and left out.

    Parameters
    ----------
    units : mapping of unit to names of tensors
        From `changed_units`.
    start, end : mappings of name to tensor
    """
    tensors: dict[str, list[str]] = {}
    for unit_tensors in units.values():
        for name in unit_tensors:
            module, found, _ = name.partition(_ADAPTER)
            if found:
                tensors.setdefault(module.removeprefix(_ENCODER), []).append(name)
    whole = {frozenset(names) for names in units.values()}
    return {
        module: tuple(names)
        for module, names in tensors.items()
        if frozenset(names) not in whole and any(not torch.equal(start[name], end[name]) for name in names)
    }


def graft(
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    units: Mapping[str, tuple[str, ...]],
    chosen: Collection[str],
) -> dict[str, Tensor]:
    """Return a changing state: that of the end, with the tensors of the chosen units from the start.

    Heads and text towers stay as they were fine-tuned. An adapter from the start adds nothing.
    """
    back = {name for unit in chosen for name in units[unit]}
    return {name: start[name] if name in back else tensor for name, tensor in end.items()}
