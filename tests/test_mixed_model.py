from __future__ import annotations

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS

from harness.measures.mixed_model import fit_mixed_model


def draw(n: int, effect: float, seed: int, noise: float = 0.2):
    """Two tasks per backbone: outcome = effect × predictor + intercept of the backbone + task + noise."""
    rng = np.random.default_rng(seed)
    predictor, control, own = rng.standard_normal((3, n))
    outcome = effect * predictor + 0.5 * own
    runs = np.stack([outcome, outcome + 1.0], axis=1) + noise * rng.standard_normal((n, 2))
    names = [f"n{place}" for place in range(n)]
    return (
        runs.T.ravel(),
        np.tile(predictor, 2),
        {"control": np.tile(control, 2)},
        ["a"] * n + ["b"] * n,
        names * 2,
    )


def test_equal_numbers_of_runs_give_the_regression_of_backbone_means() -> None:
    outcome, predictor, controls, tasks, names = draw(14, 0.4, 0)
    found = fit_mixed_model(outcome, predictor, controls, tasks, names)
    means = outcome.reshape(2, 14).mean(axis=0)
    x = predictor[:14] / predictor[:14].std(ddof=1)
    expected = OLS(means, np.stack([np.ones(14), x, controls["control"][:14]], axis=1)).fit()
    assert found is not None and found.converged and found.dropped == ()
    assert found.effect == pytest.approx(expected.params[1], rel=1e-3)
    assert found.p == pytest.approx(expected.pvalues[1], rel=2e-2)
    assert (found.low, found.high) == pytest.approx(tuple(expected.conf_int()[1]), rel=1e-2)
    assert found.dof == expected.df_resid == 11
    # variance between and within, from the analysis of variance
    within = np.ptp(outcome.reshape(2, 14), axis=0)
    assert found.sd_runs == pytest.approx(
        (outcome.reshape(2, 14)[1] - outcome[:14]).std(ddof=1) / 2**0.5, rel=0.02
    )
    assert within.mean() == pytest.approx(1, abs=0.2)
    between = expected.mse_resid - found.sd_runs**2 / 2
    assert found.sd_backbones == pytest.approx(between**0.5, rel=0.02)


def test_the_unit_of_the_outcome_is_kept() -> None:
    outcome, predictor, controls, tasks, names = draw(10, 0.4, 1)
    one = fit_mixed_model(outcome, predictor, controls, tasks, names)
    small = fit_mixed_model(outcome / 1000, predictor * 7, controls, tasks, names)
    assert one is not None and small is not None
    assert small.effect == pytest.approx(one.effect / 1000, rel=1e-3)
    assert small.sd_runs == pytest.approx(one.sd_runs / 1000, rel=1e-3)
    assert small.p == pytest.approx(one.p, rel=1e-3)


def test_controls_that_say_nothing_new_are_dropped_and_named() -> None:
    outcome, predictor, controls, tasks, names = draw(10, 0.4, 2)
    more = controls | {"constant": np.full(20, 3.0), "again": 2 * controls["control"] - 5}
    found = fit_mixed_model(outcome, predictor, more, tasks, names)
    expected = fit_mixed_model(outcome, predictor, controls, tasks, names)
    assert found is not None and expected is not None
    assert found.dropped == ("constant", "again") and found.dof == expected.dof
    assert found.effect == pytest.approx(expected.effect)


def test_what_cannot_be_fitted_is_none() -> None:
    outcome, predictor, controls, tasks, names = draw(10, 0.4, 3)
    # one run per backbone
    assert fit_mixed_model(outcome[:10], predictor[:10], {}, tasks[:10], names[:10]) is None
    assert fit_mixed_model(outcome, np.ones(20), controls, tasks, names) is None
    assert fit_mixed_model(np.ones(20), predictor, controls, tasks, names) is None
    few = draw(3, 0.4, 0)
    assert fit_mixed_model(*few) is None


def test_backbones_that_do_not_differ_beyond_the_predictor_do_no_harm() -> None:
    rng = np.random.default_rng(0)
    predictor = rng.standard_normal(12)
    outcome = np.tile(0.3 * predictor, 2) + 0.2 * rng.standard_normal(24)
    found = fit_mixed_model(
        outcome, np.tile(predictor, 2), {}, ["a"] * 12 + ["b"] * 12, [str(i) for i in range(12)] * 2
    )
    assert found is not None and found.p < 0.05
    assert found.low < 0.3 * predictor.std(ddof=1) < found.high
