"""Curves out of MLflow, as pandas tables: rewiring, forgetting and every other kind of metric.

`query` gives means with intervals, `metric_curves` every value. Both work without torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import get_args

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
from harness.tracking.store.connection import tracking_uri
from harness.tracking.store.histories import read_histories

TAGS = {"study": "study", "run": "palimpsest.run"} | {
    tag: tag for tag in ("backbone", "objective", "task", "method", "brain", "seed")
}

APART = ("method", "brain")
"""Columns whose values are averaged only on request: their means would say nothing about either."""
COUNTED = ("run", "study", "backbone", "task", "method", "brain", "seed", "place")
SCORED = ("task", "probe", "forgetting")
"""Kinds whose values are scores on test images, or changes of them."""
NOT_AVERAGED = r"_(?:low|high|p|p_fdr)$"
STATISTICS = ("mean", "std", "n", "counts", "low", "high", "interval", "p", "n_test")

COLLAPSED = "collapsed"
JUDGEMENTS = (*VERDICTS, COLLAPSED)
"""What `query` can choose regions by."""

Where = Mapping[str, Collection[str]]
"""Column → values to keep."""


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
    _check_columns(by, (*TAGS, *columns, "measure"))
    _check_columns(over, APART)
    kept = _read_where(where, (*TAGS, *columns, "measure", "step"))
    measure = measure or STAGES[kind].shown
    curves = metric_curves(
        kind,
        study=study,
        measure=measure,
        runs_dir=Path(runs_dir),
        interpolated=wise_ft,
        verdict=verdict,
        where={column: values for column, values in kept.items() if column not in ("measure", "step")},
        described=True,
    )
    if kind == "rewiring" and not wise_ft:
        curves = _add_start(curves)
    curves = _choose_measure(curves, kind, measure, kept)
    # several subjects have verdicts of their own and none of their mean
    if kind == "verdict" and "subject" not in by and not (curves["subject"] == "all").any():
        curves = curves.assign(subject="all")
    if kind in SCORED and not wise_ft:
        curves = _add_images(curves, study, Path(runs_dir))
    table = mean_curves(curves, by, over)
    return _add_words(table, curves) if kind == "verdict" else table


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
        of = measured.assign(measure=measured["measure"].str.removesuffix(end))
        both = of.merge(excess, on=[*keys, "measure", "step"], suffixes=("", "_excess"))
        both["value"] -= both["value_excess"]
        starts.append(both.assign(measure=both["measure"] + end)[curves.columns])
    added = pd.concat(starts).assign(step=0)
    # runs of other versions may have it
    whole = pd.concat([curves, added]).drop_duplicates([*keys, "measure", "step"], ignore_index=True)
    return whole.astype({"step": "int64"})


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
        _check_columns([column], known)
        if column == "step" and not value.isdecimal():
            raise InputError(f"where step={value}: expected a number of optimizer steps")
        kept.setdefault(column, set()).add(value)
    return kept


def _choose_measure(curves: pd.DataFrame, kind: str, measure: str | None, kept: Where) -> pd.DataFrame:
    """Keep a measure and what describes its values: ends of intervals, and p."""
    for column in ("measure", "step"):
        if column in kept:
            known = {str(value) for value in curves[column].unique()}
            _check_values(column, kept[column], known)
    names = curves["measure"]
    own = names.isin(kept["measure"]) if "measure" in kept else pd.Series(True, names.index)
    if measure is not None:
        own &= (names == measure) | (names.str.partition("/")[0] == measure)
    chosen = set(names[own])
    curves = curves[own | names.isin({name for one in chosen for name in _companions(one)})]
    if "step" in kept:
        curves = curves[curves["step"].astype(str).isin(kept["step"])]
    # a row that only describes another gets no line, unless it was asked for
    describing = {name for one in chosen for name in _companions(one)} - (
        {measure} | set(kept.get("measure", ()))
    )
    return curves.assign(describes=curves["measure"].isin(describing)).reset_index(drop=True)


def _companions(measure: str) -> dict[str, tuple[str, str]]:
    """Return the measures that describe a measure's values → the column, and what an interval is over."""
    if measure == "kind":
        return {"p": ("p", "")}
    over = "refits" if measure.endswith("_excess") else "test images" if measure.startswith("delta") else ""
    found = {f"{measure}_p": ("p", "")}
    if over:
        found |= {f"{measure}_low": ("low", over), f"{measure}_high": ("high", over)}
    # over subjects comes last, and wins
    found[f"{measure}_subjects_p"] = ("p", "")
    return found | {
        f"{measure}_subjects_low": ("low", "subjects"),
        f"{measure}_subjects_high": ("high", "subjects"),
    }


