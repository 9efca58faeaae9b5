"""A fitted mapping, frozen: what it predicts of the brain, differentiable in a network's tokens.

Its controls have the same size and read the same tokens: they tell how much of an effect is the brain's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from harness.mappings.factortopy.selectors import (
    EVERY,
    SelectorModel,
    SelectorTensors,
    take_voxels,
)
from harness.mappings.families import FAMILIES
from harness.mappings.mapping import Mapping
from harness.storage import InputError
from harness.tokens import LayerTokens, TokenFrame

BOTTLENECKS = ("local_bottleneck", "global_bottleneck")


class FrozenMapping(SelectorModel):
    """A mapping's predictions of responses from a network's tokens; nothing of it is trained.

    Parameters
    ----------
    mapping : Mapping
        Of a family that `freezes`, with `Mapping.learned`.
    token_size : int
        Edge of the grid that it was fitted on, ``mapping.token_size``.
    device : torch.device or str
        Of the tokens.

    Raises
    ------
    InputError
        If the mapping is of another family, or was saved without its learned parameters.
    """

    def __init__(self, mapping: Mapping, token_size: int, device: torch.device | str = "cpu") -> None:
        if not FAMILIES[mapping.family].freezes:
            fit = " or ".join(name for name, family in FAMILIES.items() if family.freezes)
            raise InputError(f"frozen mapping: found one of {mapping.family}, expected {fit}")
        if mapping.learned is None:
            raise InputError("frozen mapping: found one without its learned parameters, expected them")
        super().__init__([1] * len(mapping.layers))
        self._token_size, self._layers = token_size, mapping.layers
        frame = TokenFrame.from_arrays(
            {
                name.removeprefix("frame."): array
                for name, array in mapping.learned.items()
                if name.startswith("frame.")
            }
        )
        # on the device once, not at every step
        self._frame = TokenFrame(
            tuple(centre.to(device) for centre in frame.local_centre),
            frame.local_scale.to(device),
            tuple(centre.to(device) for centre in frame.global_centre),
            frame.global_scale.to(device),
        )
        self.local_bottleneck, self.global_bottleneck = (
            nn.ModuleList(
                _as_linear(mapping.learned[f"model.{name}.{place}.weight"])
                for place in range(len(mapping.layers))
            )
            for name in BOTTLENECKS
        )
        self.weight, self.bias = (_as_parameter(array) for array in (mapping.weights, mapping.bias))
        for name in ("space", "layer", "scale"):
            self.register_buffer(name, torch.tensor(getattr(mapping, name)))
        self.requires_grad_(False).to(device)

    def selectors(self, voxels: slice = EVERY) -> SelectorTensors:
        """Return the mapping's selectors of all or some voxels."""
        space, layer, scale = (
            take_voxels(self.get_buffer(name), voxels) for name in ("space", "layer", "scale")
        )
        return SelectorTensors(space, layer, scale)

    def predict(
        self,
        local: Sequence[Float[Tensor, "n_images _ _ _"]],
        global_: Sequence[Float[Tensor, "n_images _"]],
    ) -> Float[Tensor, "n_images n_voxels"]:
        """Predict responses from a backbone's tokens (`Backbone.tokens`), in float32.

        Tokens of any precision are resized and standardised as those that the mapping was fitted on.
        """
        size = (self._token_size, self._token_size)
        grids = [
            grid.float()
            if grid.shape[2:] == size
            else functional.interpolate(grid.float(), size, mode="bilinear", align_corners=False)
            for grid in local
        ]
        tokens = LayerTokens(tuple(grids), tuple(token.float() for token in global_), self._layers)
        with torch.autocast(self.weight.device.type, enabled=False):
            framed = self._frame.apply(tokens)
            predicted: Tensor = self(framed.local, framed.global_)
        return predicted


def _as_linear(weight: np.ndarray) -> nn.Linear:
    # without a random initialisation, which would advance the caller's random state
    linear = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=False)
    linear.weight = _as_parameter(weight)
    return linear


def _as_parameter(array: np.ndarray | None) -> nn.Parameter:
    return nn.Parameter(torch.tensor(array), requires_grad=False)


def shuffle_selectors(mapping: Mapping, seed: int) -> Mapping:
    """Give every voxel the place, layers and scale of another one; its channel weights stay.

    The permutation is one cycle through all voxels in random order, so no voxel keeps its own selectors, and
    the selectors of all voxels together, and their channel weights, are the brain's. Which channels are read
    where is no longer. (A permutation of selectors and weights together would rename voxels and change
    nothing.) R² and correlation are those of the original and no longer hold.
    """
    order = np.random.default_rng(seed).permutation(len(mapping.r2))
    given = np.empty_like(order)
    given[order] = np.roll(order, 1)
    assert mapping.space is not None and mapping.scale is not None
    return replace(
        mapping, space=mapping.space[given], layer=mapping.layer[given], scale=mapping.scale[given]
    )


def randomise_mapping(mapping: Mapping, seed: int) -> Mapping:
    """Draw a mapping of the same size that knows nothing of the brain.

    Places are uniform in the image, layers uniform over all distributions (Dirichlet with concentration 1),
    scales uniform from 0 to 1, channel weights normal, bottlenecks uniform within ±1/√n_channels of the layer
    as torch initialises them. Tokens are standardised as before. R² and correlation no longer hold.
    """
    rng = np.random.default_rng(seed)
    n_voxels, n_layers = mapping.layer.shape
    assert mapping.weights is not None and mapping.learned is not None
    learned = dict(mapping.learned)
    for name, array in mapping.learned.items():
        if name.split(".")[1] in BOTTLENECKS:
            bound = 1 / math.sqrt(array.shape[1])
            learned[name] = rng.uniform(-bound, bound, array.shape).astype(np.float32)
    return replace(
        mapping,
        space=rng.uniform(-1, 1, (n_voxels, 2)).astype(np.float32),
        layer=rng.dirichlet(np.ones(n_layers), n_voxels).astype(np.float32),
        scale=rng.uniform(0, 1, (n_voxels,)).astype(np.float32),
        weights=rng.standard_normal(mapping.weights.shape).astype(np.float32),
        learned=learned,
    )
