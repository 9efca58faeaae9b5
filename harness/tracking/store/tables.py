"""Tables of a run's rows: every row in one file, and a table per kind of metric for MLflow's pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.measures import (
    LAYER,
    split_name,
)
from harness.runs import Row

if TYPE_CHECKING:
    from mlflow import MlflowClient
else:
    MlflowClient = Any

RESULTS = "results.parquet"
ROWS_TAG = "palimpsest.rows"
"""Number of rows of the journal that the artifact with all results has."""
TABLES = "tables"
COUNTS = "palimpsest.counts"
"""Key of the metrics' names, with their numbers of rows, in the file's metadata."""
ROWS_PER_GROUP = 2000
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
    """Write all rows of a journal as parquet, sorted by name; its metadata say how many rows a name has."""
    latest = latest_rows(rows)
    table = pa.Table.from_pandas(latest, _SCHEMA, preserve_index=False)
    # `latest` is sorted by name
    counts = json.dumps(latest["name"].value_counts(sort=False).sort_index().to_dict())
    pq.write_table(table.replace_schema_metadata({COUNTS: counts}), path, row_group_size=ROWS_PER_GROUP)


def read_results(path: Path, wanted: Callable[[str], bool]) -> pd.DataFrame:
    """Read the rows of the `wanted` metrics from a file of `write_results`, and no others.

    Raises
    ------
    pyarrow.ArrowException, OSError
        If the file is no such table.
    """
    with pq.ParquetFile(path) as file:
        known = (file.schema_arrow.metadata or {}).get(COUNTS.encode())
        if known is None:
            raise pa.ArrowInvalid(f"{path}: no table of results")
        names, places, begin = [], [], 0
        for name, count in json.loads(known).items():
            if wanted(name):
                names += [name] * count
                places.append(np.arange(begin, begin + count))
            begin += count
        if not places:
            return pd.DataFrame(columns=list(COLUMNS))
        rows = np.concatenate(places)
        groups = np.unique(rows // ROWS_PER_GROUP)
        table = file.read_row_groups(groups.tolist(), columns=["step", "value", "timestamp"])
    # all groups before the last are full
    own = np.searchsorted(groups, rows // ROWS_PER_GROUP) * ROWS_PER_GROUP + rows % ROWS_PER_GROUP
    found = {name: table[name].to_numpy()[own] for name in ("step", "value", "timestamp")}
    return pd.DataFrame({"name": np.array(names, dtype=object), **found})


def log_tables(client: MlflowClient, run_id: str, tables: Mapping[str, pd.DataFrame]) -> None:
    """Log tables that ``mlflow.load_table`` reads, by file; old ones are replaced.

    MLflow's own `log_table` would append to a table that is there.
    """
    for file, table in tables.items():
        client.log_text(run_id, table.to_json(orient="split", index=False), file)
    known = json.loads(client.get_run(run_id).data.tags.get("mlflow.loggedArtifacts", "[]"))
    added = [{"path": file, "type": "table"} for file in tables]
    known += [entry for entry in added if entry not in known]
    client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps(known))


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