def _add_images(curves: pd.DataFrame, study: str | None, runs_dir: Path) -> pd.DataFrame:
    """Add a column n_test, the number of test images; runs of older versions have no such rows."""
    counts = metric_curves("probe", study=study, measure="n_test", runs_dir=runs_dir, required=False)
    keys = ["study", "run", "place", "step"]
    found = counts[[*keys, "value"]].rename(columns={"value": "n_test"})
    return curves.merge(found, on=keys, how="left") if len(found) else curves


def metric_curves(
    kind: Kind,
    *,
    study: str | None = None,
    measure: str | None = None,
    runs_dir: Path = Path("runs"),
    interpolated: bool = False,
    verdict: str | None = None,
    where: Where | None = None,
    required: bool = True,
    described: bool = False,
) -> pd.DataFrame:
    """Every value of a kind of metric, one per row; parameters and errors as for `query`.

    Parameters
    ----------
    where : mapping of str to str values, optional
        Columns of runs and places → values to keep.
    required : bool
        Whether it is an error if no run has the measure.
    described : bool
        Whether the ends of the measure's intervals, and its p, are included.

    Returns
    -------
    DataFrame
        Columns study, run, backbone, objective, task, method, brain, seed; ``roi`` and ``subject`` for
        metrics of the brain, ``place`` for the others, ``"all"`` for the whole; measure, step, value. Sorted,
        index 0, 1, …. With several subjects, subject ``"all"`` is their mean; a run's only subject is
        ``"all"`` too.
    """
    places = place_columns(kind)
    where = where or {}
    _check_columns(list(where), (*TAGS, *places))
    if verdict is not None and verdict not in JUDGEMENTS:
        raise unknown_name("verdict", verdict, JUDGEMENTS)
    seen: dict[str, set[str]] = {column: set() for column in where}

    def chosen(tags: Mapping[str, str]) -> bool:
        own = {column: tags.get(TAGS[column], "") for column in where if column in TAGS}
        for column, value in own.items():
            seen[column].add(value)
        return all(value in where[column] for column, value in own.items())

    measures: set[str] = set()

    def wanted(name: str) -> bool:
        parts = split_name(name)
        if verdict is not None and _is_verdict(parts):
            return True
        if (parts.stage, parts.interpolated) != (kind, interpolated):
            return False
        # "layer" stands for the shares of all layers
        own = {parts.measure, parts.measure.partition("/")[0]}
        measures.update(own)
        return measure is None or measure in own or (described and parts.measure in _companions(measure))

    frames = []
    for tags, rows in read_histories(tracking_uri(runs_dir), study, wanted, chosen):
        frame = _describe_rows(rows, places)
        judged = None if verdict is None else _find_judged(frame, verdict)
        frame = frame[(frame["stage"] == kind) & (frame["interpolated"] == interpolated)]
        if judged is not None:
            # metrics without a region follow the verdict of the whole brain
            pairs = frame[["roi", "subject"]].itertuples(index=False, name=None) if "roi" in places else None
            frame = frame[[pair in judged for pair in pairs or [("all", "all")] * len(frame)]]
        frames.append(frame.assign(**{column: tags.get(tag, "") for column, tag in TAGS.items()}))
    for column, values in seen.items():
        if column in TAGS:
            _check_values(column, where[column], values)
    columns = [*TAGS, *places, "measure", "step", "value"]
    curves = pd.concat(frames)[columns] if frames else pd.DataFrame(columns=columns)
    for column in places:
        if column in where:
            _check_values(column, where[column], set(curves[column]))
            curves = curves[curves[column].isin(where[column])]
    if interpolated and not measures:
        raise InputError(f"{kind} of WiSE-FT: found no curve, expected runs measured by palimpsest wise-ft")
    if measure is not None and required and measure not in measures:
        raise unknown_name(f"measure of {kind}", measure, measures)
    if measure is not None:
        # verdicts were read to judge by
        names = curves["measure"].astype(str)
        own = names.isin([measure, *(_companions(measure) if described else ())])
        curves = curves[own | names.str.startswith(f"{measure}/")]
    curves = curves.astype({"step": "int64", "value": "float64"})
    return curves.sort_values([*TAGS, *places, "measure", "step"], ignore_index=True)


def _describe_rows(rows: pd.DataFrame, places: tuple[str, ...]) -> pd.DataFrame:
    """Split the names of rows into columns, each name once."""
    names = rows["name"].unique()
    records = []
    for name in names:
        parts = split_name(name)
        found = dict(zip(places, (parts.place, parts.subject or "all"), strict=False))
        records.append(
            {
                "name": name,
                "stage": parts.stage,
                "interpolated": parts.interpolated,
                "measure": parts.measure,
                "judged_place": parts.place,
                "judged_subject": parts.subject or "all",
                **found,
            }
        )
    columns = ["name", "stage", "interpolated", "measure", "judged_place", "judged_subject", *places]
    return rows[["name", "step", "value"]].merge(pd.DataFrame(records, columns=columns), on="name")


def _is_verdict(parts: MetricName) -> bool:
    return not parts.interpolated and (parts.stage, parts.measure) in (
        ("verdict", "kind"),
        ("collapse", "collapsed"),
    )


