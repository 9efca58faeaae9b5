"""FactorTopy: one brain-wide mapping from layer tokens to voxels, factorised into four selectors.

Every voxel selects *where* in the image it reads (space), from which *layer*, at which *scale* (local
tokens against the global one) and from which *channels*. The first three are smooth functions of the
voxel's coordinates. Published as "Brain Decodes Deep Nets" (Yang, Gee and Shi, CVPR 2024); this is an
independent implementation, checked against the published numbers by `harness.conformance`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness.mappings.factortopy.position_encoding import compact_encoding
from harness.mappings.factortopy.selectors import (
    EVERY,
    SelectorModel,
    SelectorTensors,
)

HIDDEN = 128  # width of the selector networks


class FactorTopy(SelectorModel):
    """A `SelectorModel` whose selectors are smooth functions of the voxel's coordinates.

    u = tanh, ω = softmax and α = sigmoid of small networks on the voxel's position encoding. Their last
    layers are zero-initialised: every voxel starts at the image's centre, with equal layers and scales.

    Parameters
    ----------
    coords : float tensor [n_voxels, 3]
        Coordinates of the voxels.
    bounding_box : float tensor [2, 3]
        Minimum and maximum of the subject's coordinates, of which `coords` may be a subset.
    layer_widths : sequence of int
        Number of token channels of every layer.
    n_channels : int
        D, number of bottleneck channels.

    Attributes
    ----------
    layer_prior : float tensor [n_voxels, n_layers] or None
        Added to the layer selector's logits. None, as in the published model: nothing.

    Raises
    ------
    InputError
        If there is no layer, or the bounding box has no extent or does not contain all voxels.
    """

    places: Tensor
    expansion: Tensor
    bounding_box: Tensor
    layer_prior: Tensor | None

    def __init__(
        self,
        coords: Float[Tensor, "n_voxels 3"],
        bounding_box: Float[Tensor, "2 3"],
        layer_widths: Sequence[int],
        n_channels: int,
    ) -> None:
        super().__init__(layer_widths)
        places, expansion = compact_encoding(coords, bounding_box)
        # with a column of ones, so that the networks' first bias is part of their first product
        self.register_buffer("places", torch.cat([places.new_ones(len(places), 1), places], dim=1))
        self.register_buffer("expansion", expansion)
        self.register_buffer("bounding_box", bounding_box.clone())
        self.register_buffer("layer_prior", None, persistent=False)
        n_features = expansion.shape[1]
        self.space_selector = _selector_network(n_features, 2)
        self.layer_selector = _selector_network(n_features, len(layer_widths))
        self.scale_selector = _selector_network(n_features, 1)
        self._add_readout(len(coords), layer_widths, n_channels)

    @property
    def encoding(self) -> Float[Tensor, "n_voxels n_features"]:
        """The selector networks' input: `position_encoding`."""
        return self.places[:, 1:] @ self.expansion

    def selectors(self, voxels: slice = EVERY) -> SelectorTensors:
        """Compute the selectors of all or some voxels; differentiable."""
        logits = self.layer_selector[-1](self.layer_features(voxels))
        if self.layer_prior is not None:
            logits = logits + self.layer_prior[voxels]
        return self.selectors_at(logits, voxels)

    def space(self, voxels: slice = EVERY) -> Float[Tensor, "n_voxels 2"]:
        """Compute where all or some voxels read; differentiable."""
        return self._select(self.space_selector, self.places[voxels]).tanh()

    @property
    def layer_weight(self) -> nn.Parameter:
        """Weight [n_layers, n_hidden] of the layer selector's last layer."""
        return self.layer_selector.get_parameter(f"{len(self.layer_selector) - 1}.weight")

    def layer_features(self, voxels: slice = EVERY) -> Float[Tensor, "n_voxels n_hidden"]:
        """Compute the last hidden layer of the layer selector's network."""
        return self._select(self.layer_selector[:-1], self.places[voxels])

    def selectors_at(
        self, layer_logits: Float[Tensor, "n_voxels n_layers"], voxels: slice = EVERY
    ) -> SelectorTensors:
        """Compute the selectors of all or some voxels with layer logits from elsewhere."""
        places = self.places[voxels]
        return SelectorTensors(
            space=self.space(voxels),
            layer=layer_logits.softmax(dim=-1),
            scale=self._select(self.scale_selector, places).squeeze(-1).sigmoid(),
        )

    def _select(
        self, network: nn.Sequential, places: Float[Tensor, "n_voxels n_kept"]
    ) -> Float[Tensor, "n_voxels n_outputs"]:
        """Apply `network` to the encoding, multiplying its expansion by the first weights, not by voxels."""
        weight, bias = network[0].parameters()
        return network[1:](places @ torch.cat([bias[None], self.expansion @ weight.T]))


def _selector_network(n_features: int, n_outputs: int) -> nn.Sequential:
    last = nn.Linear(HIDDEN, n_outputs, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Linear(n_features, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), last)
