"""Models of voxels with selectors: a place, a distribution over layers, a scale, channel weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from harness.mappings.factortopy.sampling import read_features, read_tokens
from harness.storage import InputError

EVERY = slice(None)


@dataclass(frozen=True)
class SelectorTensors:
    """Where every voxel reads.

    Attributes
    ----------
    space : float tensor [n_voxels, 2], -1 to 1
        x along the width, y along the height; -1 and 1 are the image's edges.
    layer : float tensor [n_voxels, n_layers]
        A distribution over layers.
    scale : float tensor [n_voxels], 0 to 1
        Share of the global token; the rest is the local token's.
    """

    space: Float[Tensor, "n_voxels 2"]
    layer: Float[Tensor, "n_voxels n_layers"]
    scale: Float[Tensor, " n_voxels"]


class SelectorModel(nn.Module):
    """Predict voxel responses from the layer tokens that their selectors read.

    For voxel n with space u, layer ω, scale α, weights w and bias b, and bottlenecks B, B' to D channels:

        v_n = Σ_l ω_nl [(1 - α_n) sample(B_l local_l, u_n) + α_n B'_l global_l]
        y_n = (1/D) Σ_d w_nd v_nd + b_n

    Subclasses define `selectors` and call `_add_readout`.
    """

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(self, layer_widths: Sequence[int]) -> None:
        super().__init__()
        if not layer_widths:
            raise InputError("layers: a mapping needs at least one layer, found none")

    def _add_readout(self, n_voxels: int, layer_widths: Sequence[int], n_channels: int) -> None:
        """Add bottlenecks with torch's initialisation, and weights and bias, uniform within ±1/√D."""
        self.local_bottleneck = nn.ModuleList(nn.Linear(n, n_channels, bias=False) for n in layer_widths)
        self.global_bottleneck = nn.ModuleList(nn.Linear(n, n_channels, bias=False) for n in layer_widths)
        bound = 1 / math.sqrt(n_channels)
        self.weight = nn.Parameter(torch.empty(n_voxels, n_channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_voxels).uniform_(-bound, bound))

    def selectors(self, voxels: slice = EVERY) -> SelectorTensors:
        """Compute the selectors of all or some voxels; differentiable."""
        raise NotImplementedError

    def forward(
        self,
        local: Sequence[Float[Tensor, "n_images _ height width"]],
        global_: Sequence[Float[Tensor, "n_images _"]],
        selectors: SelectorTensors | None = None,
        voxels: slice = EVERY,
    ) -> Float[Tensor, "n_images n_voxels"]:
        """Predict responses.

        Parameters
        ----------
        local : sequence of float tensors [n_images, n_channels, height, width], one per layer
            Fastest in channels-last memory.
        global_ : sequence of float tensors [n_images, n_channels], one per layer
        selectors : SelectorTensors, optional
            Result of `selectors(voxels)`, if already computed.
        voxels : slice
            Voxels to predict, to bound memory; the predictions are the same as for all voxels at once.
        """
        chosen = selectors if selectors is not None else self.selectors(voxels)
        read = read_tokens(
            self._narrow_local(local),
            self._narrow_global(global_),
            chosen.space,
            chosen.layer,
            chosen.scale,
            take_voxels(self.weight, voxels),
        )
        return read / self.weight.shape[1] + take_voxels(self.bias, voxels)

    def read(
        self,
        local: Sequence[Float[Tensor, "n_images _ height width"]],
        global_: Sequence[Float[Tensor, "n_images _"]],
        selectors: SelectorTensors,
        most: int,
    ) -> Iterator[tuple[Int[Tensor, " n_chosen"], Float[Tensor, "n_chosen n_images n_channels"]]]:
        """Yield what voxels read, v, before their weights: `most` voxels of `selectors` at a time."""
        yield from read_features(
            self._narrow_local(local),
            self._narrow_global(global_),
            selectors.space,
            selectors.layer,
            selectors.scale,
            most,
        )

    def _narrow_local(self, local: Sequence[Tensor]) -> list[Tensor]:
        """Apply the local bottlenecks; channels go last."""
        return [b(tokens.permute(0, 2, 3, 1)) for b, tokens in zip(self.local_bottleneck, local, strict=True)]

    def _narrow_global(self, global_: Sequence[Tensor]) -> list[Tensor]:
        return [b(tokens) for b, tokens in zip(self.global_bottleneck, global_, strict=True)]

    def regularizer(self, selectors: SelectorTensors | None = None) -> Float[Tensor, ""]:
        """Negative entropy of the layer selectors (-1 to 0) plus the scales' squared distance from a half.

        Both are averaged over voxels and minimal for undecided selectors. With one layer the first term is
        0.
        """
        chosen = selectors if selectors is not None else self.selectors()
        undecided = (chosen.scale - 0.5).square().mean()
        n_layers = chosen.layer.shape[1]
        if n_layers == 1:
            return undecided
        # the entropy's gradient is infinite for a share that underflows to 0
        shares = chosen.layer.clamp(min=torch.finfo(chosen.layer.dtype).tiny)
        return undecided - torch.special.entr(shares).sum(dim=1).mean() / math.log(n_layers)


def take_voxels(values: Tensor, voxels: slice) -> Tensor:
    """A part of what is learned for every voxel [n_voxels, ...].

    All of it as it is: the gradient of a slice begins as zeros for every voxel.
    """
    return values if voxels == EVERY else values[voxels]
