"""A backbone that a user's own function returns."""

from __future__ import annotations

import torch

from harness.backbones.backbone import Backbone
from harness.config import PythonBackboneConfig
from harness.storage import call_function


def load_python(config: PythonBackboneConfig) -> Backbone:
    """Call the function that a configuration names; torch's seed is `config.seed` while it runs.

    Raises
    ------
    InputError
        As `harness.storage.call_function`.
    """
    # a plan counts other networks on the meta device, where files of weights cannot be read
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return call_function("backbone", config.function, config.arguments, Backbone)  # type: ignore[type-abstract]
