"""From single trials, session by session, to one row per stimulus: standardise and average.

Memory holds one session of the masked voxels beside the result. A voxel that is constant or not finite in any
session is dropped: data sets have zeros or NaN outside the field of view.
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
"""Share of voxels without signal above which a session counts as damaged, not merely cropped."""


@dataclass(frozen=True)
class Rows:
    """Assignment of trials to the rows of the result.

    Attributes
    ----------
    of_session : tuple of int array [n_trials]
        Per session, the row of every trial.
    pictures : int array [n_images]
        Image of each row.
    n_repeats : int array [n_images]
        Number of trials averaged in each row.
    session : int array [n_images] or None
        Session of each row; None if any row averages over several.
    """

    of_session: tuple[Int[np.ndarray, " _"], ...]
    pictures: Int[np.ndarray, " n_images"]
    n_repeats: Int[np.ndarray, " n_images"]
    session: Int[np.ndarray, " n_images"] | None


@dataclass(frozen=True)
class Averaged:
    """Averaged responses and variances.

    Attributes
    ----------
    responses : float32 array [n_images, n_usable]
    usable : bool array [n_voxels]
        Voxels that vary and are finite in all sessions: the columns of `responses`.
    noise_variance : float array [n_usable]
        Variance of single trials over the repeats of an image, pooled over images; NaN without repeats.
    total_variance : float array [n_usable]
        Variance of single trials over all trials.
    n_degrees : int
        Degrees of freedom of the noise variance: trials minus images.
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
    """Assign trials to rows.

    Parameters
    ----------
    sessions : sequence of int array [n_trials]
        Per session, the image of every trial.
    numbers : sequence of int
        Session numbers.
    average : str
        ``"stimulus"`` averages all trials of an image, ``"session"`` those within a session, ``"none"`` keeps
        single trials. Rows are sorted by image, by session and image, or by time.
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
    """Average the trials of all sessions into rows.

    Parameters
    ----------
    sessions : iterable of (str, float32 array [n_trials, n_voxels])
        Name of a session, for messages, and its responses, in the order of `rows`. They are changed in place,
        and the next session may reuse their memory.
    rows : Rows
    n_voxels : int
    standardise : bool
        Whether to scale each voxel to mean 0 and variance 1 (ddof 1) within every session.

    Raises
    ------
    InputError
        If more than half of the voxels have no signal in a session, or no voxel has signal in all sessions.
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
                f"{name}: {lost} of {n_voxels} voxels are constant or not finite, and {usable.sum()} have "
                "signal in all sessions; expected at most half lost in a session and one or more left"
            )
        # one by one: indexed addition would lose the second trial of an image within a session
        for place, response in zip(row, responses, strict=True):
            total[place] += response
        squares += np.einsum("tv,tv->v", responses, responses, dtype=np.float64)
        sums += responses.sum(axis=0, dtype=np.float64)
    total /= rows.n_repeats[:, None].astype(np.float32)
    if not usable.all():
        log.warning(
            "warning: %d of %d voxels are constant or not finite in a session and are dropped",
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
    """Standardise a session in place, zero voxels without signal, and return the mask of those with it."""
    low, high = responses.min(axis=0), responses.max(axis=0)
    has_signal = np.isfinite(low) & np.isfinite(high) & (low < high)
    with np.errstate(all="ignore"):  # voxels without signal
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
    """Pool Σ (trial − mean of its image)² = Σ trial² − Σ_images n mean², divided by degrees of freedom."""
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
    """Compute ``values[:, kept]`` in place: rows move forward in the same memory."""
    if kept.all():
        return values
    n_kept, flat = int(kept.sum()), values.reshape(-1)
    for place, row in enumerate(values):
        flat[place * n_kept : (place + 1) * n_kept] = row[kept]
    return flat[: len(values) * n_kept].reshape(len(values), n_kept)
