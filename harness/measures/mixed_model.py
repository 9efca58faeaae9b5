"""Linear mixed model of a measure of runs on measures of their backbones, with a random intercept each."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats


@dataclass(frozen=True)
class MixedModel:
    """The coefficient of one predictor, beside the others.

    Attributes
    ----------
    effect : float
        Change of the outcome per standard deviation of the predictor over backbones.
    low, high : float
        95 % interval of the effect.
    p : float
        t test with `dof` degrees of freedom.
    dof : int
        Backbones − 1 − predictors that belong to backbones. statsmodels' normal test would count runs as
        independent and be too liberal with few backbones.
    sd_backbones, sd_runs : float
        Standard deviations of the random intercept and of the residual.
    dropped : tuple of str
        Controls that are constant or follow from the others.
    converged : bool
    """

    effect: float
    low: float
    high: float
    p: float
    dof: int
    sd_backbones: float
    sd_runs: float
    dropped: tuple[str, ...]
    converged: bool


def fit_mixed_model(
    outcome: Float[np.ndarray, " n_runs"],
    predictor: Float[np.ndarray, " n_runs"],
    controls: Mapping[str, Float[np.ndarray, " n_runs"]],
    categories: Sequence[str],
    backbones: Sequence[str],
) -> MixedModel | None:
    """Fit outcome ~ predictor + controls + category, with a random intercept per backbone, by REML.

    Parameters
    ----------
    outcome : float array [n_runs]
    predictor : float array [n_runs]
        The same for all runs of a backbone.
    controls : dict of name to float array [n_runs]
        Other measures of backbones. They are standardised.
    categories : sequence of str
        A factor within backbones: the task.
    backbones : sequence of str
        Backbone of each run.

    Returns
    -------
    MixedModel or None
        None where it cannot be fitted: fewer than two runs per backbone, too few backbones for the
        predictors, or a constant predictor or outcome.
    """
    from statsmodels.regression.mixed_linear_model import MixedLM

    names = list(dict.fromkeys(backbones))
    if len(backbones) < 2 * len(names) or np.ptp(predictor) == 0 or np.ptp(outcome) == 0:
        return None
    # one value per backbone, so that an unequal number of runs does not change the unit
    first = [list(backbones).index(name) for name in names]
    unit = float(np.std(predictor[first], ddof=1))
    columns = [np.ones(len(outcome)), (predictor - predictor[first].mean()) / unit]
    dropped = []
    tasks = list(dict.fromkeys(categories))[1:]
    within = [np.array([float(name == task) for name in categories]) for task in tasks]
    columns += [column for column in within if _adds(columns, column)]
    n_controls = 0
    for name, values in controls.items():
        spread = float(np.std(values))
        column = (values - values.mean()) / spread if spread > 1e-12 else np.zeros(len(values))
        if spread > 1e-12 and _adds(columns, column):
            columns.append(column)
            n_controls += 1
        else:
            dropped.append(name)
    dof = len(names) - 2 - n_controls
    if dof < 1:
        return None
    scale = float(np.std(outcome))
    codes = np.array([names.index(name) for name in backbones])
    with warnings.catch_warnings(record=True):
        # a variance of 0 is a possible estimate; `converged` says what else went wrong
        warnings.simplefilter("always")
        # statsmodels' default, L-BFGS, ends in a singular matrix in half of such small samples
        found = MixedLM(outcome / scale, np.stack(columns, axis=1), codes).fit(reml=True, method="powell")
        effect, error = scale * float(found.fe_params[1]), scale * float(found.bse_fe[1])
    if not np.isfinite([effect, error]).all() or error <= 0:
        return None
    margin = float(stats.t.ppf(0.975, dof)) * error
    return MixedModel(
        effect=effect,
        low=effect - margin,
        high=effect + margin,
        p=2 * float(stats.t.sf(abs(effect) / error, dof)),
        dof=dof,
        sd_backbones=scale * float(np.sqrt(max(float(np.asarray(found.cov_re)[0, 0]), 0.0))),
        sd_runs=scale * float(np.sqrt(found.scale)),
        dropped=tuple(dropped),
        converged=bool(found.converged),
    )


def _adds(columns: Sequence[np.ndarray], column: np.ndarray) -> bool:
    """Whether a column is more than a combination of the others."""
    together = np.stack([*columns, column], axis=1)
    return int(np.linalg.matrix_rank(together, tol=1e-8 * len(column))) == len(columns) + 1
