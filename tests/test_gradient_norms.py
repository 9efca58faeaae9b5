"""Gradient norms by layer, over steps, against hand-computed values."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from harness.finetuning.gradient_norms import GradientNorms


def make_layers() -> dict[str, list[nn.Parameter]]:
    """Make two layers with gradients of norm 3 and 4, and one that is not trained."""
    one, two, fixed = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    one.grad, two.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    return {"a": [one], "b": [two, fixed], "c": [fixed]}


def test_norms_and_shares_are_means_over_steps() -> None:
    layers = make_layers()
    norms = GradientNorms(layers)
    norms.add(norms.squares(), 5.0)
    layers["a"][0].grad.zero_()
    norms.add(norms.squares(), 8.0)  # clipped to half
    assert norms.take() == {
        "drift/a/grad_norm": 1.5,
        "drift/b/grad_norm": 6.0,
        "drift/c/grad_norm": 0.0,
        "drift/a/grad_share": 0.18,
        "drift/b/grad_share": pytest.approx(0.82),
        "drift/c/grad_share": 0.0,
    }
    assert norms.take() == {}  # no steps since


def test_steps_without_a_finite_gradient_are_left_out() -> None:
    layers = make_layers()
    norms = GradientNorms(layers)
    norms.add(norms.squares(), math.inf)
    layers["a"][0].grad.fill_(math.nan)
    norms.add(norms.squares(), 5.0)
    assert norms.take() == {}


def test_a_step_of_no_gradient_at_all_counts() -> None:
    norms = GradientNorms({"a": [nn.Parameter(torch.zeros(2))]})
    norms.add(norms.squares(), 0.0)
    assert norms.take() == {"drift/a/grad_norm": 0.0, "drift/a/grad_share": 0.0}


def test_what_was_noted_goes_on_to_the_same_digits() -> None:
    layers = make_layers()
    whole, first = GradientNorms(layers), GradientNorms(layers)
    for norms in (whole, first):
        norms.add(norms.squares(), 0.1)
    second = GradientNorms(layers)
    second.load(json.loads(json.dumps(first.state())))
    for norms in (whole, second):
        norms.add(norms.squares() / 3, 0.7)
    assert second.take() == whole.take()
