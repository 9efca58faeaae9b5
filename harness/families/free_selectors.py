"""FactorTopy without topology: every voxel has selectors of its own, whatever its place in the brain.

What FactorTopy's networks on coordinates impose, that neighbours read alike, is all that this family leaves
out. A conclusion that holds here too is not owed to that smoothness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness.config import FreeSelectorsConfig
from harness.errors import InputError
from harness.factortopy import EVERY, Selectors
from harness.features import LayerTokens
from harness.mapping import Mapping
from harness.reading import read_tokens
from harness.splits import Split
from harness.training import check_inputs, fit_model

# of the logits, each of which only one voxel's error moves: they start at zero and have to come as far in a
# few hundred steps as FactorTopy's, which many weights move at once
RATE = 4.0


class FreeSelectors(nn.Module):
    """Predict voxel responses as `harness.factortopy.FactorTopy` does, but with free selectors of each voxel.

    u_n = tanh(a_n), ω_n = softmax(b_n), α_n = sigmoid(c_n) with a_n [2], b_n [n_layers], c_n [1] free
    parameters that start at zero; bottlenecks, weights, bias and regularizer are as there.

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
        super().__init__()
        if not layer_widths:
            raise InputError("layers: free selectors need at least one layer, found none")
        self.space_logits = nn.Parameter(torch.zeros(n_voxels, 2))
        self.layer_logits = nn.Parameter(torch.zeros(n_voxels, len(layer_widths)))
        self.scale_logits = nn.Parameter(torch.zeros(n_voxels))
        self.local_bottleneck = nn.ModuleList(nn.Linear(n, n_channels, bias=False) for n in layer_widths)
        self.global_bottleneck = nn.ModuleList(nn.Linear(n, n_channels, bias=False) for n in layer_widths)
        bound = 1 / math.sqrt(n_channels)
        self.weight = nn.Parameter(torch.empty(n_voxels, n_channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(n_voxels))

    def selectors(self, voxels: slice = EVERY) -> Selectors:
        """Where every voxel, or some voxels, read; differentiable."""
        return Selectors(
            space=self.space_logits[voxels].tanh(),
            layer=self.layer_logits[voxels].softmax(dim=1),
            scale=self.scale_logits[voxels].sigmoid(),
        )

    def forward(
        self,
        local: Sequence[Float[Tensor, "n_images _ height width"]],
        global_: Sequence[Float[Tensor, "n_images _"]],
        selectors: Selectors,
        voxels: slice = EVERY,
    ) -> Float[Tensor, "n_images n_voxels"]:
        """Predict responses; `selectors` is what `selectors(voxels)` gave."""
        read = read_tokens(
            [b(tokens.permute(0, 2, 3, 1)) for b, tokens in zip(self.local_bottleneck, local, strict=True)],
            [b(tokens) for b, tokens in zip(self.global_bottleneck, global_, strict=True)],
            selectors.space,
            selectors.layer,
            selectors.scale,
            self.weight[voxels],
        )
        return read / self.weight.shape[1] + self.bias[voxels]

    def regularizer(self, selectors: Selectors) -> Float[Tensor, ""]:
        """Negative entropy of the layers (-1 to 0) plus (α - ½)², both averaged over voxels."""
        entropy = torch.special.entr(selectors.layer).sum(dim=1).mean()
        # with one layer the entropy is 0 and so is its bound
        return (selectors.scale - 0.5).square().mean() - entropy / math.log(max(selectors.layer.shape[1], 2))


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

    The training, the parameters and the errors are those of `harness.fitting.fit`, but that all selectors'
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
    model = fitted.model
    with torch.no_grad():
        selectors = model.selectors()
    return Mapping(
        layers=tokens.layers,
        space=selectors.space.cpu().numpy(),
        layer=selectors.layer.cpu().numpy(),
        scale=selectors.scale.cpu().numpy(),
        weights=model.weight.detach().cpu().numpy(),
        bias=model.bias.detach().cpu().numpy(),
        r2=fitted.r2,
        correlation=fitted.correlation,
        steps=fitted.steps,
        learned=fitted.learned(),
        family="free_selectors",
    )
