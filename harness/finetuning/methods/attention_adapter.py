"""LoRA inside `torch.nn.MultiheadAttention`, which open_clip's own ViTs use."""

from __future__ import annotations

from typing import Any

from peft.tuners.lora.layer import MultiheadAttention
from torch import nn


class AttentionAdapter(MultiheadAttention):
    """Peft's adapter for `nn.MultiheadAttention`, exact in two places where peft 0.21 is not.

    A forward pass of `nn.MultiheadAttention` reads the weights, so the additions are merged while it runs.
    Peft adds the output projection's twice, with half the gradient, and removes additions by subtraction, so
    that fixed weights drift with every pass. Here each is added once, and the fixed weights are set aside
    and restored.
    """

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Replace each weight by the weight plus its addition."""
        if self.merged:
            return
        (adapter,) = self.active_adapters
        owners: tuple[Any, ...] = (self, self.get_base_layer().out_proj)
        self._fixed = [getattr(module, name) for module, name in self._weights()]
        for (module, name), weight, owner in zip(self._weights(), self._fixed, owners, strict=True):
            delattr(module, name)
            # a plain tensor, so that gradients pass through it to the addition
            setattr(module, name, weight.detach() + owner.get_delta_weight(adapter))
        self.merged_adapters.append(adapter)

    def unmerge(self) -> None:
        """Restore the fixed weights."""
        for (module, name), weight in zip(self._weights(), self._fixed, strict=True):
            delattr(module, name)
            module.register_parameter(name, weight)
        self._fixed = []
        self.merged_adapters.clear()

    def _weights(self) -> list[tuple[nn.Module, str]]:
        """Locate the weights of the input and output projections."""
        attention: Any = self.get_base_layer()
        return [(attention, "in_proj_weight"), (attention.out_proj.get_base_layer(), "weight")]
