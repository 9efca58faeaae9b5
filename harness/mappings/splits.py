"""Which stimuli a mapping is fitted on, and which it is only scored on: never one picture on both sides.

Rows of equal stimulus id show one picture and stay together: drawn row by row, a mapping would be scored on
pictures that it was fitted on. (scikit-learn's group splitters would do so for a draw by seed, though with
another draw than runs had so far, and not for sessions that share pictures.)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

from harness.brains import Brain
from harness.config import MappingConfig
from harness.mappings.held_out_list import (
    find_listed,
    read_list,
)
from harness.storage import (
    InputError,
    content_hash,
    read_json,
    write_json,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Which rows are fitted on and which are only scored on.

    Attributes
    ----------
    train, held_out : int array [n_train], [n_held_out]
        Sorted, disjoint. A row may be in neither.
    picture : int array [n_images] or None
        Number of the picture that a row shows; no number is on both sides. None: every row shows its own.
    """

    train: Int[np.ndarray, " n_train"]
    held_out: Int[np.ndarray, " n_held_out"]
    picture: Int[np.ndarray, " n_images"] | None = None

    def shown_in(self, rows: Int[np.ndarray, " n_rows"]) -> Int[np.ndarray, " n_rows"]:
        """Number of the picture that each of some rows shows."""
        return rows if self.picture is None else self.picture[rows]


def split_brain(brain: Brain, config: MappingConfig, seed: int) -> Split:
    """Split a brain's rows as `config.held_out_by` says.

    Raises
    ------
    InputError
        If the brain does not know what is asked for, fewer than two rows would be left on either side, or
        the list of held-out stimuli is broken or names any that is not there.
    """
    picture = number_pictures(brain.stimulus_ids)
    kind, share = config.held_out_by, config.held_out
    if kind == "session":
        return split_by_session(picture, _known(brain, kind, brain.session), share, seed)
    if kind == "shared":
        shared = _known(brain, kind, brain.shared)
        return _hold_out(picture, shared, "mapping.held_out_by: the pictures that all subjects saw")
    if kind == "list":
        assert config.held_out_list is not None  # the configuration is checked for it
        return split_by_list(brain.stimulus_ids, Path(config.held_out_list).expanduser())
    return split_by_seed(picture, share, seed)


def _known(brain: Brain, kind: str, rows: np.ndarray | None) -> np.ndarray:
    if rows is None:
        hints = {"session": "; rows may average over sessions, see brain.average"}
        what = {"session": "in which session a row was measured", "shared": "which pictures all subjects saw"}
        raise InputError(
            f"mapping.held_out_by: found {kind}, but of brain {brain.name} it is not known {what[kind]}; "
            "accepted: seed, list" + hints.get(kind, "")
        )
    return rows