class _Everything:
    """All places and subjects of a run."""

    def __contains__(self, item: object) -> bool:
        return True


def _find_judged(rows: pd.DataFrame, verdict: str) -> set[tuple[str, str]] | _Everything:
    """Find the (place, subject) of a run with this verdict at its last snapshot; a collapse is of all."""
    judging = (rows["stage"] == "verdict") & (rows["measure"] == "kind")
    judging |= (rows["stage"] == "collapse") & (rows["measure"] == COLLAPSED)
    rows = rows[judging & ~rows["interpolated"].astype(bool)]
    last = rows[rows["step"] == rows["step"].max()]
    found: set[tuple[str, str]] = set()
    for row in last.to_dict("records"):
        if row["stage"] == "collapse":
            if verdict == COLLAPSED and row["value"]:
                return _Everything()
        elif name_verdict(row["value"]) == verdict:
            # the mean over subjects is shown where any of them has the verdict
            found |= {(row["judged_place"], row["judged_subject"]), (row["judged_place"], "all")}
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
    """Mean, standard deviation, n and what it counts, interval and p, by group and step; as for `query`.

    Without ``roi`` in `by`, the whole brain's values (``roi == "all"``) are used: ROIs overlap and differ in
    size, so a mean over them means nothing. The same holds for ``subject``, whose ``"all"`` is the mean over
    subjects. Measures are never mixed; methods and brains only if `over` names them.

    Parameters
    ----------
    curves : DataFrame
        As `metric_curves` returns it, perhaps with columns n_test and describes: whether a row only describes
        another measure's.
    by : sequence of str
        Columns to keep apart.
    over : sequence of str
        Of ``method`` and ``brain``: those to average over.
    """
    known = [column for column in curves.columns if column not in ("step", "value", "n_test", "describes")]
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
    different = different[counted]
    table["counts"] = [_say_counts(row) for row in different.to_dict("records")]
    if "n_test" in curves:
        table["n_test"] = grouped["n_test"].min()["n_test"]
    if "describes" in curves:
        table["describes"] = grouped["describes"].all()["describes"]
    table = _add_intervals(table, [key for key in keys if key not in ("measure", "step")], different)
    single = ~table["measure"].str.contains(NOT_AVERAGED, regex=True)
    table = table[single | (table["n"] == 1)]
    if "describes" in table:
        table = table[~table["describes"]].drop(columns="describes")
    order = [*keys, *(column for column in STATISTICS if column in table)]
    return table[order].reset_index(drop=True)


def _add_intervals(table: pd.DataFrame, keys: Sequence[str], different: pd.DataFrame) -> pd.DataFrame:
    """Add the columns low, high, interval and p; `different` counts what differs in each group."""
    table = table.reset_index(drop=True)
    table["low"] = table["high"] = table["p"] = np.nan
    table["interval"] = ""
    single, moments = table["n"] == 1, [*keys, "step"]
    found = {measure: rows.set_index(moments)["mean"] for measure, rows in table[single].groupby("measure")}
    for measure in list(found):
        rows = single & (table["measure"] == measure)
        index = pd.MultiIndex.from_frame(table.loc[rows, moments])
        for name, (column, over) in _companions(measure).items():
            if name not in found:
                continue
            values = found[name].reindex(index if len(moments) > 1 else index.get_level_values(0)).to_numpy()
            known = rows.to_numpy().nonzero()[0][~np.isnan(values)]
            table.loc[known, column] = values[~np.isnan(values)]
            if over:
                table.loc[known, "interval"] = over
    single = single.to_numpy()
    others = [column for column in different.columns if column not in ("run", "seed")]
    only_seeds = (different[others] <= 1).all(axis=1).to_numpy() & ~single
    if "run" in different:
        only_seeds &= different["run"].to_numpy() == table["n"].to_numpy()
    only_seeds &= (table["measure"] != "kind").to_numpy()
    if only_seeds.any():
        from scipy.special import stdtrit

        n = table.loc[only_seeds, "n"]
        half = stdtrit(n - 1, 0.975) * table.loc[only_seeds, "std"] / np.sqrt(n)
        table.loc[only_seeds, "low"] = table.loc[only_seeds, "mean"] - half
        table.loc[only_seeds, "high"] = table.loc[only_seeds, "mean"] + half
        table.loc[only_seeds, "interval"] = "seeds"
    return table


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


def _check_values(column: str, values: Collection[str], known: Collection[str]) -> None:
    for value in sorted(values):
        if value not in known:
            raise unknown_name(column, value, known)


def place_columns(kind: Kind) -> tuple[str, ...]:
    """Columns that say where: ROI and subject for metrics of the brain, else place."""
    if kind not in STAGES:
        raise unknown_name("kind of metric", kind, get_args(Kind))
    return ("roi", "subject") if STAGES[kind].of_brain else ("place",)
