"""Every value of a kind of metric out of MLflow, one per row, with what its run and its name say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pandas as pd

from harness.measures import (
    STAGES,
    VERDICTS,
    Kind,
    MetricName,
    name_verdict,
    split_name,
)
from harness.storage import (
    InputError,
    unknown_name,
)
from harness.tracking.mean_curves import (
    check_columns,
    describing_measures,
)
from harness.tracking.store.connection import tracking_uri
from harness.tracking.store.histories import read_histories

TAGS = {"study": "study", "run": "palimpsest.run"} | {
    tag: tag for tag in ("backbone", "objective", "task", "method", "brain", "seed")
}

SCORED = ("task", "probe", "forgetting")
"""Kinds whose values are scores on test images, or changes of them."""

COLLAPSED = "collapsed"
JUDGEMENTS = (*VERDICTS, COLLAPSED)
"""What curves can be chosen by."""

Where = Mapping[str, Collection[str]]
"""Column → values to keep."""


class _Rows(NamedTuple):
    """Rows of many runs as numbers: a million rows have few names and runs.

    Attributes
    ----------
    names : list of MetricName
    tags : list of dict
        Of every run.
    name, run : int array [n_rows]
        Places in `names` and `tags`.
    step : int array [n_rows]
    value : float array [n_rows]
    """

    names: list[MetricName]
    tags: list[dict[str, str]]
    name: np.ndarray
    run: np.ndarray
    step: np.ndarray
    value: np.ndarray


def metric_curves(
    kind: Kind,
    *,
    study: str | None = None,
    measure: str | None = None,
    runs_dir: Path = Path("runs"),
    interpolated: bool = False,
    verdict: str | None = None,
    where: Where | None = None,
) -> pd.DataFrame:
    """Every value of a kind of metric, one per row; parameters and errors as for `query`.

    Parameters
    ----------
    where : mapping of str to str values, optional
        Columns of runs and places → values to keep.

    Returns
    -------
    DataFrame
        Columns study, run, backbone, objective, task, method, brain, seed; ``roi`` and ``subject`` for
        metrics of the brain, ``place`` (and ``shift``) for the others, ``"all"`` for the whole; measure,
        step, value. Sorted, index 0, 1, …. With several subjects, subject ``"all"`` is their mean; a run's
        only subject is ``"all"`` too.
    """
    curves, _ = read_curves(
        kind,
        study=study,
        measure=measure,
        runs_dir=runs_dir,
        interpolated=interpolated,
        verdict=verdict,
        where=where,
    )
    return curves.astype({column: "str" for column in curves.select_dtypes("category")})


def read_curves(
    kind: Kind,
    *,
    study: str | None = None,
    measure: str | None = None,
    runs_dir: Path = Path("runs"),
    interpolated: bool = False,
    verdict: str | None = None,
    where: Where | None = None,
    described: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read `metric_curves` with words as categories, in their order, and numbers of test images beside them.

    Parameters
    ----------
    described : bool
        Whether the ends of the measure's intervals, its p, and for scores the numbers of test images are
        included.

    Returns
    -------
    curves : DataFrame
        As of `metric_curves`.
    n_test : DataFrame
        Columns study, run, place, step, n_test; runs of older versions have no such rows.
    """
    places = place_columns(kind)
    where = where or {}
    check_columns(list(where), (*TAGS, *places))
    if verdict is not None and verdict not in JUDGEMENTS:
        raise unknown_name("verdict", verdict, JUDGEMENTS)
    seen: dict[str, set[str]] = {column: set() for column in where}

    def chosen(tags: Mapping[str, str]) -> bool:
        own = {column: tags.get(TAGS[column], "") for column in where if column in TAGS}
        for column, value in own.items():
            seen[column].add(value)
        return all(value in where[column] for column, value in own.items())

    measures: set[str] = set()
    describing = describing_measures(measure) if described and measure is not None else {}
    counted = described and kind in SCORED

    @cache
    def is_own(parts: MetricName) -> bool:
        if (parts.stage, parts.interpolated) != (kind, interpolated):
            return False
        # "layer" stands for the shares of all layers
        names = {parts.measure, parts.measure.partition("/")[0]}
        measures.update(names)
        return measure is None or measure in names or parts.measure in describing

    def wanted(name: str) -> bool:
        parts = split_name(name)
        judges = verdict is not None and _is_verdict(parts)
        return is_own(parts) or judges or (counted and _is_count(parts))

    rows = _read_rows(tracking_uri(runs_dir), study, wanted, chosen)
    for column, values in seen.items():
        if column in TAGS:
            check_values(column, where[column], values)
    own = np.array([is_own(parts) for parts in rows.names], dtype=bool)[rows.name]
    if verdict is not None:
        own &= _judge(rows, verdict, by_region="roi" in places)
    curves = _describe(rows, own, places)
    for column in places:
        if column in where:
            check_values(column, where[column], set(curves[column].unique()))
            curves = curves[curves[column].isin(where[column])]
    if interpolated and not measures:
        raise InputError(f"{kind} of WiSE-FT: found no curve, expected runs measured by palimpsest wise-ft")
    if measure is not None and measure not in measures:
        raise unknown_name(f"measure of {kind}", measure, measures)
    counts = np.array([counted and _is_count(parts) for parts in rows.names], dtype=bool)[rows.name]
    n_test = _describe(rows, counts, ("place",)).rename(columns={"value": "n_test"})
    curves = curves.sort_values([*TAGS, *places, "measure", "step"], ignore_index=True)
    return curves, n_test[["study", "run", "place", "step", "n_test"]]


