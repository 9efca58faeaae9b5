"""One record per family of mappings: everything that differs between families and is not its fit itself."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

from harness.config import mapping as settings

ARRAYS = ("space", "layer", "scale", "weights", "bias", "r2", "correlation")
"""Names of the arrays that a mapping can have."""


@dataclass(frozen=True)
class Family:
    """A family of mappings.

    Attributes
    ----------
    config : type of its settings
        Names the family, and is a `TrainedMappingConfig` if it is trained by gradients.
    fit : str
        ``module:function``, imported on first use: himalaya and scikit-learn take a second to import. The
        function takes `FitData`, the settings and `FitOptions`, and returns a `Mapping`.
    arrays : tuple of str
        Arrays of its mappings; the others of `ARRAYS` are None.
    n_projections : int
        Projections of every layer's tokens to channels that a mapping keeps.
    learned_per_voxel : function of n_layers and n_channels
        Learned numbers per voxel that a mapping keeps beside its arrays.
    fit_together : str or None
        ``module:function`` of a family that fits all snapshots and the refits of step 0 in one fit. It takes
        a list of `Member`, the settings and `FitOptions`, and returns one `Mapping` per member.
        `fit` then fits a single snapshot.
    bottleneck : str or None
        Parameter of the model, one matrix per layer, that projects local tokens to the channels that voxels
        weight. None: the family has no channels.
    freezes : bool
        Whether a mapping of step 0 is fitted alone, and its arrays and two bottlenecks per layer are all that
        its predictions take, so that it can be frozen (`harness.mappings.frozen`).
    """

    config: type[settings.BaseMappingConfig]
    fit: str
    arrays: tuple[str, ...] = ARRAYS
    n_projections: int = 0
    learned_per_voxel: Callable[[int, int], int] = lambda n_layers, n_channels: 0
    fit_together: str | None = None
    bottleneck: str | None = None
    freezes: bool = False

    @property
    def name(self) -> str:
        """Name in ``mapping.family``."""
        return str(self.config.model_fields["family"].default)

    @property
    def trained(self) -> bool:
        """Whether it is trained by gradients; the others are solved in closed form."""
        return issubclass(self.config, settings.TrainedMappingConfig)

    def load_fit(self) -> Callable[..., Any]:
        """Import the function that fits it."""
        found: Callable[..., Any] = pkgutil.resolve_name(self.fit)
        return found

    def load_fit_together(self) -> Callable[..., Any] | None:
        """Import the function that fits all snapshots at once; None if each is fitted by itself."""
        return None if self.fit_together is None else pkgutil.resolve_name(self.fit_together)


_RECORDS = (
    Family(
        settings.FactorTopyConfig,
        "harness.mappings.factortopy.fit:fit",
        n_projections=2,  # local and global
        bottleneck="local_bottleneck",
        freezes=True,
    ),
    Family(
        settings.FreeSelectorsConfig,
        "harness.mappings.free_selectors:fit_free_selectors",
        n_projections=2,
        learned_per_voxel=lambda n_layers, n_channels: n_layers + 2 + 1,  # the selectors' logits
        bottleneck="local_bottleneck",
        freezes=True,
    ),
    Family(
        settings.ThroughTimeConfig,
        "harness.mappings.through_time:fit_alone",
        n_projections=2,
        fit_together="harness.mappings.through_time:fit_through_time",
        bottleneck="local_bottleneck",
    ),
    Family(
        settings.AttentionConfig,
        "harness.mappings.attention:fit_attention",
        n_projections=4,  # keys and values, local and global
        learned_per_voxel=lambda n_layers, n_channels: n_layers + n_channels,  # layer logits and queries
        bottleneck="local_value",
    ),
    Family(
        settings.LayerRidgeConfig,
        "harness.mappings.layer_ridge:fit_layer_ridge",
        arrays=("layer", "r2", "correlation"),
    ),
)

FAMILIES = {family.name: family for family in _RECORDS}
"""Every family by its name."""

if {family.config for family in _RECORDS} != set(get_args(settings.MappingConfig)):
    raise TypeError("every member of MappingConfig needs one record in harness.mappings.families")
