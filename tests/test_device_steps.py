"""Fits take the same steps where tokens, responses and the step itself stay on the device."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from operations import ways_of_a_gpu
from planted import TOKEN_SIZE, fit_planted, make_planted
from torch import Tensor

from harness.config.mapping import (
    AttentionConfig,
    FactorTopyConfig,
    FreeSelectorsConfig,
    TrainedMappingConfig,
)
from harness.mappings import training
from harness.mappings.device_steps import WARM_UP, Replayed

SETTINGS = {"token_size": TOKEN_SIZE, "n_channels": 8, "steps": 12, "voxels_per_pass": 50}


@pytest.mark.parametrize(
    "config",
    [
        FactorTopyConfig(**SETTINGS),
        FactorTopyConfig(**SETTINGS, anchor="pull", validation=0.2, patience=2),
        FreeSelectorsConfig(**SETTINGS),
        AttentionConfig(**SETTINGS),
    ],
    ids=lambda config: f"{config.family}-{config.validation}",
)
def test_a_fit_takes_the_same_steps(config: TrainedMappingConfig, caplog: pytest.LogCaptureFixture) -> None:
    planted = make_planted()
    if not config.validation:
        # layers of one width are stored as one array
        local, global_ = (
            tuple(layer[:, :6] for layer in layers)
            for layers in (planted.tokens.local, planted.tokens.global_)
        )
        planted = replace(planted, tokens=replace(planted.tokens, local=local, global_=global_))
    expected = fit_planted(planted, config)
    with caplog.at_level(logging.WARNING), ways_of_a_gpu():
        found = fit_planted(planted, config)
    assert "not captured as a CUDA graph" in caplog.text  # a CPU has none, and the fit says so
    assert abs(found.steps - expected.steps) <= 1  # the last step changes nothing but rounding
    for name in ("layer", "space", "scale", "weights", "bias", "r2"):
        one, other = getattr(found, name), getattr(expected, name)
        # Adam divides by the size of a gradient, and so enlarges rounding
        np.testing.assert_allclose(one, other, atol=1e-3 * np.abs(other).max(), err_msg=name)


class Steps:
    """Counts, with a buffer that the host may read as a loss."""

    def __init__(self) -> None:
        self.count = torch.zeros(())

    def __call__(self) -> Tensor:
        return self.count.add_(1)


def test_a_step_is_captured_once_and_replayed() -> None:
    step, captured = Steps(), []

    def capture(given: Callable[[], Tensor]) -> Callable[[], Tensor]:
        captured.append(given)
        return lambda: given() * 10

    replayed = Replayed(step, capture)
    found = [float(replayed()) for _ in range(WARM_UP + 3)]
    assert found == [1, 2, 3, 40, 50, 60]
    assert captured == [step]
    assert replayed.reason is None


def test_a_step_that_cannot_be_captured_goes_on_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    tried = []

    def refuse(given: Callable[[], Tensor]) -> Callable[[], Tensor]:
        tried.append(given)
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    replayed = Replayed(Steps(), refuse)
    assert [float(replayed()) for _ in range(WARM_UP + 2)] == [1, 2, 3, 4, 5]
    assert len(tried) == 1
    assert replayed.reason == "operation not permitted when stream is capturing"
    assert caplog.text.count(replayed.reason) == 1


@pytest.mark.gpu
def test_a_fit_on_a_gpu_is_captured(caplog: pytest.LogCaptureFixture) -> None:
    from harness.mappings.data import FitData
    from harness.mappings.fit import fit_mapping
    from harness.mappings.splits import split_stimuli

    planted, config = make_planted(), FactorTopyConfig(**SETTINGS | {"steps": 60})
    split = split_stimuli(len(planted.responses), 0.2, seed=0)
    data = FitData(planted.tokens, planted.responses, planted.coords, planted.bounding_box, split)
    expected, found = (fit_mapping(data, config, seed=0, device=device) for device in ("cpu", "cuda"))
    assert "not captured" not in caplog.text
    assert abs(found.r2.mean() - expected.r2.mean()) < 0.01


def test_responses_that_do_not_fit_on_the_device_wait_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    responses = np.arange(12, dtype=np.float32).reshape(3, 4)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (79, 1000))  # 48 bytes are over 60 % of it
    found = training.place_responses(responses, torch.device("cuda"))
    assert found.device.type == "cpu"
    mean = training.mean_response(found, torch.tensor([0, 2]), n_at_once=3)
    assert mean.tolist() == [4.0, 5.0, 6.0, 7.0]
