"""Intervals of Δ by a paired bootstrap over test images, and over the seeds of a group of runs.

Both snapshots are scored on the same test images, so a resample draws images and takes the difference of
scores on them. Pure functions of small arrays; every draw is seeded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from harness.measures.per_image import (
    Hits,
    PerImage,
    Ranks,
    decode_images,
)
from harness.storage import InputError

N_RESAMPLES = 4000
ENDS = (0.025, 0.975)
"""Quantiles at the ends of an interval."""
CHUNK = 4_000_000
"""Numbers held at a time while AUROC is resampled."""


@dataclass(frozen=True)
class Change:
    """What one run's probe got right before and after.

    Attributes
    ----------
    before, after : Hits or Ranks
        Of the same test images in the same order.
    images : str
        Hash of the test images: runs of equal hash were tested on the same ones. Empty: on others than all
        other runs.
    """

    before: PerImage
    after: PerImage
    images: str = ""

    def __post_init__(self) -> None:
        if len(self.before) != len(self.after) or type(self.before) is not type(self.after):
            raise InputError(
                f"Δ: found records of {len(self.before)} and {len(self.after)} test images, "
                "expected the same images before and after"
            )


def read_change(now: Mapping[str, Any], before: Mapping[str, Any], task: str, scoring: str) -> Change | None:
    """Read what a kind of probe got right on a task out of two probes files; None if either lacks it.

    Parameters
    ----------
    now, before : dict
        Probes files of a snapshot and of step 0.
    task, scoring : str
        ``shapes`` and ``linear``, for example.

    Raises
    ------
    InputError
        If the files are of different test images, or a record is broken.
    """
    records = [content.get("images", {}).get(task) for content in (before, now)]
    if any(record is None or scoring not in record["right"] for record in records):
        return None
    hashes = {record["hash"] for record in records}
    if len(hashes) > 1:
        raise InputError(f"probes of {task}: found other test images than at step 0, expected the same ones")
    first, second = (decode_images(record["right"][scoring]) for record in records)
    return Change(first, second, hashes.pop())


def delta_interval(
    change: Change, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> tuple[float, float] | None:
    """95 % interval of Δ over test images: quantiles of Δ in resamples of the images (Efron 1979).

    For accuracies, two images join those that are resampled, one that was gained and one that was lost (after
    Bonett & Price 2012): where few images changed, those that were tested say too little about the others.

    Parameters
    ----------
    change : Change
    seed : int
        Of the resamples.
    n_resamples : int

    Returns
    -------
    tuple of float or None
        Lower and upper end; None for AUROC if no label is both present and absent.
    """
    return quantile_ends(_resample([change], n_resamples, np.random.default_rng(seed))[:, 0])


def mean_change_interval(
    changes: Sequence[Change], seed: int = 0, n_resamples: int = N_RESAMPLES
) -> tuple[float, float] | None:
    """95 % interval of the mean Δ of one run's probes, over test images; the probes are fixed.

    Probes of the same test images get the same resamples; one probe has the interval of `delta_interval`.
    Parameters and result as for `delta_interval`.
    """
    rng = np.random.default_rng(seed)
    groups: dict[object, list[Change]] = {}
    for place, change in enumerate(changes):
        shared = (change.images, len(change.before), type(change.before)) if change.images else place
        groups.setdefault(shared, []).append(change)
    drawn = [_resample(group, n_resamples, rng) for group in groups.values()]
    return quantile_ends(np.concatenate(drawn, axis=1).mean(axis=1))


def quantile_ends(drawn: Float[np.ndarray, " n_resamples"]) -> tuple[float, float] | None:
    """Ends of the 95 % interval of resampled numbers; None if all are missing."""
    if np.isnan(drawn).all():
        return None
    low, high = np.nanquantile(drawn, ENDS)
    return float(low), float(high)


def mean_delta_interval(
    changes: Sequence[Change], seed: int = 0, n_resamples: int = N_RESAMPLES
) -> tuple[float, float] | None:
    """95 % interval of the mean Δ of runs that differ in their seed, over seeds and test images.

    Every resample draws runs with replacement, and test images for each of them. Runs that were tested on the
    same images get the same draw: what is special about an image does not average out over seeds. A
    bootstrap of S runs understates their variance by (S − 1)/S, so their deviations from the mean are scaled
    by √(S/(S − 1)); and the interval is widened from the normal to a t distribution, whose degrees of freedom
    are S − 1 for the part of the variance that is over seeds and many for the rest (Welch–Satterthwaite).

    Parameters and result as for `delta_interval`; one run has that interval.

    Raises
    ------
    InputError
        If there is no run.
    """
    if not changes:
        raise InputError("Δ over seeds: found no run, expected at least one")
    if len(changes) == 1:
        return delta_interval(changes[0], seed, n_resamples)
    return interval_over_runs(
        np.array([change_of(change) for change in changes]),
        [
            (change.images, len(change.before), type(change.before)) if change.images else None
            for change in changes
        ],
        lambda places, n, rng: _resample([changes[place] for place in places], n, rng),
        seed,
        n_resamples,
    )


def interval_over_runs(
    centres: Float[np.ndarray, " n_runs"],
    tested_on: Sequence[object],
    resample: Callable[[Sequence[int], int, np.random.Generator], Float[np.ndarray, "n_drawn n_places"]],
    seed: int,
    n_resamples: int,
) -> tuple[float, float] | None:
    """95 % interval of a mean over runs and test images, as `mean_delta_interval` describes it.

    Parameters
    ----------
    centres : float array [n_runs]
        The number of every run, two runs at least.
    tested_on : sequence of n_runs objects
        Equal for runs that were tested on the same images; None: on others than all other runs.
    resample : function of places of runs, a number of resamples, and a generator
        Numbers [n_resamples, n_places] of these runs in resamples of the images they share.
    seed, n_resamples : int

    Returns
    -------
    tuple of float or None
        Lower and upper end; None if a number is missing.
    """
    if np.isnan(centres).any():
        return None
    rng, n_runs = np.random.default_rng(seed), len(centres)
    groups: dict[object, list[int]] = {}
    for place, key in enumerate(tested_on):
        groups.setdefault(place if key is None else key, []).append(place)
    # by resample, place in it, and the run that may be drawn for the place
    noise = np.empty((n_resamples, n_runs, n_runs))
    for places in groups.values():
        alone = len(places) == 1
        drawn = resample(places, n_resamples * (n_runs if alone else 1), rng)
        drawn -= np.nanmean(drawn, axis=0)
        noise[:, :, places] = drawn.reshape(n_resamples, n_runs if alone else 1, len(places))
    chosen = rng.integers(n_runs, size=(n_resamples, n_runs))
    deviations = centres - centres.mean()
    over_seeds = np.sqrt(n_runs / (n_runs - 1)) * deviations[chosen].mean(axis=1)
    over_images = np.nanmean(np.take_along_axis(noise, chosen[:, :, None], axis=2)[:, :, 0], axis=1)
    drawn = over_seeds + over_images
    total = float(np.nanvar(drawn))
    share = float(over_seeds.var()) / total if total > 0 else 0.0
    wider = 1.0
    if share > 0:
        wider = float(stats.t.ppf(ENDS[1], (n_runs - 1) / share**2) / stats.norm.ppf(ENDS[1]))
    low, high = centres.mean() + wider * np.nanquantile(drawn, ENDS)
    return float(low), float(high)


def change_of(change: Change) -> float:
    """Δ itself: the difference of accuracies, or of mean AUROC."""
    if isinstance(change.before, Hits) and isinstance(change.after, Hits):
        return float(change.after.right.mean() - change.before.right.mean())
    once = np.ones((1, len(change.before)), dtype=np.int64)
    return float((resample_auroc(change.after, once) - resample_auroc(change.before, once))[0])


def _resample(
    changes: Sequence[Change], n_resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "n_resamples n_runs"]:
    """Δ of runs that were tested on the same images, in resamples of these images; NaN without AUROC."""
    if all(isinstance(change.before, Hits) for change in changes):
        gained = np.stack([_gained(change) for change in changes], axis=1)
        return resample_hits(gained, (1, -1), n_resamples, rng)
    after, before = [change.after for change in changes], [change.before for change in changes]
    drawn = resample_ranks([*after, *before], n_resamples, rng)
    return drawn[:, : len(changes)] - drawn[:, len(changes) :]


def resample_ranks(
    records: Sequence[PerImage], n_resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "n_resamples n_records"]:
    """Mean AUROC of records of the same images, in the same resamples of these images; NaN without AUROC."""
    found = np.empty((n_resamples, len(records)))
    n_images = len(records[0])
    for part in _chunks(n_resamples, n_images):
        counts = rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=part.stop - part.start)
        for column, record in enumerate(records):
            found[part, column] = resample_auroc(record, counts)
    return found


def resample_hits(
    values: Int[np.ndarray, "n_images n_runs"],
    joined: Sequence[int],
    n_resamples: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "n_resamples n_runs"]:
    """Mean over images in resamples of them, after images with the values `joined` have joined them."""
    n_runs = values.shape[1]
    values = np.concatenate([values, *(np.full((1, n_runs), value) for value in joined)])
    # images of equal values are exchangeable: draw how many of each kind, not which
    kinds, counts = np.unique(values, axis=0, return_counts=True)
    drawn = rng.multinomial(len(values), counts / len(values), size=n_resamples)
    return drawn @ kinds / len(values)


def _gained(change: Change) -> Int[np.ndarray, " n_images"]:
    """1 for an image that is right only after, −1 for one that was right only before, else 0."""
    assert isinstance(change.before, Hits) and isinstance(change.after, Hits)
    return change.after.right.astype(int) - change.before.right.astype(int)


def _chunks(n_resamples: int, n_images: int) -> Iterator[slice]:
    size = max(1, CHUNK // n_images)
    for start in range(0, n_resamples, size):
        yield slice(start, min(start + size, n_resamples))


def resample_auroc(
    images: PerImage, counts: Int[np.ndarray, "n_resamples n_images"]
) -> Float[np.ndarray, " n_resamples"]:
    """Mean AUROC over labels, every image counted as often as it was drawn; NaN where no label has both."""
    assert isinstance(images, Ranks)
    found = np.full((len(counts), images.rank.shape[1]), np.nan)
    for label, (rank, present) in enumerate(zip(images.rank.T, images.present.T, strict=True)):
        order = np.argsort(rank, kind="stable")
        starts = np.flatnonzero(np.diff(rank[order], prepend=-1))
        drawn, there = counts[:, order], present[order]
        with_label = np.add.reduceat(drawn * there, starts, axis=1)
        without = np.add.reduceat(drawn * ~there, starts, axis=1)
        # images without the label that rank lower count 1, those of equal rank 1/2
        beaten = without.cumsum(axis=1) - without / 2
        pairs = with_label.sum(axis=1) * without.sum(axis=1)
        won = (with_label * beaten).sum(axis=1)
        np.divide(won, pairs, out=found[:, label], where=pairs > 0)
    scored = ~np.isnan(found)
    total = np.where(scored, found, 0.0).sum(axis=1)
    n_scored = scored.sum(axis=1)
    return np.divide(total, n_scored, out=np.full(len(counts), np.nan), where=n_scored > 0)
