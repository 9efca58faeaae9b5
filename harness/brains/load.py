"""Load subjects' data from any source as a `Brain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.brains.brain import Brain
from harness.brains.sources import SOURCES
from harness.config import (
    BrainConfig,
    SimulatedConfig,
    one_by_one,
)
from harness.storage import InputError

if TYPE_CHECKING:
    from harness.brains.simulated.truth import SimulatedTruth


def load_brain(config: BrainConfig) -> Brain:
    """Load the brain of a configuration's one subject, with the selected voxels.

    Raises
    ------
    InputError
        If data are missing or broken, no voxel is selected, or the configuration has several subjects.
    """
    alone = one_by_one(config)
    if len(alone) > 1:
        raise InputError(f"brain.subjects: found {list(config.subjects or ())}, expected one subject")
    (config,) = alone
    brain: Brain = SOURCES[type(config)].load_loader()(config)
    if config.rois is not None:
        brain = brain.select_rois(config.rois)
    if config.min_ceiling is not None:
        brain = brain.select_ceiling(config.min_ceiling)
    return brain


def load_truth(config: SimulatedConfig) -> SimulatedTruth:
    """Load the truth about a simulated subject, for the voxels of `load_brain`; errors as there."""
    from harness.brains.simulated.subject import load_whole_truth

    return load_whole_truth(config).select_brain(load_brain(config))
