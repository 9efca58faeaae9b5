"""Curves out of MLflow, as pandas tables: rewiring, forgetting and every other kind of metric.

`query` gives means with intervals, `metric_curves` every value. Both work without torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import get_args

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
    user_path,
)
from harness.tracking.mean_curves import (
    APART,
    add_words,
    check_columns,
    describing_measures,
    mean_curves,
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
    measure = measure or STAGES[kind].shown
    curves = metric_curves(
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
    if kind in SCORED and not wise_ft:
        of_runs = {column: values for column, values in kept.items() if column in TAGS}
        curves = _add_images(curves, study, user_path(runs_dir), of_runs)
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
            _check_values(column, kept[column], known)
    names = curves["measure"]
    own = names.isin(kept["measure"]) if "measure" in kept else pd.Series(True, names.index)
    if measure is not None:
        own &= (names == measure) | (names.str.partition("/")[0] == measure)
    chosen = set(names[own])
    curves = curves[own | names.isin({name for one in chosen for name in describing_measures(one)})]
    if "step" in kept:
        curves = curves[curves["step"].astype(str).isin(kept["step"])]
    # a row that only describes another gets no line, unless it was asked for
    describing = {name for one in chosen for name in describing_measures(one)} - (
        {measure} | set(kept.get("measure", ()))
    )
    return curves.assign(describes=curves["measure"].isin(describing)).reset_index(drop=True)


def _add_images(curves: pd.DataFrame, study: str | None, runs_dir: Path, where: Where) -> pd.DataFrame:
    """Add a column n_test, the number of test images; runs of older versions have no such rows."""
    counts = metric_curves(
        "probe", study=study, measure="n_test", runs_dir=runs_dir, where=where, required=False
    )
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
        metrics of the brain, ``place`` (and ``shift``) for the others, ``"all"`` for the whole; measure,
        step, value. Sorted, index 0, 1, …. With several subjects, subject ``"all"`` is their mean; a run's
        only subject is ``"all"`` too.
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

    def wanted(name: str) -> bool:
        parts = split_name(name)
        if verdict is not None and _is_verdict(parts):
            return True
        if (parts.stage, parts.interpolated) != (kind, interpolated):
            return False
        # "layer" stands for the shares of all layers
        own = {parts.measure, parts.measure.partition("/")[0]}
        measures.update(own)
        return (
            measure is None or measure in own or (described and parts.measure in describing_measures(measure))
        )

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
        own = names.isin([measure, *describing])
        curves = curves[own | names.str.startswith(f"{measure}/")]
    curves = curves.astype({"step": "int64", "value": "float64"})
    return curves.sort_values([*TAGS, *places, "measure", "step"], ignore_index=True)


def _describe_rows(rows: pd.DataFrame, places: tuple[str, ...]) -> pd.DataFrame:
    """Split the names of rows into columns, each name once."""
    names = rows["name"].unique()
    records = []
    for name in names:
        parts = split_name(name)
        found = dict(zip(places, (parts.place, parts.shift or parts.subject or "all"), strict=False))
        records.append(
            {
                "name": name,
                "stage": parts.stage,
                "interpolated": parts.interpolated,
                "measure": parts.measure,
                "judges": _is_verdict(parts),
                "judged_place": parts.place,
                "judged_subject": parts.subject or "all",
                **found,
            }
        )
    columns = [
        "name",
        "stage",
        "interpolated",
        "measure",
        "judges",
        "judged_place",
        "judged_subject",
        *places,
    ]
    return rows[["name", "step", "value"]].merge(pd.DataFrame(records, columns=columns), on="name")


def _is_verdict(parts: MetricName) -> bool:
    return not parts.interpolated and (parts.stage, parts.measure) in (
        ("verdict", "kind"),
        ("collapse", COLLAPSED),
    )


class _Everything:
    """All places and subjects of a run."""

    def __contains__(self, item: object) -> bool:
        return True


def _find_judged(rows: pd.DataFrame, verdict: str) -> set[tuple[str, str]] | _Everything:
    """Find the (place, subject) of a run with this verdict at its last snapshot; a collapse is of all."""
    rows = rows[rows["judges"].astype(bool)]
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


def _check_values(column: str, values: Collection[str], known: Collection[str]) -> None:
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
