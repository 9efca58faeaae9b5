"""FactorTopy without topology: every voxel has free selectors of its own.

This family drops only the smoothness that FactorTopy's networks on coordinates impose on neighbouring voxels.
A conclusion that holds here too does not depend on that smoothness.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from harness.config import FreeSelectorsConfig
from harness.mappings.data import (
    FitData,
    FitOptions,
)
from harness.mappings.factortopy.fit import mapping_of
from harness.mappings.factortopy.selectors import (
    EVERY,
    SelectorModel,
    SelectorTensors,
)
from harness.mappings.mapping import Mapping
from harness.mappings.training import fit_model

# learning rate of the logits. They start at zero, each has the gradient of one voxel's error, and in a few
# hundred steps they must move as far as FactorTopy's, which many weights move at once
RATE = 4.0


class FreeSelectors(SelectorModel):
    """A `SelectorModel` whose selectors are free parameters of each voxel.

    u_n = tanh(a_n), ω_n = softmax(b_n), α_n = sigmoid(c_n) with a_n [2], b_n [n_layers], c_n [1] free
    parameters that start at zero.

    Parameters
    ----------
    n_voxels : int
    layer_widths : sequence of int
        Number of token channels of every layer.
    n_channels : int
        D, number of bottleneck channels.

    Raises
    ------
    InputError
        If there is no layer.
    """

    def __init__(self, n_voxels: int, layer_widths: Sequence[int], n_channels: int) -> None:
        super().__init__(layer_widths)
        self.space_logits = nn.Parameter(torch.zeros(n_voxels, 2))
        self.layer_logits = nn.Parameter(torch.zeros(n_voxels, len(layer_widths)))
        self.scale_logits = nn.Parameter(torch.zeros(n_voxels))
        self._add_readout(n_voxels, layer_widths, n_channels)

    def selectors(self, voxels: slice = EVERY) -> SelectorTensors:
        """Compute the selectors of all or some voxels; differentiable."""
        return SelectorTensors(
            space=self.space_logits[voxels].tanh(),
            layer=self.layer_logits[voxels].softmax(dim=1),
            scale=self.scale_logits[voxels].sigmoid(),
        )


def fit_free_selectors(data: FitData, config: FreeSelectorsConfig, options: FitOptions) -> Mapping:
    """Fit free selectors on the training stimuli and score them on the held-out ones.

    Training and errors are as in `factortopy.fit.fit`, except that all selectors' logits learn `RATE` times
    faster than the bottlenecks.
    """

    def build(layer_widths: list[int]) -> FreeSelectors:
        return FreeSelectors(data.n_voxels, layer_widths, config.n_channels)

    def rates(model: FreeSelectors) -> dict[nn.Parameter, float]:
        logits = (model.space_logits, model.layer_logits, model.scale_logits)
        # the model divides the sum over weights by D
        return {model.weight: float(config.n_channels)} | dict.fromkeys(logits, RATE)

    fitted = fit_model(build, rates, data, config, options)
    return mapping_of(fitted, data.tokens.layers, config.family)
