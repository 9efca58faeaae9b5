"""Files that list the stimuli to hold out, by id or by row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from harness.storage import (
    InputError,
    read_json,
    refuse_endless,
    unknown_name,
)


def read_list(path: Path) -> Any:
    """Read a list from JSON or from lines of text; an `InputError` names a file that is neither."""
    refuse_endless(path)
    if path.suffix.lower() == ".json":
        return read_json(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable text file ({error})") from None
    return [line.strip() for line in lines if line.strip()]


def find_listed(
    content: Any, stimulus_ids: Shaped[np.ndarray, " n_images"], path: Path
) -> Bool[np.ndarray, " n_images"]:
    """Find the listed rows.

    Parameters
    ----------
    content : list of ids, or dict with "ids" or with "indices"
        From `read_list`; indices are rows from 0.
    stimulus_ids : int or str array [n_images]
        Of the brain.
    path : Path
        For messages.

    Raises
    ------
    InputError
        If the content is none of these, or names unknown stimuli.
    """
    if isinstance(content, dict) and set(content) == {"indices"}:
        rows = _check_rows(content["indices"], len(stimulus_ids), path)
        return np.isin(np.arange(len(stimulus_ids)), rows)
    ids = content["ids"] if isinstance(content, dict) and set(content) == {"ids"} else content
    return np.isin(stimulus_ids, _check_ids(ids, stimulus_ids, path))


def _check_ids(ids: Any, known: Shaped[np.ndarray, " n_images"], path: Path) -> list[Any]:
    """Convert listed ids to the type of the brain's, and check that they exist."""
    if not isinstance(ids, list) or not ids or not all(type(one) in (int, str) for one in ids):
        raise InputError(
            f'{path}: expected a list of ids, {{"ids": […]}}, {{"indices": […]}} or the split.json of a run'
        )
    there = set(known.tolist())
    if known.dtype.kind == "U":
        listed: list[Any] = [str(one) for one in ids]
    else:
        number = re.compile(r"-?\d{1,18}")
        listed = [int(one) if number.fullmatch(str(one)) else one for one in ids]
    missing = [one for one in listed if one not in there]
    if missing and known.dtype.kind == "U":
        raise InputError(f"{path}: {unknown_name('stimulus', missing[0], there)}")
    if missing:
        shifted = all(isinstance(one, int) and one - 1 in there for one in listed)
        hint = "; the ids seem to count from 1, the brain's count from 0" if shifted else ""
        some = ", ".join(map(str, known[:3].tolist()))
        raise InputError(f"{path}: found {missing[0]}, expected ids of stimuli, such as {some}{hint}")
    return listed


def _check_rows(rows: Any, n_images: int, path: Path) -> list[int]:
    if not isinstance(rows, list) or not rows or not all(type(row) is int for row in rows):
        raise InputError(f"{path}: expected a list of integers for indices")
    if min(rows) < 0 or max(rows) >= n_images:
        hint = "; they seem to count from 1" if min(rows) > 0 and max(rows) == n_images else ""
        raise InputError(
            f"{path}: found indices {min(rows)} to {max(rows)}, expected 0 to {n_images - 1}{hint}"
        )
    return rows
