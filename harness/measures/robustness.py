"""Effective robustness: accuracy under a shift beyond what clean accuracy predicts.

Across models, accuracy under a shift is close to a line in clean accuracy on logit axes (Miller et al. 2021).
Effective robustness is a model's distance above the line that other models make (Taori et al. 2020); with
several in-distribution sets, the plane (Shi et al. 2023). Pure functions of which images are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit, logit

from harness.storage import InputError

N_RESAMPLES = 1000
ENDS = (2.5, 97.5)


@dataclass(frozen=True)
class ModelHits:
    """Which images a model gets right, clean and under a shift.

    Attributes
    ----------
    name : str
    clean : tuple of bool array [n_images], one per in-distribution set
    shifted : tuple of bool array [n_images], one per part of the shift (a corruption at a severity)
    images : tuple of str, one per in-distribution set, and one for the shift
        Hashes of the test images: models of equal hash were tested on the same ones.
    paired : bool
        Whether the shifted images are the first set's images, changed: both are resampled alike.
    baseline : bool
        Whether the line is fitted to the model too, when others are judged.
    """

    name: str
    clean: tuple[Bool[np.ndarray, " _"], ...]
    shifted: tuple[Bool[np.ndarray, " n_images"], ...]
    images: tuple[str, ...]
    paired: bool = False
    baseline: bool = True


@dataclass(frozen=True)
class Robustness:
    """Effective robustness of one model.

    Attributes
    ----------
    name : str
    clean : tuple of float
        Accuracy on every in-distribution set.
    shifted : float
        Accuracy under the shift.
    expected : float
        What the line of the other models gives.
    value, low, high : float
        shifted − expected, and its 95 % interval over test images and, with enough models, the models of the
        line.
    """

    name: str
    clean: tuple[float, ...]
    shifted: float
    expected: float
    value: float
    low: float
    high: float


def to_logit(accuracy: np.ndarray, n_images: np.ndarray | int) -> np.ndarray:
    """Logit of accuracies, with half an image right and half wrong added: (k + ½) / (n + 1)."""
    return logit((np.asarray(accuracy) * n_images + 0.5) / (n_images + 1))


def fit_line(
    clean: Float[np.ndarray, "*batch n_models n_sets"], shifted: Float[np.ndarray, "*batch n_models"]
) -> Float[np.ndarray, "*batch n_coefficients"]:
    """Least squares of shifted on clean logits: the intercept, then a slope per in-distribution set."""
    design = np.concatenate([np.ones((*clean.shape[:-1], 1)), clean], axis=-1)
    return (np.linalg.pinv(design) @ shifted[..., None])[..., 0]


def apply_line(
    line: Float[np.ndarray, "*batch n_coefficients"], clean: Float[np.ndarray, "*batch n_sets"]
) -> Float[np.ndarray, "*batch"]:
    """Accuracies that a line gives for the clean logits of a model."""
    return np.asarray(expit(line[..., 0] + (clean * line[..., 1:]).sum(axis=-1)))


def enough_models(n_baseline: int, n_sets: int) -> bool:
    """Whether a line over so many in-distribution sets can be fitted to so many models: one per number."""
    return n_baseline >= n_sets + 1


def effective_robustness(
    models: Sequence[ModelHits], seed: int = 0, n_resamples: int = N_RESAMPLES
) -> list[Robustness]:
    """Effective robustness of every model, against the line of the other models of the baseline.

    The judged model never shapes its own line: with few models, it would pull the line to itself. Intervals
    are quantiles over resamples of the test images, the same for all models that were tested on the same
    ones. Where there are more others than a line has numbers, each resample also leaves one of them out, in
    turn, so that the interval covers the choice of models.

    Parameters
    ----------
    models : sequence of ModelHits
        All with the same in-distribution sets.
    seed : int
    n_resamples : int

    Returns
    -------
    list of Robustness
        In the order of `models`; those with too few others in the baseline, or others that are all alike on
        an in-distribution set, are left out.
    """
    if len({len(model.clean) for model in models}) > 1:
        raise InputError("effective robustness: found models with different in-distribution sets")
    if not models:
        return []
    n_sets = len(models[0].clean)
    once = [[np.ones((1, len(part))) for part in (*one.clean, one.shifted[0])] for one in models]
    drawn = _draw(models, n_resamples, np.random.default_rng(seed))
    # the test images themselves come first, then their resamples
    weights = [
        [np.concatenate(pair) for pair in zip(*both, strict=True)] for both in zip(once, drawn, strict=True)
    ]
    clean, shifted = _measure(models, weights)
    logits = to_logit(clean, np.array([[len(part) for part in one.clean] for one in models]))
    shifted_logits = to_logit(shifted, np.array([len(one.shifted[0]) for one in models]))
    found = []
    for place, model in enumerate(models):
        others = np.array([i for i, one in enumerate(models) if one.baseline and i != place], dtype=int)
        if not enough_models(len(others), n_sets) or _without_spread(models, others):
            continue
        expected = apply_line(fit_line(logits[0, others], shifted_logits[0, others]), logits[0, place])
        value = float(shifted[0, place] - expected)
        kept = np.tile(others, (n_resamples, 1))
        if enough_models(len(others) - 1, n_sets):
            out = np.arange(n_resamples)[:, None] % len(others) != np.arange(len(others))
            kept = kept[out].reshape(n_resamples, -1)
        rows = np.arange(1, n_resamples + 1)[:, None]
        lines = fit_line(logits[rows, kept], shifted_logits[rows, kept])
        low, high = np.percentile(shifted[1:, place] - apply_line(lines, logits[1:, place]), ENDS)
        # resamples of few images may miss the value itself
        ends = min(float(low), value), max(float(high), value)
        accuracies = tuple(float(one) for one in clean[0, place])
        found.append(
            Robustness(model.name, accuracies, float(shifted[0, place]), float(expected), value, *ends)
        )
    return found


def _without_spread(models: Sequence[ModelHits], others: Sequence[int] | np.ndarray) -> bool:
    """Whether these models differ by at most one image on an in-distribution set: no line is defined."""
    right = np.array([[hits.mean() * len(hits) for hits in models[place].clean] for place in others])
    return bool((np.ptp(right, axis=0) < 1.5).any())


def _measure(
    models: Sequence[ModelHits], weights: Sequence[Sequence[Float[np.ndarray, "n_draws _"]]]
) -> tuple[Float[np.ndarray, "n_draws n_models n_sets"], Float[np.ndarray, "n_draws n_models"]]:
    """Accuracies of all models, clean and shifted, with images weighted by how often they were drawn."""
    clean, shifted = [], []
    for model, own in zip(models, weights, strict=True):
        parts = [*(hits.astype(float) for hits in model.clean), np.mean(model.shifted, axis=0)]
        *found, last = (drawn @ part / len(part) for drawn, part in zip(own, parts, strict=True))
        clean.append(np.stack(found, axis=1))
        shifted.append(last)
    return np.stack(clean, axis=1), np.stack(shifted, axis=1)


def _draw(
    models: Sequence[ModelHits], n_resamples: int, rng: np.random.Generator
) -> list[list[Float[np.ndarray, "n_resamples _"]]]:
    """How often every image of every model is drawn; models with the same images share their draws."""
    drawn: dict[tuple[str, int], np.ndarray] = {}

    def draw(key: str, n_images: int) -> np.ndarray:
        if (key, n_images) not in drawn:
            shares = np.full(n_images, 1 / n_images)
            drawn[key, n_images] = rng.multinomial(n_images, shares, size=n_resamples).astype(float)
        return drawn[key, n_images]

    weights = []
    for model in models:
        own = [draw(key, len(hits)) for key, hits in zip(model.images, model.clean, strict=False)]
        n_shifted = len(model.shifted[0])
        same = model.paired and n_shifted == len(model.clean[0])
        weights.append([*own, own[0] if same else draw(model.images[-1], n_shifted)])
    return weights
