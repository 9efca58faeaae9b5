"""FactorTopy: one brain-wide mapping from layer tokens to voxels, factorised into four selectors.

Every voxel selects *where* in the image it reads (space), from which *layer*, at which *scale* (local
tokens against the global one) and from which *channels*. The first three are smooth functions of the
voxel's place in the brain. Published as "Brain Decodes Deep Nets" (Yang, Gee and Shi, CVPR 2024); this
is an independent implementation that is held to its numbers by `harness.conformance`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness.errors import InputError
from harness.selector_model import EVERY, SelectorModel, Selectors

HIDDEN = 128  # width of the selector networks
N_FREQUENCIES = 32
PERIOD_BASE = 1000.0
N_STEPS = 100.0  # steps along the longest axis of the bounding box


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


class FactorTopy(SelectorModel):
    """A `harness.selector_model.SelectorModel` whose selectors are smooth functions of the voxel's place.

    u = tanh, ω = softmax and α = sigmoid of small networks on the voxel's position encoding. Their last
    layers start at zero: every voxel starts at the image's centre, with all layers and both scales equal.

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
        super().__init__(layer_widths)
        self.register_buffer("encoding", position_encoding(coords, bounding_box))
        self.register_buffer("bounding_box", bounding_box.clone())
        n_features = self.encoding.shape[1]
        self.space_selector = _selector_network(n_features, 2)
        self.layer_selector = _selector_network(n_features, len(layer_widths))
        self.scale_selector = _selector_network(n_features, 1)
        self._add_readout(len(coords), layer_widths, n_channels)

    def selectors(self, voxels: slice = EVERY) -> Selectors:
        """Where every voxel, or some voxels, read; differentiable."""
        encoding = self.encoding[voxels]
        return Selectors(
            space=self.space_selector(encoding).tanh(),
            layer=self.layer_selector(encoding).softmax(dim=-1),
            scale=self.scale_selector(encoding).squeeze(-1).sigmoid(),
        )


def _selector_network(n_features: int, n_outputs: int) -> nn.Sequential:
    last = nn.Linear(HIDDEN, n_outputs, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Linear(n_features, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), last)
