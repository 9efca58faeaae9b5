"""Curves out of MLflow, as pandas tables: rewiring, forgetting and every other kind of metric.

`query` gives means, `metric_curves` every value. Both work without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pandas as pd

from harness.measures import (
    STAGES,
    VERDICTS,
    Kind,
    name_verdict,
    split_name,
)
from harness.runs import Row
from harness.storage import (
    InputError,
    unknown_name,
)
from harness.tracking.mlflow_store import (
    read_histories,
    tracking_uri,
)

TAGS = {"study": "study", "run": "palimpsest.run"} | {
    tag: tag for tag in ("backbone", "objective", "task", "method", "brain", "seed")
}

APART = ("method", "brain")
"""Columns whose values are averaged only on request: their means would say nothing about either."""
COUNTED = ("run", "study", "backbone", "task", "method", "brain", "seed", "place")
SCORED = ("task", "probe", "forgetting")
"""Kinds whose values are scores on test images, or changes of them."""
NOT_AVERAGED = r"_(?:low|high|p|p_fdr)$"


STATISTICS = ("mean", "std", "n", "counts", "n_test")

COLLAPSED = "collapsed"
JUDGEMENTS = (*VERDICTS, COLLAPSED)
"""What `query` can choose regions by."""


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
) -> pd.DataFrame:
    """Mean, standard deviation and number of values of a kind of metric at every optimizer step.

    Parameters
    ----------
    kind : str
        First part of the metrics' names: ``"rewiring"``, ``"forgetting"``, …
    by : sequence of str, or str with commas, optional
        Columns to keep apart, from those of `metric_curves`; means are over the rest. Default: backbone, and
        roi for metrics of the brain or place for the others. Methods and brains are kept apart too where
        there are several.
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
        ``method`` or ``brain``, to average over them.

    Returns
    -------
    DataFrame
        Columns kept apart, then measure, step, mean, std (of the sample; NaN for one value), n, and counts:
        what n counts, such as ``6 runs (2 tasks, 3 seeds)``; for scores and their changes also n_test, the
        number of test images, the smallest where it differs. Without ``roi`` in `by`, values are those of the
        whole brain; without ``subject``, means over subjects. Ends of intervals and p values are never
        averaged: they have rows only where n is 1. Codes of verdicts are also in words, as ``verdict``:
        ``"rewired"``, or ``"rewired 2, unchanged 1"``.

    Raises
    ------
    InputError
        If a name does not exist, with the nearest; or if there is no store, or no curve of WiSE-FT.
    """
    columns = place_columns(kind)
    if by is None:
        by = ["backbone", columns[0]]
    elif isinstance(by, str):
        by = [column.strip() for column in by.split(",")]
    if isinstance(over, str):
        over = [column.strip() for column in over.split(",")]
    _check_columns(by, (*TAGS, *columns, "measure"))
    _check_columns(over, APART)
    measure = measure or STAGES[kind].shown
    curves = metric_curves(
        kind,
        study=study,
        measure=measure,
        runs_dir=Path(runs_dir),
        interpolated=wise_ft,
        verdict=verdict,
    )
    # several subjects have verdicts of their own and none of their mean
    if kind == "verdict" and "subject" not in by and not (curves["subject"] == "all").any():
        curves = curves.assign(subject="all")
    if kind in SCORED and not wise_ft:
        curves = _add_images(curves, study, Path(runs_dir))
    table = mean_curves(curves, by, over)
    return _add_words(table, curves) if kind == "verdict" else table


def _add_images(curves: pd.DataFrame, study: str | None, runs_dir: Path) -> pd.DataFrame:
    """Add a column n_test, the number of test images; runs of older versions have no such rows."""
    try:
        counts = metric_curves("probe", study=study, measure="n_test", runs_dir=runs_dir)
    except InputError:
        return curves
    keys = ["study", "run", "place", "step"]
    found = counts[[*keys, "value"]].rename(columns={"value": "n_test"})
    return curves.merge(found, on=keys, how="left")


def metric_curves(
    kind: Kind,
    *,
    study: str | None = None,
    measure: str | None = None,
    runs_dir: Path = Path("runs"),
    interpolated: bool = False,
    verdict: str | None = None,
) -> pd.DataFrame:
    """Every value of a kind of metric, one per row; parameters and errors as for `query`.

    Returns
    -------
    DataFrame
        Columns study, run, backbone, objective, task, method, brain, seed; ``roi`` and ``subject`` for
        metrics of the brain, ``place`` for the others, ``"all"`` for the whole; measure, step, value. Sorted,
        index 0, 1, …. With several subjects, subject ``"all"`` is their mean; a run's only subject is
        ``"all"`` too.
    """
    places = place_columns(kind)
    if verdict is not None and verdict not in JUDGEMENTS:
        raise unknown_name("verdict", verdict, JUDGEMENTS)
    records = []
    measures = set()

    def wanted(name: str) -> bool:
        parts = split_name(name)
        judging = verdict is not None and _is_verdict(name)
        if (parts.stage, parts.interpolated) != (kind, interpolated):
            return judging
        # "layer" stands for the shares of all layers
        own = {parts.measure, parts.measure.partition("/")[0]}
        measures.update(own)
        return measure is None or measure in own or judging

    for tags, rows in read_histories(tracking_uri(runs_dir), study, wanted):
        run = {column: tags.get(tag, "") for column, tag in TAGS.items()}
        judged = None if verdict is None else _find_judged(rows, verdict)
        for row in rows:
            parts = split_name(row["name"])
            if (parts.stage, parts.interpolated) != (kind, interpolated):
                continue
            if measure not in (None, parts.measure, parts.measure.partition("/")[0]):
                continue
            found = dict(zip(places, (parts.place, parts.subject or "all"), strict=False))
            if judged is not None and (found.get("roi", "all"), found.get("subject", "all")) not in judged:
                continue
            values = {"measure": parts.measure, "step": row["step"], "value": row["value"]}
            records.append({**run, **found, **values})
    if interpolated and not measures:
        raise InputError(f"{kind} of WiSE-FT: found no curve, expected runs measured by palimpsest wise-ft")
    if measure is not None and measure not in measures:
        raise unknown_name(f"measure of {kind}", measure, measures)
    frame = pd.DataFrame(records, columns=[*TAGS, *places, "measure", "step", "value"])
    frame = frame.astype({"step": "int64", "value": "float64"})
    return frame.sort_values([*TAGS, *places, "measure", "step"], ignore_index=True)


def _is_verdict(name: str) -> bool:
    parts = split_name(name)
    return not parts.interpolated and (parts.stage, parts.measure) in (
        ("verdict", "kind"),
        ("collapse", "collapsed"),
    )


class _Everything:
    """All places and subjects of a run."""

    def __contains__(self, item: object) -> bool:
        return True


def _find_judged(rows: Sequence[Row], verdict: str) -> set[tuple[str, str]] | _Everything:
    """Find the (place, subject) of a run with this verdict at its last snapshot; a collapse is of all."""
    judged = [row for row in rows if _is_verdict(row["name"])]
    last = max((row["step"] for row in judged), default=0)
    found: set[tuple[str, str]] = set()
    for row in judged:
        parts = split_name(row["name"])
        if row["step"] != last:
            continue
        if parts.stage == "collapse":
            if verdict == COLLAPSED and row["value"]:
                return _Everything()
        elif name_verdict(row["value"]) == verdict:
            # the mean over subjects is shown where any of them has the verdict
            found |= {(parts.place, parts.subject or "all"), (parts.place, "all")}
    return found


def _add_words(table: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Add the verdicts behind the means of codes, in words, the strongest first."""
    keys = [column for column in table.columns if column not in STATISTICS]
    chosen = curves[curves["measure"] == "kind"]
    for column in ("roi", "subject"):
        if column not in keys:
            chosen = chosen[chosen[column] == "all"]

    def write(codes: pd.Series) -> str:
        counts = codes.round().astype(int).value_counts().sort_index(ascending=False)
        names = {name_verdict(float(code)): n for code, n in counts.items()}
        return next(iter(names)) if len(names) == 1 else ", ".join(f"{k} {n}" for k, n in names.items())

    if chosen.empty:
        return table
    words = chosen.groupby(keys, as_index=False)["value"].agg(verdict=write)
    return table.merge(words, how="left", on=keys)


