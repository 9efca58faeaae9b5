"""Noise ceilings by the data set's formula, and estimates from repeats against the truth."""

from __future__ import annotations

import numpy as np
import pytest

from harness.brains.brain import Brain
from harness.brains.ceilings import (
    ceiling_from_ncsnr,
    ceiling_from_variances,
)
from harness.brains.repeats import (
    average_sessions,
    plan_rows,
)


@pytest.mark.parametrize(("a", "b", "c"), [(5, 0, 0), (0, 4, 0), (0, 0, 3), (5, 4, 3)])
def test_mixed_repeats_count_as_the_manual_says(a: int, b: int, c: int) -> None:
    n_repeats = np.repeat([3, 2, 1], [a, b, c])
    ncsnr = np.array([0.0, 0.5, 2.0])
    share = (a / 3 + b / 2 + c) / (a + b + c)
    np.testing.assert_allclose(
        ceiling_from_ncsnr(ncsnr, n_repeats), [0, 0.25 / (0.25 + share), 4 / (4 + share)], rtol=1e-6
    )


def test_what_is_not_known_is_no_ceiling() -> None:
    found = ceiling_from_ncsnr(np.array([np.nan, -1, np.inf, 1]), np.array([1, 1]))
    assert found.tolist() == [0, 0, 0, 0.5]


def make_brain(n_repeats: list[int] | None, ceiling: float | None) -> Brain:
    n_images = 8 if n_repeats is None else len(n_repeats)
    return Brain(
        name="made",
        stimuli=[],
        responses=np.zeros((n_images, 1), np.float32),
        coords=np.zeros((1, 3), np.float32),
        bounding_box=np.zeros((2, 3), np.float32),
        hemisphere=np.array(["L"]),
        rois=(),
        noise_ceiling=None if ceiling is None else np.array([ceiling], np.float32),
        surface=None,
        fingerprint="",
        n_repeats=None if n_repeats is None else np.array(n_repeats),
    )


def test_the_ceiling_of_held_out_rows_has_their_repeats() -> None:
    """Seven images once, one three times: .25/(.25 + (7 + 1/3)/8) = .214; alone, .25/(.25 + 1/3) = .429."""
    n_repeats = [1, 1, 1, 3, 1, 1, 1, 1]
    (all_rows,) = ceiling_from_ncsnr(np.array([0.5]), np.array(n_repeats))
    assert all_rows == pytest.approx(0.214, abs=5e-4)
    brain = make_brain(n_repeats, float(all_rows))
    found = brain.score_on(np.array([3])).noise_ceiling
    assert found is not None and found[0] == pytest.approx(0.429, abs=5e-4)
    np.testing.assert_allclose(found, ceiling_from_ncsnr(np.array([0.5]), np.array([3])), rtol=1e-6)
    once = brain.score_on(np.array([0, 1])).noise_ceiling
    assert once is not None and once[0] == pytest.approx(0.2)
    assert brain.score_on(np.arange(8)) is brain


@pytest.mark.parametrize("ceiling", [0.0, 1.0])
def test_no_signal_and_no_noise_stay_so(ceiling: float) -> None:
    found = make_brain([1, 3], ceiling).score_on(np.array([1])).noise_ceiling
    assert found is not None and found[0] == ceiling


def test_unknown_repeats_leave_the_ceiling() -> None:
    for brain in (make_brain(None, 0.3), make_brain([1, 3], None)):
        assert brain.score_on(np.array([1])) is brain


def test_variances_by_hand() -> None:
    # signal variance 3 of 4; averaging two leaves noise 0.5: 3 / 3.5
    found = ceiling_from_variances(np.array([1.0, 4, 5]), np.array([4.0, 4, 4]), np.array([2, 2]))
    np.testing.assert_allclose(found, [3 / 3.5, 0, 0], rtol=1e-6)


def test_repeats_give_the_ceiling_back_that_responses_were_made_with() -> None:
    """Sessions are standardised and images shown one to three times, as in the data set."""
    rng = np.random.default_rng(3)
    n_pictures, ncsnr = 600, np.array([0.0, 0.3, 0.8, 1.5])
    signal = rng.standard_normal((n_pictures, len(ncsnr))) * ncsnr
    trials = rng.permutation(np.concatenate([np.arange(600), np.arange(400), np.arange(200)]))
    pictures = np.split(trials, 4)
    sessions = [(signal[part] + rng.standard_normal((len(part), 4))).astype(np.float32) for part in pictures]
    rows = plan_rows(pictures, [1, 2, 3, 4], "stimulus")
    named = [(str(place), part * (place + 1) + place) for place, part in enumerate(sessions)]
    averaged = average_sessions(named, rows, 4, standardise=True)
    found = ceiling_from_variances(averaged.noise_variance, averaged.total_variance, rows.n_repeats)
    np.testing.assert_allclose(found, ceiling_from_ncsnr(ncsnr, rows.n_repeats), atol=0.05)
    # the share of the averages' variance explained by the signal
    explained = [
        np.corrcoef(averaged.responses[:, voxel], signal[:, voxel])[0, 1] ** 2 for voxel in (1, 2, 3)
    ]
    np.testing.assert_allclose(found[1:], explained, atol=0.06)
