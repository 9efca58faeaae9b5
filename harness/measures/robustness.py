"""Effective robustness: accuracy under a shift beyond what clean accuracy predicts.

Across models, accuracy under a shift is close to a line in clean accuracy on logit axes (Miller et al. 2021).
Effective robustness is a model's distance above the line that other models make (Taori et al. 2020); with
several in-distribution sets, the plane (Shi et al. 2023). Pure functions of which images are right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
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
    clean: Float[np.ndarray, "n_models n_sets"], shifted: Float[np.ndarray, " n_models"]
) -> Float[np.ndarray, " n_coefficients"]:
    """Least squares of shifted on clean logits: the intercept, then a slope per in-distribution set."""
    design = np.column_stack([np.ones(len(clean)), clean])
    return np.linalg.lstsq(design, shifted, rcond=None)[0]


def apply_line(
    line: Float[np.ndarray, " n_coefficients"], clean: Float[np.ndarray, "n_models n_sets"]
) -> Float[np.ndarray, " n_models"]:
    """Accuracies that a line gives for clean logits."""
    return expit(line[0] + clean @ line[1:])


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
        In the order of `models`; those with too few others in the baseline are left out.
    """
    if len({len(model.clean) for model in models}) > 1:
        raise InputError("effective robustness: found models with different in-distribution sets")
    if not models:
        return []
    n_sets = len(models[0].clean)
    shares = [([hits.astype(float) for hits in one.clean], np.mean(one.shifted, axis=0)) for one in models]
    accuracies = _measure(shares, None)
    point = _to_logits(shares, accuracies)
    resampled = [_measure(shares, w) for w in _draw(models, n_resamples, np.random.default_rng(seed))]
    drawn = [(_to_logits(shares, measured), measured[1]) for measured in resampled]
    found = []
    for place, model in enumerate(models):
        others = np.array([i for i, one in enumerate(models) if one.baseline and i != place], dtype=int)
        if not enough_models(len(others), n_sets):
            continue
        expected = _expect(point, others, place)
        shifted = float(accuracies[1][place])
        leave_out = enough_models(len(others) - 1, n_sets)
        values = []
        for number, (logits, own) in enumerate(drawn):
            kept = np.delete(others, number % len(others)) if leave_out else others
            values.append(own[place] - _expect(logits, kept, place))
        low, high = np.percentile(values, ENDS)
        clean = tuple(float(one.mean()) for one in model.clean)
        value = shifted - expected
        # resamples of few images may miss the point itself
        ends = min(float(low), value), max(float(high), value)
        found.append(Robustness(model.name, clean, shifted, expected, value, *ends))
    return found


Logits = tuple[np.ndarray, np.ndarray]
Shares = tuple[list[np.ndarray], np.ndarray]
"""Of every image, whether it is right in each in-distribution set, and in how many parts of the shift."""


def _expect(logits: Logits, others: Int[np.ndarray, " n_others"], place: int) -> float:
    clean, shifted = logits
    line = fit_line(clean[others], shifted[others])
    return float(apply_line(line, clean[place : place + 1])[0])


def _measure(models: Sequence[Shares], weights: Sequence[Sequence[np.ndarray]] | None) -> Logits:
    """Accuracies of all models [n_models, n_sets] and [n_models]; weights: how often an image was drawn."""
    clean, shifted = [], []
    for place, (sets, parts) in enumerate(models):
        own = [np.ones(len(part)) for part in (*sets, parts)] if weights is None else weights[place]
        *found, last = (drawn @ part / drawn.sum() for drawn, part in zip(own, (*sets, parts), strict=True))
        clean.append(found)
        shifted.append(last)
    return np.array(clean), np.array(shifted)


def _to_logits(models: Sequence[Shares], accuracies: Logits) -> Logits:
    sizes = np.array([[len(part) for part in sets] for sets, _ in models])
    return (
        to_logit(accuracies[0], sizes),
        to_logit(accuracies[1], np.array([len(parts) for _, parts in models])),
    )


def _draw(
    models: Sequence[ModelHits], n_resamples: int, rng: np.random.Generator
) -> Iterator[list[list[np.ndarray]]]:
    """Yield how often every image of every model is drawn, in resamples of the test images."""
    for _ in range(n_resamples):
        drawn: dict[tuple[str, int], np.ndarray] = {}

        def draw(key: str, n: int, memory: dict[tuple[str, int], np.ndarray] = drawn) -> np.ndarray:
            if (key, n) not in memory:
                memory[key, n] = rng.multinomial(n, np.full(n, 1 / n))
            return memory[key, n]

        weights = []
        for model in models:
            own = [draw(key, len(hits)) for key, hits in zip(model.images, model.clean, strict=False)]
            same = model.paired and len(model.shifted[0]) == len(model.clean[0])
            own.append(own[0] if same else draw(model.images[-1], len(model.shifted[0])))
            weights.append(own)
        yield weights