def number_pictures(stimulus_ids: Shaped[np.ndarray, " n_images"]) -> Int[np.ndarray, " n_images"]:
    """Numbers of the pictures that rows show, counted as they first appear."""
    _, first, same = np.unique(stimulus_ids, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[same]


def split_stimuli(n_images: int, fraction_held_out: float, seed: int) -> Split:
    """Draw the held-out stimuli, each row being of its own picture; as `split_by_seed`."""
    return split_by_seed(np.arange(n_images), fraction_held_out, seed)


def split_by_seed(picture: Int[np.ndarray, " n_images"], fraction_held_out: float, seed: int) -> Split:
    """Draw the pictures that are held out, with all their rows.

    Parameters
    ----------
    picture : int array [n_images]
        From `number_pictures`.
    fraction_held_out : float
        Of the pictures.
    seed : int

    Raises
    ------
    InputError
        If fewer than two pictures would be left on either side.
    """
    n_pictures = int(picture.max(initial=-1)) + 1
    n_held_out = round(n_pictures * fraction_held_out)
    if n_held_out < 2 or n_pictures - n_held_out < 2:
        raise InputError(
            f"mapping.held_out: {fraction_held_out} of {n_pictures} stimuli leaves "
            f"{n_pictures - n_held_out} to fit on and {n_held_out} to score on; at least 2 of each are needed"
        )
    order = np.random.default_rng(seed).permutation(n_pictures)
    return _hold_out(picture, np.isin(picture, order[:n_held_out]), "mapping.held_out")


def split_by_session(
    picture: Int[np.ndarray, " n_images"],
    session: Int[np.ndarray, " n_images"],
    fraction_held_out: float,
    seed: int,
) -> Split:
    """Draw whole sessions that are held out.

    What is scored on is of other sessions than what is fitted on, and of other pictures: rows of the
    remaining sessions that show a held-out picture are left out of both, which is logged.

    Raises
    ------
    InputError
        If no session, or fewer than two rows, would be left on either side.
    """
    sessions = np.unique(session)
    n_held_out = round(len(sessions) * fraction_held_out)
    if not 0 < n_held_out < len(sessions):
        raise InputError(
            f"mapping.held_out: {fraction_held_out} of {len(sessions)} sessions leaves "
            f"{len(sessions) - n_held_out} to fit on and {n_held_out} to score on; 1 of each is needed"
        )
    drawn = np.random.default_rng(seed).permutation(sessions)[:n_held_out]
    held_out = np.isin(session, drawn)
    again = ~held_out & np.isin(picture, picture[held_out])
    if again.any():
        log.warning(
            "warning: %d of %d rows show a picture of a held-out session in another one: they are neither "
            "fitted nor scored on",
            again.sum(),
            len(again),
        )
    return _sides(picture, ~held_out & ~again, held_out, "mapping.held_out: by session")


def split_by_list(stimulus_ids: Shaped[np.ndarray, " n_images"], path: Path) -> Split:
    """Hold out what a file lists, with all other rows of these pictures.

    A text file has one stimulus id a line. A JSON file has a list of ids, or ``{"ids": […]}``, or
    ``{"indices": […]}``, which are rows counted from 0, or is the ``split.json`` of a run.

    Raises
    ------
    InputError
        If the file is missing or broken, names what is not there, or leaves fewer than two rows on a side.
    """
    picture = number_pictures(stimulus_ids)
    content = read_list(path)
    if isinstance(content, dict) and set(content) >= {"train", "held_out"}:
        return load_split(path, stimulus_ids)
    held_out = find_listed(content, stimulus_ids, path)
    together = np.isin(picture, picture[held_out])
    if (together != held_out).any():
        log.warning(
            "warning: %s: %d more rows show a picture that is listed, and are held out too",
            path,
            (together & ~held_out).sum(),
        )
    return _hold_out(picture, together, str(path))


def _hold_out(
    picture: Int[np.ndarray, " n_images"], held_out: Bool[np.ndarray, " n_images"], setting: str
) -> Split:
    """Hold out some rows and all others of their pictures, fit on the rest."""
    held_out = np.isin(picture, picture[held_out])
    return _sides(picture, ~held_out, held_out, setting)


def _sides(
    picture: Int[np.ndarray, " n_images"],
    train: Bool[np.ndarray, " n_images"],
    held_out: Bool[np.ndarray, " n_images"],
    setting: str,
) -> Split:
    if min(train.sum(), held_out.sum()) < 2:
        raise InputError(
            f"{setting}: this leaves {train.sum()} rows to fit on and {held_out.sum()} to score on; at least "
            "2 of each are needed"
        )
    return Split(np.flatnonzero(train), np.flatnonzero(held_out), picture)


def save_split(split: Split, path: Path, stimulus_ids: Shaped[np.ndarray, " n_images"] | None = None) -> None:
    """Write a split as JSON, with a hash of the stimuli that it is of, if they are given."""
    content: dict[str, Any] = {"train": split.train.tolist(), "held_out": split.held_out.tolist()}
    if stimulus_ids is not None:
        content["stimuli"] = _hash_ids(stimulus_ids.tolist())
    write_json(path, content)


def load_split(path: Path, stimulus_ids: Shaped[np.ndarray, " n_images"] | None = None) -> Split:
    """Read a split.

    Parameters
    ----------
    path : Path
    stimulus_ids : int or str array [n_images], optional
        Of the brain that it is to be used with, to check that it was made for these.

    Raises
    ------
    InputError
        If the file is missing, holds no split, is of other stimuli, or has one on both sides.
    """
    content = read_json(path)
    try:
        parts = {name: np.array(content[name]) for name in ("train", "held_out")}
        whole = all(part.ndim == 1 and part.dtype.kind == "i" and part.min() >= 0 for part in parts.values())
    except (KeyError, TypeError, ValueError, OverflowError):
        whole = False
    if not whole or np.intersect1d(parts["train"], parts["held_out"]).size:
        raise InputError(
            f"{path}: not a split; expected disjoint lists of stimulus indices 'train' and 'held_out'"
        )
    if stimulus_ids is None:
        return Split(**parts)
    picture = number_pictures(stimulus_ids)
    last = max(part.max() for part in parts.values())
    expected = _hash_ids(stimulus_ids.tolist())
    if last >= len(picture) or content.get("stimuli", expected) != expected:
        raise InputError(
            f"{path}: made for other stimuli than the {len(picture)} that the brain has now; accepted: the "
            "data that it was made for, or a folder without it, where a new one is drawn"
        )
    if np.intersect1d(picture[parts["train"]], picture[parts["held_out"]]).size:
        raise InputError(f"{path}: not a split; a picture is shown in rows of 'train' and of 'held_out'")
    return Split(**{name: np.unique(part) for name, part in parts.items()}, picture=picture)


def _hash_ids(ids: Sequence[int | str]) -> str:
    return content_hash(list(ids))