def _read_rows(
    uri: str,
    study: str | None,
    wanted: Callable[[str], bool],
    chosen: Callable[[Mapping[str, str]], bool],
) -> _Rows:
    places: dict[str, int] = {}
    tags, columns = [], []
    for run, (own, rows) in enumerate(read_histories(uri, study, wanted, chosen)):
        tags.append(own)
        names = rows["name"].astype("category").array
        codes = np.array([places.setdefault(name, len(places)) for name in names.categories], dtype=np.int64)
        name = codes[names.codes]
        columns.append((name, np.full_like(name, run), rows["step"].to_numpy(), rows["value"].to_numpy()))
    name, run_of, step, value = (
        np.concatenate([np.empty(0, kind), *parts]).astype(kind)
        for kind, *parts in zip((np.int64, np.int64, np.int64, np.float64), *columns, strict=True)
    )
    return _Rows([split_name(name) for name in places], tags, name, run_of, step, value)


def _describe(rows: _Rows, own: np.ndarray, places: Sequence[str]) -> pd.DataFrame:
    """Write out what the tags and names of some rows say, in categories that are all rows'."""
    name, run = rows.name[own], rows.run[own]
    words: dict[str, pd.Categorical] = {
        column: _spread([tags.get(tag, "") for tags in rows.tags], run) for column, tag in TAGS.items()
    }
    for index, column in enumerate(places):
        words[column] = _spread([_where(parts)[index] for parts in rows.names], name)
    words["measure"] = _spread([parts.measure for parts in rows.names], name)
    return pd.DataFrame({**words, "step": rows.step[own], "value": rows.value[own]})


def _spread(words: Sequence[str], places: np.ndarray) -> pd.Categorical:
    """Give every row its word; categories are in the order of words."""
    known = sorted(set(words))
    codes = {word: code for code, word in enumerate(known)}
    own = np.array([codes[word] for word in words], dtype=np.int64)
    return pd.Categorical.from_codes(own[places], categories=pd.Index(known, dtype="str"))


def _judge(rows: _Rows, verdict: str, by_region: bool) -> np.ndarray:
    """Find the rows of the regions that have this verdict at their run's last snapshot; a collapse is of all.

    Metrics without a region follow the verdict of the whole brain.
    """
    judging = np.array([_is_verdict(parts) for parts in rows.names], dtype=bool)[rows.name].nonzero()[0]
    last: dict[int, int] = {}
    for place in judging:
        run = int(rows.run[place])
        last[run] = max(last.get(run, 0), int(rows.step[place]))
    judged: dict[int, set[tuple[str, str]]] = {}
    whole = set()
    for place in judging:
        run, parts, value = int(rows.run[place]), rows.names[rows.name[place]], float(rows.value[place])
        if rows.step[place] != last[run]:
            continue
        if parts.stage == "collapse":
            if verdict == COLLAPSED and value:
                whole.add(run)
        elif name_verdict(value) == verdict:
            # the mean over subjects is shown where any of them has the verdict
            judged.setdefault(run, set()).update(
                {(parts.place, parts.subject or "all"), (parts.place, "all")}
            )
    pairs = [(parts.place, parts.subject or "all") if by_region else ("all", "all") for parts in rows.names]
    kept = np.zeros((len(rows.tags), len(rows.names)), dtype=bool)
    for run, found in judged.items():
        kept[run] = [pair in found for pair in pairs]
    kept[sorted(whole)] = True
    return kept[rows.run, rows.name]


def _where(parts: MetricName) -> tuple[str, str]:
    """Place of a metric, and its shift or subject: values of `place_columns`."""
    return parts.place, parts.shift or parts.subject or "all"


def _is_verdict(parts: MetricName) -> bool:
    return not parts.interpolated and (parts.stage, parts.measure) in (
        ("verdict", "kind"),
        ("collapse", COLLAPSED),
    )


def _is_count(parts: MetricName) -> bool:
    """Whether a metric is a number of test images."""
    return not parts.interpolated and (parts.stage, parts.measure) == ("probe", "n_test")


def check_values(column: str, values: Collection[str], known: Collection[str]) -> None:
    """Raise an `InputError` that names the first value which is none of the `known`."""
    for value in sorted(values):
        if value not in known:
            raise unknown_name(column, value, known)


def place_columns(kind: Kind) -> tuple[str, ...]:
    """Columns that say where: ROI and subject for metrics of the brain, else place; also the shift."""
    if kind not in STAGES:
        raise unknown_name("kind of metric", kind, get_args(Kind))
    if kind == "shift":
        return ("place", "shift")
    return ("roi", "subject") if STAGES[kind].of_brain else ("place",)
