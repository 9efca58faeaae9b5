"""FactorTopy: one brain-wide mapping from layer tokens to voxels, factorised into four selectors.

Every voxel selects *where* in the image it reads (space), from which *layer*, at which *scale* (local
tokens against the global one) and from which *channels*. The first three are smooth functions of the
voxel's place in the brain. Published as "Brain Decodes Deep Nets" (Yang, Gee and Shi, CVPR 2024); this
is an independent implementation that is held to its numbers by `harness.conformance`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness.errors import InputError
from harness.reading import read_tokens

HIDDEN = 128  # width of the selector networks
N_FREQUENCIES = 32
PERIOD_BASE = 1000.0
N_STEPS = 100.0  # steps along the longest axis of the bounding box
EVERY = slice(None)


@dataclass(frozen=True)
class Selectors:
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


def position_encoding(
    coords: Float[Tensor, "n_voxels 3"], bounding_box: Float[Tensor, "2 3"]
) -> Float[Tensor, "n_voxels n_features"]:
    """Sines and cosines of the voxels' places, 64 per axis.

    Positions are scaled so that the longest axis of the box spans 100 steps from 0. Features are ordered
    by axis, then by frequency (1000^(-k/32), k = 0 … 31, highest first), then sine before cosine.

    Parameters
    ----------
    coords : float tensor [n_voxels, 3]
    bounding_box : float tensor [2, 3]
        Minimum and maximum of the subject's coordinates. It is given, not taken from `coords`, so that a
        subset of voxels gets the encoding it has among all.

    Raises
    ------
    InputError
        If the box has no extent or is not finite.
    """
    lowest, highest = bounding_box
    longest = (highest - lowest).max()
    if not (torch.isfinite(bounding_box).all() and longest > 0):
        raise InputError(
            f"bounding_box: expected a finite minimum and maximum per axis that differ along at least one, "
            f"found {bounding_box.tolist()}"
        )
    frequencies = torch.logspace(0, 1 / N_FREQUENCIES - 1, N_FREQUENCIES, base=PERIOD_BASE).to(coords)
    steps = (coords - lowest) * (N_STEPS / longest)
    angles = steps[:, :, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class FactorTopy(nn.Module):
    """Predict voxel responses from the layer tokens of images.

    For voxel n with space u, layer ω, scale α, weights w and bias b, and bottlenecks B, B' to D channels:

        v_n = Σ_l ω_nl [(1 - α_n) sample(B_l local_l, u_n) + α_n B'_l global_l]
        y_n = (1/D) Σ_d w_nd v_nd + b_n

    u = tanh, ω = softmax and α = sigmoid of small networks on the voxel's position encoding. Their last
    layers start at zero: every voxel starts at the image's centre, with all layers and both scales equal.
    `weight` and `bias` start uniform within ±1/√D, as torch's linear layers do.

    Parameters
    ----------
    coords : float tensor [n_voxels, 3]
        Places of the voxels in the brain.
    bounding_box : float tensor [2, 3]
        Minimum and maximum of the subject's coordinates, whatever subset `coords` is.
    layer_widths : sequence of int
        Number of token channels of every layer.
    n_channels : int
        D, number of bottleneck channels.

    Raises
    ------
    InputError
        If there is no layer, or the bounding box has no extent.
    """

    encoding: Tensor
    bounding_box: Tensor

    def __init__(
        self,
        coords: Float[Tensor, "n_voxels 3"],
        bounding_box: Float[Tensor, "2 3"],
        layer_widths: Sequence[int],
        n_channels: int,
    ) -> None:
        super().__init__()
        if not layer_widths:
            raise InputError("layers: FactorTopy needs at least one layer, found none")
        self.register_buffer("encoding", position_encoding(coords, bounding_box))
        self.register_buffer("bounding_box", bounding_box.clone())
        n_features = self.encoding.shape[1]
        self.space_selector = _selector_network(n_features, 2)
        self.layer_selector = _selector_network(n_features, len(layer_widths))
        self.scale_selector = _selector_network(n_features, 1)
        self.local_bottleneck = nn.ModuleList(nn.Linear(n, n_channels, bias=False) for n in layer_widths)
        self.global_bottleneck = nn.ModuleList(nn.Linear(n, n_channels, bias=False) for n in layer_widths)
        bound = 1 / math.sqrt(n_channels)
        self.weight = nn.Parameter(torch.empty(len(coords), n_channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(len(coords)).uniform_(-bound, bound))

    def selectors(self, voxels: slice = EVERY) -> Selectors:
        """Where every voxel, or some voxels, read; differentiable."""
        encoding = self.encoding[voxels]
        return Selectors(
            space=self.space_selector(encoding).tanh(),
            layer=self.layer_selector(encoding).softmax(dim=-1),
            scale=self.scale_selector(encoding).squeeze(-1).sigmoid(),
        )

    def forward(
        self,
        local: Sequence[Float[Tensor, "n_images _ height width"]],
        global_: Sequence[Float[Tensor, "n_images _"]],
        selectors: Selectors | None = None,
        voxels: slice = EVERY,
    ) -> Float[Tensor, "n_images n_voxels"]:
        """Predict responses.

        Parameters
        ----------
        local : sequence of float tensors [n_images, n_channels, height, width], one per layer
            Fastest in channels-last memory.
        global_ : sequence of float tensors [n_images, n_channels], one per layer
        selectors : Selectors, optional
            What `selectors(voxels)` gave, where it has been called already.
        voxels : slice
            Those to predict, which bounds memory; they are predicted as they are among all.
        """
        chosen = selectors if selectors is not None else self.selectors(voxels)
        read = read_tokens(
            [b(tokens.permute(0, 2, 3, 1)) for b, tokens in zip(self.local_bottleneck, local, strict=True)],
            [b(tokens) for b, tokens in zip(self.global_bottleneck, global_, strict=True)],
            chosen.space,
            chosen.layer,
            chosen.scale,
            self.weight[voxels],
        )
        return read / self.weight.shape[1] + self.bias[voxels]

    def regularizer(self, selectors: Selectors | None = None) -> Float[Tensor, ""]:
        """Negative entropy of the layer selectors (-1 to 0) plus the scales' squared distance from a half.

        Both averaged over voxels; minimised by selectors that have not decided. With one layer there is
        no entropy and the first term is 0.
        """
        chosen = selectors if selectors is not None else self.selectors()
        undecided = (chosen.scale - 0.5).square().mean()
        n_layers = chosen.layer.shape[1]
        if n_layers == 1:
            return undecided
        return undecided - torch.special.entr(chosen.layer).sum(dim=1).mean() / math.log(n_layers)


def _selector_network(n_features: int, n_outputs: int) -> nn.Sequential:
    last = nn.Linear(HIDDEN, n_outputs, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Linear(n_features, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), last)
