"""Splits of stimuli into training and held-out ones, never with one picture on both sides.

Rows with the same stimulus id show one picture and stay together; otherwise a mapping would be scored on
pictures that it was fitted on. (scikit-learn's group splitters would do for a draw by seed, though with a
draw that differs from earlier runs', but not for sessions that share pictures.)
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
    user_path,
    write_json,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Rows to fit on and held-out rows to score on.

    Attributes
    ----------
    train, held_out : int array [n_train], [n_held_out]
        Sorted, disjoint. A row may be in neither.
    picture : int array [n_images] or None
        Number of each row's picture; no number is on both sides. None: every row shows a different one.
    """

    train: Int[np.ndarray, " n_train"]
    held_out: Int[np.ndarray, " n_held_out"]
    picture: Int[np.ndarray, " n_images"] | None = None

    def shown_in(self, rows: Int[np.ndarray, " n_rows"]) -> Int[np.ndarray, " n_rows"]:
        """Return the picture numbers of some rows."""
        return rows if self.picture is None else self.picture[rows]


def split_brain(brain: Brain, config: MappingConfig, seed: int) -> Split:
    """Split a brain's rows by `config.held_out_by`.

    Raises
    ------
    InputError
        If the brain lacks sessions or shared stimuli, either side would have fewer than two rows, or the list
        of held-out stimuli is broken or names unknown ones.
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
        return split_by_list(brain.stimulus_ids, user_path(config.held_out_list))
    return split_by_seed(picture, share, seed)


def _known(brain: Brain, kind: str, rows: np.ndarray | None) -> np.ndarray:
    if rows is None:
        hints = {"session": "; rows may average over sessions, see brain.average"}
        what = {"session": "in which session a row was measured", "shared": "which pictures all subjects saw"}
        raise InputError(
            f"mapping.held_out_by: found {kind}, but brain {brain.name} does not say {what[kind]}; "
            "expected seed or list" + hints.get(kind, "")
        )
    return rows


def number_pictures(stimulus_ids: Shaped[np.ndarray, " n_images"]) -> Int[np.ndarray, " n_images"]:
    """Number the rows' pictures in order of first appearance."""
    _, first, same = np.unique(stimulus_ids, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[same]


def split_stimuli(n_images: int, fraction_held_out: float, seed: int) -> Split:
    """Draw held-out stimuli like `split_by_seed`, with a different picture in every row."""
    return split_by_seed(np.arange(n_images), fraction_held_out, seed)


def split_by_seed(picture: Int[np.ndarray, " n_images"], fraction_held_out: float, seed: int) -> Split:
    """Draw held-out pictures, with all their rows.

    Parameters
    ----------
    picture : int array [n_images]
        From `number_pictures`.
    fraction_held_out : float
        Fraction of the pictures.
    seed : int

    Raises
    ------
    InputError
        If either side would have fewer than two pictures.
    """
    n_pictures = int(picture.max(initial=-1)) + 1
    n_held_out = round(n_pictures * fraction_held_out)
    if n_held_out < 2 or n_pictures - n_held_out < 2:
        raise InputError(
            f"mapping.held_out: {fraction_held_out} of {n_pictures} stimuli leaves "
            f"{n_pictures - n_held_out} to fit on and {n_held_out} to score on, expected at least 2 of each"
        )
    order = np.random.default_rng(seed).permutation(n_pictures)
    return _hold_out(picture, np.isin(picture, order[:n_held_out]), "mapping.held_out")


def split_by_session(
    picture: Int[np.ndarray, " n_images"],
    session: Int[np.ndarray, " n_images"],
    fraction_held_out: float,
    seed: int,
) -> Split:
    """Draw held-out sessions.

    Held-out rows differ from training rows in session and in picture: rows of the other sessions that show a
    held-out picture are dropped from both sides, which is logged.

    Raises
    ------
    InputError
        If either side would have no session or fewer than two rows.
    """
    sessions = np.unique(session)
    n_held_out = round(len(sessions) * fraction_held_out)
    if not 0 < n_held_out < len(sessions):
        raise InputError(
            f"mapping.held_out: {fraction_held_out} of {len(sessions)} sessions leaves "
            f"{len(sessions) - n_held_out} to fit on and {n_held_out} to score on, expected at least 1 each"
        )
    drawn = np.random.default_rng(seed).permutation(sessions)[:n_held_out]
    held_out = np.isin(session, drawn)
    again = ~held_out & np.isin(picture, picture[held_out])
    if again.any():
        log.warning(
            "warning: %d of %d rows repeat a picture of a held-out session in another session; they are "
            "neither fitted nor scored on",
            again.sum(),
            len(again),
        )
    return _sides(picture, ~held_out & ~again, held_out, "mapping.held_out: by session")


def split_by_list(stimulus_ids: Shaped[np.ndarray, " n_images"], path: Path) -> Split:
    """Hold out the stimuli that a file lists, with all other rows of these pictures.

    A text file has one stimulus id per line. A JSON file has a list of ids, ``{"ids": […]}``,
    ``{"indices": […]}`` with row indices from 0, or is the ``split.json`` of a run.

    Raises
    ------
    InputError
        If the file is missing or broken, names unknown stimuli, or leaves fewer than two rows on a side.
    """
    picture = number_pictures(stimulus_ids)
    content = read_list(path)
    if isinstance(content, dict) and set(content) >= {"train", "held_out"}:
        return load_split(path, stimulus_ids)
    held_out = find_listed(content, stimulus_ids, path)
    together = np.isin(picture, picture[held_out])
    if (together != held_out).any():
        log.warning(
            "warning: %s: %d more rows show a listed picture and are held out too",
            path,
            (together & ~held_out).sum(),
        )
    return _hold_out(picture, together, str(path))


def _hold_out(
    picture: Int[np.ndarray, " n_images"], held_out: Bool[np.ndarray, " n_images"], setting: str
) -> Split:
    """Hold out some rows and all other rows of their pictures."""
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
            f"{setting}: this leaves {train.sum()} rows to fit on and {held_out.sum()} to score on, expected "
            "at least 2 of each"
        )
    return Split(np.flatnonzero(train), np.flatnonzero(held_out), picture)


