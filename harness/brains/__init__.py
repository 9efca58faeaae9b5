"""Brains: data of subjects, from whatever source, as one `Brain`."""

from __future__ import annotations

from harness.brains.brain import Brain
from harness.config import BrainConfig
from harness.errors import unknown_name


def load_brain(config: BrainConfig) -> Brain:
    """Load the brain that a configuration names.

    Raises
    ------
    InputError
        If there is no such source, or its data are not as they should be.
    """
    if config.name == "simulated":
        from harness.brains.simulated import load_simulated

        return load_simulated(config)
    raise unknown_name("brain", config.name, ["simulated"])
