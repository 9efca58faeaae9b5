"""Rewiring and forgetting curves out of MLflow, as tables.

    python -m harness.query rewiring --by backbone,roi --format csv

prints mean, standard deviation and number of values over whatever is not named in ``--by``, at every
optimizer step; `metric_curves` gives every single value as a pandas table. Values of a brain of several
subjects are the means over them; those of each are there with ``--by subject,…``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from harness.runs import INTERPOLATED
from harness.storage import (
    InputError,
    unknown_name,
)
from harness.tracking.mlflow_store import (
    read_histories,
    tracking_uri,
)

Kind = Literal[
    "train", "task", "probe", "forgetting", "sequence", "drift", "brain", "selectors", "rewiring", "alignment"
]

# where the place of a metric is a region of the brain, or "all" of it
CORTICAL = ("brain", "selectors", "rewiring", "alignment")
TAGS = {"study": "study", "run": "palimpsest.run"} | {
    tag: tag for tag in ("backbone", "objective", "task", "method", "brain", "seed")
}


def metric_curves(
    kind: Kind,
    *,
    study: str | None = None,
    measure: str | None = None,
    runs_dir: Path = Path("runs"),
    interpolated: bool = False,
) -> pd.DataFrame:
    """Every value of a kind of metric, one a row.

    Parameters
    ----------
    kind : str
        First part of the metrics' names, such as ``"rewiring"``.
    study : str, optional
        Only this study; by default all in the store.
    measure : str, optional
        Only this measure, the last part of the metrics' names.
    runs_dir : Path
        Where the default store is; ``MLFLOW_TRACKING_URI`` has priority.
    interpolated : bool
        WiSE-FT's curves, not those over optimizer steps: step is α in percent.

    Returns
    -------
    DataFrame
        Columns study, run, backbone, objective, task, method, brain, seed; ``roi`` and ``subject`` for
        cortical kinds and ``place`` for the others, ``"all"`` for the whole; measure, step, value. Sorted,
        index 0, 1, ... Of a run of several subjects, subject ``"all"`` is their mean; the only subject of a
        run is ``"all"`` too.

    Raises
    ------
    InputError
        Where there is no such study or measure, no curve of WiSE-FT that was asked for, or no store.
    """
    places, stage = place_columns(kind), f"{INTERPOLATED}{kind}" if interpolated else kind
    records = []
    measures = set()

    def wanted(name: str) -> bool:
        first, *_, last = name.split("/")
        if first == stage:
            measures.add(last)
        return first == stage and measure in (None, last)

    for tags, rows in read_histories(tracking_uri(runs_dir), study, wanted):
        run = {column: tags.get(tag, "") for column, tag in TAGS.items()}
        for row in rows:
            _, *where, last = row["name"].split("/")
            # stage/place/subject/measure, of which the last two places may be missing
            found = dict(zip(places, [*where, "all", "all"], strict=False))
            records.append({**run, **found, "measure": last, "step": row["step"], "value": row["value"]})
    if interpolated and not measures:
        raise InputError(
            f"{kind} of WiSE-FT: found no curve, accepted: runs that python -m harness.wise_ft has measured"
        )
    if measure is not None and measure not in measures:
        raise unknown_name(f"measure of {kind}", measure, measures)
    frame = pd.DataFrame(records, columns=[*TAGS, *places, "measure", "step", "value"])
    frame = frame.astype({"step": "int64", "value": "float64"})
    return frame.sort_values([*TAGS, *places, "measure", "step"], ignore_index=True)


def mean_curves(curves: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean, standard deviation (of the sample; NaN for one value) and n, for every group and step.

    Where ``roi`` is not in `by`, the whole brain's values (``roi == "all"``) are used: regions overlap and
    differ in size, so that a mean over them means nothing. So for ``subject``: single subjects count only
    where it is in `by`, beside ``"all"``. Measures are never mixed.

    Parameters
    ----------
    curves : DataFrame
        As `metric_curves` returns it.
    by : sequence of str
        Columns to keep apart.
    """
    known = [column for column in curves.columns if column not in ("step", "value")]
    for column in by:
        if column not in known:
            raise unknown_name("column", column, known)
    for column in ("roi", "subject"):
        if column in known and column not in by:
            curves = curves[curves[column] == "all"]
    keys = list(dict.fromkeys([*by, "measure", "step"]))
    grouped = curves.groupby(keys, as_index=False)["value"]
    return grouped.agg(["mean", "std", "count"]).rename(columns={"count": "n"})


def rewiring_curves(
    by: Sequence[str] = ("backbone", "roi"),
    *,
    study: str | None = None,
    measure: str | None = "wasserstein_excess",
    runs_dir: Path = Path("runs"),
) -> pd.DataFrame:
    """Rewiring over optimizer steps: columns of `by`, measure, step, mean, std, n; see `mean_curves`."""
    return mean_curves(metric_curves("rewiring", study=study, measure=measure, runs_dir=runs_dir), by)


def place_columns(kind: Kind) -> tuple[str, ...]:
    """Names of the columns that say where: a region of the brain and whose, or a task."""
    return ("roi", "subject") if kind in CORTICAL else ("place",)


def query(
    kind: Kind,
    by: Sequence[str] | None = None,
    *,
    study: str | None = None,
    measure: str | None = None,
    runs_dir: Path | str = "runs",
    wise_ft: bool = False,
) -> pd.DataFrame:
    """Mean curves of one kind of metric; see `metric_curves` and `mean_curves`."""
    columns = ["backbone", place_columns(kind)[0]] if by is None else list(by)
    chosen = measure or ("wasserstein_excess" if kind == "rewiring" else None)
    curves = metric_curves(kind, study=study, measure=chosen, runs_dir=Path(runs_dir), interpolated=wise_ft)
    return mean_curves(curves, columns)
