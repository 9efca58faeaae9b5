"""Usable voxels, and messages about the others."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from made_study import make_brain

import harness.brains.usable as usable
from harness.brains.brain import Brain
from harness.brains.usable import (
    check_ceiling,
    keep_usable,
)
from harness.storage.errors import InputError


@pytest.fixture
def brain() -> Brain:
    brain = make_brain()
    responses = np.random.default_rng(0).standard_normal((9, brain.n_voxels), dtype=np.float32)
    return replace(brain, responses=responses, stimulus_ids=np.arange(9))


@pytest.mark.parametrize("at_once", [1, 4, 256])
def test_voxels_are_judged_over_all_rows(
    brain: Brain, at_once: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(usable, "AT_ONCE", at_once)
    assert keep_usable(brain, "here") is brain
    assert not caplog.records
    brain.responses[8, 3] = np.nan
    brain.responses[0, 4] = np.inf
    brain.responses[:, 5] = 2
    brain.responses[:8, 6] = 2  # differs once, in the last row
    with caplog.at_level(logging.WARNING):
        kept = keep_usable(brain, "here")
    np.testing.assert_array_equal(kept.responses, np.delete(brain.responses, [3, 4, 5], axis=1))
    assert "here: 2 of 48 voxels have non-finite values" in caplog.text
    assert "here: 1 of 48 voxels have the same value for all stimuli" in caplog.text


def test_a_brain_without_any_usable_voxel_is_refused(brain: Brain) -> None:
    with pytest.raises(InputError, match="here: found no voxel with finite responses that vary"):
        keep_usable(replace(brain, responses=np.ones_like(brain.responses)), "here")
    brain.responses[5] = np.nan
    with pytest.raises(InputError, match=r"row 5 \(0-based\) has no finite value"):
        keep_usable(brain, "here")


def test_ceilings_are_shares(caplog: pytest.LogCaptureFixture) -> None:
    found = check_ceiling(np.array([0, 0.25, 1.0]), "here")
    assert (found.tolist(), found.dtype) == ([0, 0.25, 1], np.float32)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(check_ceiling(np.array([0, 25.0, np.nan]), "here"), [0, 0.25, 0])
    assert "count as per cent" in caplog.text
    assert "1 noise ceilings are NaN" in caplog.text
    for bad in ([-0.1, 0.5], [0.5, 101], [np.inf, 0.5], [-np.inf, 0]):
        with pytest.raises(InputError, match="here: found noise ceilings from"):
            check_ceiling(np.array(bad), "here")
