"""Surrogates of smooth maps keep what they must, and fits find known smoothness."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from harness.measures.smooth_maps import MoranSurrogates, SmoothProcess, spread_over

RNG = np.random.default_rng(0)
COORDS = RNG.uniform(0, 100, (160, 3)) * [1, 1, 0]
HEMISPHERE = np.repeat(["L", "R"], 80)


def draw(length: float, nugget: float, n_maps: int) -> np.ndarray:
    maps = np.empty((len(COORDS), n_maps))
    for side in ("L", "R"):
        own = np.flatnonzero(side == HEMISPHERE)
        covariance = np.exp(-cdist(COORDS[own], COORDS[own], "sqeuclidean") / (2 * length**2))
        covariance = (1 - nugget) * covariance + nugget * np.eye(len(own))
        maps[own] = RNG.multivariate_normal(np.zeros(len(own)), covariance, n_maps, method="eigh").T
    return maps


def moran(values: np.ndarray) -> float:
    """Σ w z z / Σ z² with inverse distances, within a hemisphere."""
    distance = cdist(COORDS[:80], COORDS[:80])
    weight = np.divide(1, distance, out=np.zeros_like(distance), where=distance > 0)
    centred = values - values.mean()
    return float(centred @ weight @ centred / (centred @ centred))


def test_moran_surrogates_keep_mean_variance_and_autocorrelation_of_a_hemisphere() -> None:
    values = draw(20, 0.1, 1)[:, 0] + np.where(HEMISPHERE == "L", 3, -1)
    surrogates = MoranSurrogates(COORDS, HEMISPHERE).draw(values, np.eye(160), 5, seed=1)
    assert not np.allclose(surrogates[0], surrogates[1])
    for one in surrogates:
        for own in (slice(0, 80), slice(80, 160)):
            assert one[own].mean() == pytest.approx(values[own].mean())
            assert one[own].std() == pytest.approx(values[own].std())
        assert moran(one[:80]) == pytest.approx(moran(values[:80]))


def test_the_fit_finds_length_and_nugget() -> None:
    process = SmoothProcess(COORDS, HEMISPHERE)
    for length, nugget in ((8, 0.05), (20, 0.05), (20, 0.5)):
        fits = [process.fit(one) for one in draw(length, nugget, 20).T]
        gaussian = [fit for fit in fits if fit.kernel == "gaussian"]
        assert len(gaussian) > 10
        assert np.median([fit.length for fit in gaussian]) == pytest.approx(length, rel=0.3)
        assert np.median([fit.nugget for fit in fits]) == pytest.approx(nugget, abs=0.15)


def test_noise_alone_has_no_smoothness() -> None:
    process = SmoothProcess(COORDS, HEMISPHERE)
    fits = [process.fit(one) for one in RNG.standard_normal((20, 160))]
    # either all of the variance is independent, or the length is below the distance of neighbours
    assert np.mean([fit.nugget > 0.6 or fit.length < 6 for fit in fits]) > 0.9


def test_a_fit_does_not_depend_on_scale_or_the_hemispheres_means() -> None:
    process, values = SmoothProcess(COORDS, HEMISPHERE), draw(15, 0.1, 1)[:, 0]
    assert process.fit(values) == process.fit(7 * values + np.where(HEMISPHERE == "L", 3, -40))


def test_a_longer_process_is_one_step_of_the_grid() -> None:
    process = SmoothProcess(COORDS, HEMISPHERE)
    fit = process.fit(draw(15, 0.1, 1)[:, 0])
    longer = process.lengthen(fit)
    assert longer.length == pytest.approx(fit.length * 50 ** (1 / 17))
    assert (longer.kernel, longer.nugget) == (fit.kernel, fit.nugget)


def test_drawn_maps_have_the_fitted_covariance() -> None:
    process = SmoothProcess(COORDS, HEMISPHERE)
    smoothness = process.fit(draw(20, 0.2, 1)[:, 0])
    sums, squares = process.draw(smoothness, np.eye(160), 4000, seed=2)
    np.testing.assert_allclose(np.square(sums).sum(axis=1), squares)
    found = np.cov(sums.T)
    assert np.diag(found).mean() == pytest.approx(1, abs=0.05)
    assert np.abs(found[:80, 80:]).max() < 0.1
    distance = cdist(COORDS[:80], COORDS[:80])
    scaled = distance / smoothness.length
    expected = np.exp(-(scaled**2) / 2)
    if smoothness.kernel == "matern":
        expected = (1 + np.sqrt(3) * scaled) * np.exp(-np.sqrt(3) * scaled)
    off = ~np.eye(80, dtype=bool)
    np.testing.assert_allclose(found[:80, :80][off], (1 - smoothness.nugget) * expected[off], atol=0.12)


def test_thinning_keeps_every_group() -> None:
    groups = [np.arange(1000), np.arange(1000, 1008), np.arange(990, 1000)]
    chosen = spread_over(groups, 100)
    assert len(chosen) <= 110 and len(np.intersect1d(chosen, groups[1])) == 5
    np.testing.assert_array_equal(spread_over(groups, 2000), np.arange(1008))
