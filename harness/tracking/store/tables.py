"""Tables of a run's rows: every row in one file, and a table per kind of metric for MLflow's pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.measures import (
    LAYER,
    split_name,
)
from harness.runs import Row

RESULTS = "results.parquet"
ROWS_TAG = "palimpsest.rows"
"""Number of rows of the journal that the artifact with all results has."""
TABLES = "tables"
COLUMNS = ("name", "step", "value", "timestamp")
_SCHEMA = pa.schema(
    [
        ("name", pa.dictionary(pa.int32(), pa.string())),
        ("step", pa.int64()),
        ("value", pa.float64()),
        ("timestamp", pa.int64()),
    ]
)


def latest_rows(rows: Sequence[Row]) -> pd.DataFrame:
    """Make a table of rows, with columns name, step, value, timestamp; the later of two equal rows wins."""
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table = table.sort_values("timestamp", kind="stable").drop_duplicates(["name", "step"], keep="last")
    return table.sort_values(["name", "step"], ignore_index=True)


def write_results(rows: Sequence[Row], path: Path) -> None:
    """Write all rows of a journal as parquet."""
    pq.write_table(pa.Table.from_pandas(latest_rows(rows), _SCHEMA, preserve_index=False), path)


def read_results(path: Path, wanted: Callable[[str], bool]) -> pd.DataFrame:
    """Read the rows of the `wanted` metrics from a file of `write_results`.

    Raises
    ------
    pyarrow.ArrowException, OSError
        If the file is no such table.
    """
    table = pq.read_table(path, columns=list(COLUMNS)).cast(_SCHEMA).combine_chunks()
    names = table["name"].unify_dictionaries().combine_chunks()
    chosen = [place for place, name in enumerate(names.dictionary.to_pylist()) if wanted(name)]
    kept = table.filter(pc.is_in(names.indices, pa.array(chosen, pa.int32())))
    return kept.to_pandas().astype({"name": object})


def kind_tables(rows: Sequence[Row]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield a kind of metric and its table: a line per step and place, a column per measure.

    Losses of single steps are left out: MLflow draws them. Shares of layers have columns of their own.
    """
    records: dict[str, dict[tuple[int, str, str], dict[str, float]]] = {}
    for row in rows:
        parts = split_name(row["name"])
        if parts.stage == "train" or parts.interpolated:
            continue
        line = (row["step"], parts.place, parts.subject or "")
        records.setdefault(parts.stage, {}).setdefault(line, {})[parts.measure.removeprefix(f"{LAYER}/")] = (
            row["value"]
        )
    for stage, lines in sorted(records.items()):
        table = pd.DataFrame(
            [
                {"step": step, "place": place, "subject": subject, **values}
                for (step, place, subject), values in sorted(lines.items())
            ]
        )
        yield stage, table if table["subject"].any() else table.drop(columns="subject")
