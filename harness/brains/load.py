"""Load subjects' data from any source as a `Brain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.brains.brain import Brain
from harness.brains.places import (
    Places,
    no_places,
)
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


def locate_voxels(config: BrainConfig, brain: Brain) -> Places:
    """Find where the voxels of a loaded brain lie in the space they were measured in.

    Parameters
    ----------
    config : BrainConfig
        Of one subject, as for `load_brain`.
    brain : Brain
        From `load_brain`.

    Returns
    -------
    Places
        Without mesh and volume where the source has coordinates only (``arrays``, ``python``).

    Raises
    ------
    InputError
        If the source's files are missing, broken, or not those of the brain.
    """
    locate = SOURCES[type(config)].load_locator()
    if locate is None:
        return no_places(brain.n_voxels)
    found: Places = locate(config, brain)
    return found


def load_truth(config: SimulatedConfig) -> SimulatedTruth:
    """Load the truth about a simulated subject, for the voxels of `load_brain`; errors as there."""
    from harness.brains.simulated.subject import load_whole_truth

    return load_whole_truth(config).select_brain(load_brain(config))
