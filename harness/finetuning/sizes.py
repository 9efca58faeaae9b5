"""What a method trains of a network, and what a snapshot then takes, without the network's weights."""

from __future__ import annotations

import copy
from functools import cache

from harness.config import (
    AnyBackboneConfig,
    MethodConfig,
    PythonMethodConfig,
)
from harness.runs import (
    outline_network,
    remember_network,
)


@cache
def count_opened(
    config: AnyBackboneConfig, method: MethodConfig, n_classes: tuple[int, ...]
) -> tuple[int, int]:
    """Count the parameters that a method trains, and a snapshot's bytes, for heads of these widths.

    Known from the cache, or counted once on torch's meta device. Methods that train texts need more than
    settings, and are not counted here. Errors are those of `load_backbone` and `tune`.
    """
    if isinstance(method, PythonMethodConfig):
        return _count(config, method, n_classes)
    key = {"method": method.model_dump(mode="json"), "n_classes": list(n_classes)}
    n_trained, stored = remember_network("trained", config, key, lambda: _count(config, method, n_classes))
    return n_trained, stored


def _count(config: AnyBackboneConfig, method: MethodConfig, n_classes: tuple[int, ...]) -> tuple[int, int]:
    # torch takes seconds to import, and what the cache knows needs none
    import torch

    from harness.finetuning.methods.tuned import tune

    with torch.device("meta"):
        model = tune(copy.deepcopy(outline_network(config)), n_classes, method, 0)
    n_trained = sum(part.numel() for part in model.parameters() if part.requires_grad)
    stored = sum(part.numel() * part.element_size() for part in model.changing_state().values())
    return n_trained, stored
