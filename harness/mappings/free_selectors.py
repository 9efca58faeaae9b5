"""FactorTopy without topology: every voxel has selectors of its own, whatever its place in the brain.

What FactorTopy's networks on coordinates impose, that neighbours read alike, is all that this family leaves
out. A conclusion that holds here too is not owed to that smoothness.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from harness.config import FreeSelectorsConfig
from harness.mappings.factortopy.fit import mapping_of
from harness.mappings.factortopy.selectors import (
    EVERY,
    SelectorModel,
    Selectors,
)
from harness.mappings.mapping import Mapping
from harness.mappings.splits import Split
from harness.mappings.training import (
    check_inputs,
    fit_model,
)
from harness.tokens import LayerTokens

# of the logits, each of which only one voxel's error moves: they start at zero and have to come as far in a
# few hundred steps as FactorTopy's, which many weights move at once
RATE = 4.0


class FreeSelectors(SelectorModel):
    """A `SelectorModel` whose selectors are parameters of each voxel.

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

    def selectors(self, voxels: slice = EVERY) -> Selectors:
        """Where every voxel, or some voxels, read; differentiable."""
        return Selectors(
            space=self.space_logits[voxels].tanh(),
            layer=self.layer_logits[voxels].softmax(dim=1),
            scale=self.scale_logits[voxels].sigmoid(),
        )


def fit_free_selectors(
    tokens: LayerTokens,
    responses: Float[np.ndarray, "n_images n_voxels"],
    coords: Float[np.ndarray, "n_voxels 3"],
    bounding_box: Float[np.ndarray, "2 3"],
    split: Split,
    config: FreeSelectorsConfig,
    seed: int,
    bootstrap: bool = False,
    device: str | torch.device = "cpu",
    progress: str | None = None,
    start: Mapping | None = None,
) -> Mapping:
    """Fit free selectors on the training stimuli and score them on the held-out ones.

    The training, the parameters and the errors are those of `factortopy.fit.fit`, but that all selectors'
    logits learn `RATE` times faster than the bottlenecks.
    """
    check_inputs(tokens, responses, coords, split)

    def build(layer_widths: list[int]) -> FreeSelectors:
        return FreeSelectors(len(coords), layer_widths, config.n_channels)

    def rates(model: FreeSelectors) -> dict[nn.Parameter, float]:
        logits = (model.space_logits, model.layer_logits, model.scale_logits)
        # as the model divides by D what the weights sum
        return {model.weight: float(config.n_channels)} | dict.fromkeys(logits, RATE)

    fitted = fit_model(
        build, rates, tokens, responses, split, config, seed, bootstrap, device, progress, start
    )
    return mapping_of(fitted, tokens.layers, "free_selectors")
