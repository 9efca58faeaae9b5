"""Comparison of two computations in values and gradients."""

from __future__ import annotations

import torch
from torch import Tensor


def assert_same_with_gradients(ours: Tensor, theirs: Tensor, inputs: list[Tensor]) -> None:
    """Assert that values and all gradients agree to 1e-10."""
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    probe = torch.randn(ours.shape, dtype=ours.dtype, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((ours * probe).sum(), inputs, materialize_grads=True, allow_unused=True)
    expected = torch.autograd.grad((theirs * probe).sum(), inputs, materialize_grads=True, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
