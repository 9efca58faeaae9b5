"""From single trials, session by session, to one row per stimulus: standardised, averaged, and nothing kept.

One session of the masked voxels is held beside the result. A voxel that is constant or not finite in any
session is no voxel: outside the field of view, a data set has zeros or NaN there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from harness.storage import InputError

log = logging.getLogger(__name__)

LARGEST_LOSS = 0.5
"""Share of voxels without a signal above which a session is damaged, not merely cut off at its edges."""


@dataclass(frozen=True)
class Rows:
    """Which row of the result every trial belongs to.

    Attributes
    ----------
    of_session : tuple of int array [n_trials]
        Row of every trial, per session.
    pictures : int array [n_images]
        Which picture a row is of.
    n_repeats : int array [n_images]
        How many trials a row is the average of.
    session : int array [n_images] or None
        Number of the session a row was measured in; None where one was measured in several.
    """

    of_session: tuple[Int[np.ndarray, " _"], ...]
    pictures: Int[np.ndarray, " n_images"]
    n_repeats: Int[np.ndarray, " n_images"]
    session: Int[np.ndarray, " n_images"] | None


@dataclass(frozen=True)
class Averaged:
    """Responses of rows.

    Attributes
    ----------
    responses : float32 array [n_images, n_usable]
    usable : bool array [n_voxels]
        Voxels that vary and are finite in all sessions: those that the responses have.
    noise_variance : float array [n_usable]
        Of a single trial: variance over the repeats of a picture, pooled over pictures; NaN without repeats.
    total_variance : float array [n_usable]
        Of a single trial, over all trials.
    n_degrees : int
        Trials less pictures: what the noise variance rests on.
    """

    responses: Float[np.ndarray, "n_images n_usable"]
    usable: Bool[np.ndarray, " n_voxels"]
    noise_variance: Float[np.ndarray, " n_usable"]
    total_variance: Float[np.ndarray, " n_usable"]
    n_degrees: int


def plan_rows(
    sessions: Sequence[Int[np.ndarray, " _"]],
    numbers: Sequence[int],
    average: Literal["stimulus", "session", "none"],
) -> Rows:
    """Say which trials are averaged.

    Parameters
    ----------
    sessions : sequence of int array [n_trials]
        Picture of every trial, per session.
    numbers : sequence of int
        Of the sessions.
    average : str
        ``"stimulus"``: all trials of a picture; ``"session"``: those of one session; ``"none"``: each trial
        is a row. Rows are sorted by picture, or by session and picture, or as they were shown.
    """
    pictures = np.concatenate(sessions)
    session = np.repeat(np.asarray(numbers, dtype=np.int64), [len(part) for part in sessions])
    keys = {
        "stimulus": pictures[None],
        "session": np.stack([session, pictures]),
        "none": np.arange(len(pictures))[None],
    }[average]
    _, first, row, counts = np.unique(
        keys, axis=1, return_index=True, return_inverse=True, return_counts=True
    )
    row = row.ravel()
    within = (session == session[first][row]).all()
    ends = np.cumsum([len(part) for part in sessions])
    return Rows(
        of_session=tuple(np.split(row, ends[:-1])),
        pictures=pictures[first],
        n_repeats=counts.astype(np.int64),
        session=session[first] if within else None,
    )


def average_sessions(
    sessions: Iterable[tuple[str, Float[np.ndarray, "_ n_voxels"]]],
    rows: Rows,
    n_voxels: int,
    standardise: bool,
) -> Averaged:
    """Average trials into rows.

    Parameters
    ----------
    sessions : iterable of (str, float32 array [n_trials, n_voxels])
        A session's name, for messages, and its responses, which are changed and may be overwritten by the
        next session's; in the order of `rows`.
    rows : Rows
    n_voxels : int
    standardise : bool
        Whether a voxel has mean 0 and variance 1 (ddof 1) within every session.

    Raises
    ------
    InputError
        If more than half of the voxels of a session, or all voxels over sessions, have no signal.
    """
    total = np.zeros((len(rows.pictures), n_voxels), dtype=np.float32)
    usable = np.ones(n_voxels, dtype=bool)
    squares, sums = np.zeros(n_voxels), np.zeros(n_voxels)
    for (name, responses), row in zip(sessions, rows.of_session, strict=True):
        has_signal = prepare_session(responses, standardise)
        usable &= has_signal
        lost = int((~has_signal).sum())
        if lost > LARGEST_LOSS * n_voxels or not usable.any():
            raise InputError(
                f"{name}: {lost} of {n_voxels} voxels are constant or not finite, which leaves "
                f"{usable.sum()} that have a signal in all sessions; accepted: at most half of them, "
                "and one left over"
            )
        # one by one: adding to chosen rows at once would lose a picture's second trial of a session
        for place, response in zip(row, responses, strict=True):
            total[place] += response
        squares += np.einsum("tv,tv->v", responses, responses, dtype=np.float64)
        sums += responses.sum(axis=0, dtype=np.float64)
    total /= rows.n_repeats[:, None].astype(np.float32)
    if not usable.all():
        log.warning(
            "warning: %d of %d voxels are constant or not finite in a session, and left out",
            (~usable).sum(),
            n_voxels,
        )
    n_trials = int(rows.n_repeats.sum())
    noise, degrees = _pool_noise(total, rows, squares)
    variance = (squares - sums**2 / n_trials) / max(n_trials - 1, 1)
    return Averaged(_drop_columns(total, usable), usable, noise[usable], variance[usable], degrees)


def prepare_session(
    responses: Float[np.ndarray, "n_trials n_voxels"], standardise: bool
) -> Bool[np.ndarray, " n_voxels"]:
    """Standardise a session in place, set voxels without a signal to zero, and say which have one."""
    low, high = responses.min(axis=0), responses.max(axis=0)
    has_signal = np.isfinite(low) & np.isfinite(high) & (low < high)
    with np.errstate(all="ignore"):  # of voxels without a signal
        if standardise:
            responses -= responses.mean(axis=0, dtype=np.float64)
        squares = np.einsum("tv,tv->v", responses, responses, dtype=np.float64)
        deviation = np.sqrt(squares / max(len(responses) - 1, 1))
        has_signal &= np.isfinite(deviation) & (deviation > 0)
        if standardise:
            responses /= deviation
    responses[:, ~has_signal] = 0
    return has_signal


def _pool_noise(
    average: Float[np.ndarray, "n_images n_voxels"], rows: Rows, squares: Float[np.ndarray, " n_voxels"]
) -> tuple[Float[np.ndarray, " n_voxels"], int]:
    """Σ (trial − its picture's mean)² = Σ trial² − Σ over pictures n mean²; divided by degrees of freedom."""
    order = np.argsort(rows.pictures, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(rows.pictures[order])) + 1)
    degrees = int(rows.n_repeats.sum()) - len(groups)
    if not degrees:
        return np.full(len(squares), np.nan), 0
    explained = np.zeros(len(squares))
    for group in groups:
        counts = rows.n_repeats[group]
        explained += (counts @ average[group].astype(np.float64)) ** 2 / counts.sum()
    return np.maximum(squares - explained, 0) / degrees, degrees


def _drop_columns(
    values: Float[np.ndarray, "n_images n_voxels"], kept: Bool[np.ndarray, " n_voxels"]
) -> Float[np.ndarray, "n_images n_kept"]:
    """``values[:, kept]`` without a second array as large: rows move forward in the same memory."""
    if kept.all():
        return values
    n_kept, flat = int(kept.sum()), values.reshape(-1)
    for place, row in enumerate(values):
        flat[place * n_kept : (place + 1) * n_kept] = row[kept]
    return flat[: len(values) * n_kept].reshape(len(values), n_kept)
