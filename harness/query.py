"""Rewiring and forgetting curves out of MLflow, as tables.

    python -m harness.query rewiring --by backbone,roi --format csv

prints mean, standard deviation and number of values over whatever is not named in ``--by``, at every
optimizer step; `metric_curves` gives every single value as a pandas table. Values of a brain of several
subjects are the means over them; those of each are there with ``--by subject,…``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from harness.errors import InputError, exit_with_one_line, unknown_name
from harness.files import write_atomically
from harness.layout import INTERPOLATED
from harness.tracking import read_histories, tracking_uri

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


def main() -> None:
    """Print curves of one kind of metric, as means over what is not in --by, at every optimizer step."""
    parser = argparse.ArgumentParser(prog="python -m harness.query", description=main.__doc__)
    parser.add_argument("kind", choices=get_args(Kind))
    parser.add_argument(
        "--by", help="columns, comma-separated (default: backbone and place; roi, if of the brain)"
    )
    parser.add_argument("--study", help="only this one (default: all)")
    parser.add_argument(
        "--measure", help="only this one (default: wasserstein_excess for rewiring, else all)"
    )
    parser.add_argument("--format", choices=("table", "csv", "parquet"), default="table")
    parser.add_argument("--output", type=Path, help="file to write (default: standard output)")
    parser.add_argument(
        "--wise-ft", action="store_true", help="curves of python -m harness.wise_ft: step is α in percent"
    )
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="default: runs")
    arguments = parser.parse_args()
    if arguments.format == "parquet" and arguments.output is None:
        raise InputError("--format parquet: found no --output, accepted: a file to write it to")
    by = arguments.by.split(",") if arguments.by else ["backbone", place_columns(arguments.kind)[0]]
    measure = arguments.measure or ("wasserstein_excess" if arguments.kind == "rewiring" else None)
    curves = metric_curves(
        arguments.kind,
        study=arguments.study,
        measure=measure,
        runs_dir=arguments.runs_dir,
        interpolated=arguments.wise_ft,
    )
    write_table(mean_curves(curves, by), arguments.format, arguments.output)


def write_table(table: pd.DataFrame, form: Literal["table", "csv", "parquet"], output: Path | None) -> None:
    """Write a table to a file, or print it."""
    if form == "parquet":
        content = table.to_parquet(index=False)
    else:
        text = table.to_csv(index=False) if form == "csv" else table.to_string(index=False) + "\n"
        content = text.encode()
    if output is None:
        sys.stdout.buffer.write(content)
    else:
        with write_atomically(output) as temporary:
            temporary.write_bytes(content)


if __name__ == "__main__":
    exit_with_one_line(main)
