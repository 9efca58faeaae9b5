"""One record per source of brains: its settings, and the function that loads a subject."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

from harness.config import brain as settings


@dataclass(frozen=True)
class BrainSource:
    """A source of brains.

    Attributes
    ----------
    config : type of its settings
        Names the source.
    load : str
        ``module:function``, imported on first use: every source has slow libraries of its own. The function
        takes the settings of one subject and returns its whole `Brain`.
    locate : str or None
        The same for the function that takes these settings and a `Brain` of theirs, with all voxels or some,
        and returns its `Places`; None: only coordinates are known.
    """

    config: type[settings.BrainConfig]
    load: str
    locate: str | None = None

    @property
    def name(self) -> str:
        """Name in ``brain.name``."""
        return str(self.config.model_fields["name"].default)

    def load_loader(self) -> Callable[..., Any]:
        """Import the function that loads a subject."""
        found: Callable[..., Any] = pkgutil.resolve_name(self.load)
        return found

    def load_locator(self) -> Callable[..., Any] | None:
        """Import the function that finds the places of voxels."""
        return None if self.locate is None else pkgutil.resolve_name(self.locate)


_HERE = "harness.brains"
_RECORDS = (
    BrainSource(
        settings.SimulatedConfig,
        f"{_HERE}.simulated.subject:load_simulated",
        f"{_HERE}.simulated.places:locate",
    ),
    BrainSource(
        settings.Algonauts2023Config,
        f"{_HERE}.algonauts.subject:load_algonauts2023",
        f"{_HERE}.algonauts.places:locate",
    ),
    BrainSource(settings.ArraysConfig, f"{_HERE}.arrays:load_arrays"),
    BrainSource(settings.NsdConfig, f"{_HERE}.nsd.subject:load_nsd", f"{_HERE}.nsd.places:locate"),
    BrainSource(
        settings.GrayordinatesConfig,
        f"{_HERE}.grayordinates.subject:load_grayordinates",
        f"{_HERE}.grayordinates.places:locate",
    ),
    BrainSource(settings.PythonBrainConfig, f"{_HERE}.python:load_python"),
)

SOURCES = {source.config: source for source in _RECORDS}
"""Every source by the type of its settings."""

if set(SOURCES) != set(get_args(settings.BrainConfig)):
    raise TypeError("every member of BrainConfig needs one record in harness.brains.sources")