def mean_curves(curves: pd.DataFrame, by: Sequence[str], over: Sequence[str] = ()) -> pd.DataFrame:
    """Mean, standard deviation (of the sample; NaN for one value), n and what it counts, by group and step.

    Without ``roi`` in `by`, the whole brain's values (``roi == "all"``) are used: ROIs overlap and differ in
    size, so a mean over them means nothing. The same holds for ``subject``, whose ``"all"`` is the mean over
    subjects. Measures are never mixed; methods and brains only if `over` names them.

    Parameters
    ----------
    curves : DataFrame
        As `metric_curves` returns it, perhaps with a column n_test.
    by : sequence of str
        Columns to keep apart.
    over : sequence of str
        Of ``method`` and ``brain``: those to average over.
    """
    known = [column for column in curves.columns if column not in ("step", "value", "n_test")]
    _check_columns(by, known)
    for column in ("roi", "subject"):
        if column in known and column not in by:
            curves = curves[curves[column] == "all"]
    apart = [
        column
        for column in APART
        if column in known and column not in (*by, *over) and curves[column].nunique() > 1
    ]
    keys = list(dict.fromkeys([*by, *apart, "measure", "step"]))
    grouped = curves.groupby(keys, as_index=False)
    table = grouped["value"].agg(["mean", "std", "count"]).rename(columns={"count": "n"})
    counted = [column for column in COUNTED if column in known and column not in keys]
    different = grouped[counted].nunique() if counted else table[[]]
    table["counts"] = [_say_counts(row) for row in different[counted].to_dict("records")]
    if "n_test" in curves:
        table["n_test"] = grouped["n_test"].min()["n_test"]
    single = ~table["measure"].str.contains(NOT_AVERAGED, regex=True)
    return table[single | (table["n"] == 1)].reset_index(drop=True)


def _say_counts(different: dict[str, int]) -> str:
    """Say what a mean is over: the number of runs, and of whatever differs among them."""
    runs = different.get("run", 1)
    more = [
        f"{n} {column}s" for column, n in different.items() if n > 1 and column not in ("run", "objective")
    ]
    text = f"{runs} run{'s' * (runs != 1)}"
    # "3 studys" is no word
    return (f"{text} ({', '.join(more)})" if more else text).replace("studys", "studies")


def _check_columns(by: Sequence[str], known: Sequence[str]) -> None:
    for column in by:
        if column not in known:
            raise unknown_name("column", column, known)


def place_columns(kind: Kind) -> tuple[str, ...]:
    """Columns that say where: ROI and subject for metrics of the brain, else place."""
    if kind not in STAGES:
        raise unknown_name("kind of metric", kind, get_args(Kind))
    return ("roi", "subject") if STAGES[kind].of_brain else ("place",)
