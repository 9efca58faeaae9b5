"""Tables of a run's rows: every row in one file, and a table per kind of metric for MLflow's pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
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

    Names are categories: a run has many rows and few names.

    Raises
    ------
    pyarrow.ArrowException, OSError
        If the file is no such table.
    """
    with pq.ParquetFile(path) as file:
        known = (file.schema_arrow.metadata or {}).get(COUNTS.encode())
        if known is None:
            raise pa.ArrowInvalid(f"{path}: no table of results")
        names, groups, own = _choose_rows(known, wanted)
        found = {}
        if len(own):
            # so few rows that threads cost more than they spare
            table = file.read_row_groups(groups, columns=list(COLUMNS[1:]), use_threads=False)
            found = {name: table[name].to_numpy()[own] for name in COLUMNS[1:]}
    return pd.DataFrame({"name": names, **found}, columns=list(COLUMNS))


@lru_cache(maxsize=8)
def _choose_rows(
    counts: bytes, wanted: Callable[[str], bool]
) -> tuple[pd.Categorical, list[int], np.ndarray]:
    """Return the wanted rows' names, the groups of rows that hold them, and their places in these groups.

    Runs of a study have the same names, so this is kept for the next file.
    """
    every: dict[str, int] = json.loads(counts)
    chosen = np.fromiter(map(wanted, every), dtype=bool, count=len(every))
    lengths = np.fromiter(every.values(), dtype=np.int64, count=len(every))
    rows = np.repeat(chosen, lengths).nonzero()[0]
    groups, place = np.unique(rows // ROWS_PER_GROUP, return_inverse=True)
    names = [name for name, is_chosen in zip(every, chosen, strict=True) if is_chosen]
    codes = np.repeat(np.arange(len(names)), lengths[chosen])
    # all groups before the last are full
    return (
        pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype="str")),
        groups.tolist(),
        place * ROWS_PER_GROUP + rows % ROWS_PER_GROUP,
    )


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