def save_split(split: Split, path: Path, stimulus_ids: Shaped[np.ndarray, " n_images"] | None = None) -> None:
    """Write a split as JSON, with a hash of its stimuli if they are given."""
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
        Stimuli of the brain to use it with, to check that it was made for them.

    Raises
    ------
    InputError
        If the file is missing, not a split, made for other stimuli, or has a picture on both sides.
    """
    content = read_json(path)
    try:
        parts = {name: np.array(content[name]) for name in ("train", "held_out")}
        whole = all(part.ndim == 1 and part.dtype.kind == "i" and part.min() >= 0 for part in parts.values())
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole or np.intersect1d(parts["train"], parts["held_out"]).size:
        raise InputError(
            f"{path}: not a split, expected disjoint lists of stimulus indices 'train' and 'held_out'"
        )
    parts = {name: np.unique(part) for name, part in parts.items()}
    if stimulus_ids is None:
        return Split(**parts)
    picture = number_pictures(stimulus_ids)
    last = max(part.max() for part in parts.values())
    expected = _hash_ids(stimulus_ids.tolist())
    if last >= len(picture) or content.get("stimuli", expected) != expected:
        raise InputError(
            f"{path}: made for other stimuli than the brain's {len(picture)}; use the data that it was made "
            "for, or remove the file to draw a new split"
        )
    if np.intersect1d(picture[parts["train"]], picture[parts["held_out"]]).size:
        raise InputError(f"{path}: not a split, a picture is shown in rows of both 'train' and 'held_out'")
    return Split(**parts, picture=picture)


def _hash_ids(ids: Sequence[int | str]) -> str:
    return content_hash(list(ids))
