"""Gradient norms per layer while a network is fine-tuned: means over steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class GradientNorms:
    """Sums over steps of every layer's gradient norm and its share of the squared norm.

    Parameters
    ----------
    layers : dict of layer to its parameters
    """

    def __init__(self, layers: dict[str, list[nn.Parameter]]) -> None:
        self._layers = dict(layers)
        self._sums = torch.zeros(2, len(self._layers), dtype=torch.float64)
        self._n_steps = 0

    def squares(self) -> Float[Tensor, " n_layers"]:
        """Compute the squared norm of every layer's current gradient; 0 without a gradient."""
        found = []
        for parameters in self._layers.values():
            gradients = [part.grad for part in parameters if part.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
            found.append(norm.float().square())
        device = next((square.device for square in found if square.is_cuda), "cpu")
        return torch.stack([square.to(device) for square in found])

    def add(self, squares: Float[Tensor, " n_layers"], norm: float) -> None:
        """Add a step.

        Parameters
        ----------
        squares : float tensor [n_layers]
            From `squares`, in any unit, so it may be taken after clipping.
        norm : float
            Norm of the whole gradient before clipping; steps with a norm that is not finite are skipped.
        """
        total = float(squares.sum())
        if not (math.isfinite(norm) and math.isfinite(total)):
            return
        shares = squares.double().cpu() / total if total > 0 else torch.zeros(len(squares))
        self._sums += torch.stack([norm * shares.sqrt(), shares])
        self._n_steps += 1

    def take(self) -> dict[str, float]:
        """Return rows for the steps since the last call: ``drift/<layer>/grad_norm`` and ``…/grad_share``.

        Values are means over these steps. Shares add up to 1; frozen layers have 0.
        """
        if not self._n_steps:
            return {}
        norms, shares = (self._sums / self._n_steps).tolist()
        self._sums.zero_()
        self._n_steps = 0
        rows = {f"drift/{layer}/grad_norm": value for layer, value in zip(self._layers, norms, strict=True)}
        return rows | {
            f"drift/{layer}/grad_share": value for layer, value in zip(self._layers, shares, strict=True)
        }

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint; JSON keeps all digits of its numbers."""
        return {"sums": self._sums.tolist(), "n_steps": self._n_steps}

    def load(self, state: dict[str, Any]) -> None:
        """Restore a `state` of a network with the same layers."""
        self._sums.copy_(torch.tensor(state["sums"], dtype=torch.float64))
        self._n_steps = state["n_steps"]
