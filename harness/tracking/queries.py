"""Curves out of MLflow, as pandas tables of means with intervals, for every kind of metric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from harness.measures import (
    STAGES,
    Kind,
)
from harness.storage import (
    InputError,
    user_path,
)
from harness.tracking.curves import (
    SCORED,
    TAGS,
    Where,
    check_values,
    place_columns,
    read_curves,
)
from harness.tracking.mean_curves import (
    APART,
    add_words,
    check_columns,
    describing_measures,
    mean_curves,
)


def query(
    kind: Kind,
    by: Sequence[str] | str | None = None,
    *,
    study: str | None = None,
    measure: str | None = None,
    runs_dir: str | Path = "runs",
    wise_ft: bool = False,
    verdict: str | None = None,
    over: Sequence[str] | str = (),
    where: Sequence[str] | str = (),
) -> pd.DataFrame:
    """Mean, standard deviation, number of values and interval of a kind of metric at every optimizer step.

    Parameters
    ----------
    kind : str
        First part of the metrics' names: ``"rewiring"``, ``"forgetting"``, …
    by : sequence of str, or str with commas, optional
        Columns to keep apart, from those of `metric_curves`; means are over the rest. Default: backbone, and
        roi for metrics of the brain or place for the others. Methods, brains and shifts are kept apart too
        where there are several.
    study : str, optional
        Default: all studies in the store.
    measure : str, optional
        Last part of the metrics' names; ``"layer"`` for the shares of all layers, ``"layer/blocks.3"`` for
        one layer's. Default: ``wasserstein_excess`` for rewiring, else all.
    runs_dir : path
        Folder of the default store; ``MLFLOW_TRACKING_URI`` overrides it.
    wise_ft : bool
        Curves over α of WiSE-FT instead: step is α in percent.
    verdict : str, optional
        Only regions with this verdict at a run's last snapshot: ``"unchanged"``, ``"loss of signal"``,
        ``"reweighted"``, ``"rewired"``; or ``"collapsed"``, all of the runs whose backbone is. Without
        regions in the metric's name, the verdict of the whole brain counts.
    over : sequence of str, or str with commas
        ``method``, ``brain`` or ``shift``, to average over them.
    where : sequence of str, or str with commas
        ``column=value``: only these, such as ``"backbone=mini_clip,roi=V4"``. Values of the same column are
        alternatives.

    Returns
    -------
    DataFrame
        Columns kept apart, then measure, step, mean, std (of the sample; NaN for one value), n, counts, low,
        high, interval and p; for scores and their changes also n_test, the number of test images, the
        smallest where it differs. counts says what n counts, such as ``6 runs (2 tasks, 3 seeds)``. low and
        high are the ends of a 95 % interval over what ``interval`` says: ``test images``, ``refits`` or
        ``subjects`` for the value of one run; ``seeds`` (Student's t) for a mean over runs that differ in
        nothing else. Other means have none. Excesses of rewiring are 0 at step 0, with the interval of one
        more refit. p is that of one run's value, where the metric has one. Without
        ``roi`` in `by`, values are those of the whole brain; without ``subject``, means over subjects. Codes
        of verdicts are also in words, as ``verdict``: ``"rewired"``, or ``"rewired 2, unchanged 1"``.

    Raises
    ------
    InputError
        If a name does not exist, with the nearest; or if there is no store, or no curve of WiSE-FT.
    """
    columns = place_columns(kind)
    by = ["backbone", columns[0]] if by is None else _split(by)
    over = _split(over)
    check_columns(by, (*TAGS, *columns, "measure"))
    check_columns(over, APART)
    kept = _read_where(where, (*TAGS, *columns, "measure", "step"))
    if measure is None and "measure" not in kept:
        measure = STAGES[kind].shown
    curves, n_test = read_curves(
        kind,
        study=study,
        measure=measure,
        runs_dir=user_path(runs_dir),
        interpolated=wise_ft,
        verdict=verdict,
        where={column: values for column, values in kept.items() if column not in ("measure", "step")},
        described=True,
    )
    if kind == "rewiring" and not wise_ft:
        curves = _add_start(curves)
    curves = _choose_measure(curves, measure, kept)
    # several subjects have verdicts of their own and none of their mean
    if kind == "verdict" and "subject" not in by and not (curves["subject"] == "all").any():
        curves = curves.assign(subject="all")
    if kind in SCORED and not wise_ft and len(n_test):
        curves = curves.merge(n_test, on=["study", "run", "place", "step"], how="left")
    table = mean_curves(curves, by, over)
    return add_words(table, curves) if kind == "verdict" else table


def _add_start(curves: pd.DataFrame) -> pd.DataFrame:
    """Add step 0 to excesses over refits of step 0: 0, with the interval of one more refit around the floor.

    That is the interval of the first snapshot after it, moved by its excess.
    """
    keys = [column for column in curves.columns if column not in ("measure", "step", "value")]
    later = curves[curves["step"] > 0]
    first = later[later["step"] == later.groupby(keys)["step"].transform("min")]
    excess = first[first["measure"].str.endswith("_excess")]
    starts = [excess.assign(value=0.0)]
    for end in ("_low", "_high"):
        measured = first[first["measure"].str.endswith(f"_excess{end}")]
        of = measured.assign(excess=_without_ending(measured["measure"], end))
        both = of.merge(
            excess.rename(columns={"measure": "excess"}),
            on=[*keys, "excess", "step"],
            suffixes=("", "_excess"),
        )
        both["value"] -= both["value_excess"]
        starts.append(both[curves.columns])
    added = pd.concat(starts).assign(step=0)
    # runs of other versions may have it
    return pd.concat([curves, added]).drop_duplicates([*keys, "measure", "step"], ignore_index=True)


def _without_ending(words: pd.Series, end: str) -> pd.Series:
    """Remove an ending from words that are categories; missing where no row has the rest."""
    known = words.cat.categories
    codes = known.get_indexer(known.str.removesuffix(end))
    return pd.Series(pd.Categorical.from_codes(codes[words.cat.codes], dtype=words.dtype), words.index)


def _split(names: Sequence[str] | str) -> list[str]:
    parts = names.split(",") if isinstance(names, str) else names
    return [part.strip() for part in parts if part.strip()]


def _read_where(where: Sequence[str] | str, known: Sequence[str]) -> dict[str, set[str]]:
    """Read conditions ``column=value``, before anything is read from the store."""
    kept: dict[str, set[str]] = {}
    for condition in _split(where):
        column, equals, value = (part.strip() for part in condition.partition("="))
        if not (column and equals and value):
            raise InputError(f"where {condition!r}: expected column=value, such as backbone=mini_clip")
        check_columns([column], known)
        if column == "step" and not value.isdecimal():
            raise InputError(f"where step={value}: expected a number of optimizer steps")
        kept.setdefault(column, set()).add(value)
    return kept


def _choose_measure(curves: pd.DataFrame, measure: str | None, kept: Where) -> pd.DataFrame:
    """Keep a measure and what describes its values: ends of intervals, and p."""
    for column in ("measure", "step"):
        if column in kept:
            known = {str(value) for value in curves[column].unique()}
            check_values(column, kept[column], known)
    known = set(curves["measure"].unique())
    chosen = {
        name
        for name in known
        if ("measure" not in kept or name in kept["measure"])
        and (measure is None or measure in (name, name.partition("/")[0]))
    }
    describing = {name for one in chosen for name in describing_measures(one)}
    curves = curves[curves["measure"].isin(chosen | describing)]
    if "step" in kept:
        curves = curves[curves["step"].isin([int(step) for step in kept["step"]])]
    # a row that only describes another gets no line, unless it was asked for
    describing -= {measure} | set(kept.get("measure", ()))
    return curves.assign(describes=curves["measure"].isin(describing)).reset_index(drop=True)
