"""Noise ceilings by the data set's formula, and estimates from repeats against the truth."""

from __future__ import annotations

import numpy as np
import pytest

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
