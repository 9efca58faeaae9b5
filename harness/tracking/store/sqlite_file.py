"""Runs of a SQLite store, read without MLflow, whose client takes seconds to import and writes to the folder.

Only the tables of experiments, runs, tags and metrics are read, which all versions of MLflow since 1.0 have.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.runs import Row


@dataclass(frozen=True)
class StoredRun:
    """A run of a store, whichever way it is read.

    Attributes
    ----------
    run_id, study, status : str
        MLflow's; the study is its experiment's name.
    tags : dict
    keys : tuple of str
        Names in MLflow of its metrics.
    """

    run_id: str
    study: str
    status: str
    tags: dict[str, str]
    keys: tuple[str, ...]


@contextmanager
def _open(database: Path) -> Iterator[sqlite3.Connection]:
    address = f"{database.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=60)) as connection:
        try:
            connection.execute("SELECT 1 FROM experiments LIMIT 1")
            yield connection
            return
        except sqlite3.OperationalError as error:
            if "readonly" not in str(error) and "unable to open" not in str(error):
                raise
    # a write-ahead log cannot be opened on a read-only file system, but nobody writes there either
    with closing(sqlite3.connect(f"{address}&immutable=1", uri=True)) as connection:
        yield connection


def list_studies(database: Path) -> dict[str, int]:
    """Return the IDs of active experiments by name."""
    with _open(database) as connection:
        found = connection.execute(
            "SELECT name, experiment_id FROM experiments WHERE lifecycle_stage = 'active'"
        ).fetchall()
    return {name: experiment for name, experiment in found if name != "Default"}


def list_runs(database: Path, studies: dict[str, int], tag: str) -> list[StoredRun]:
    """List the active runs of experiments that have a tag, in order of their creation."""
    names = {experiment: name for name, experiment in studies.items()}
    marks = ", ".join("?" * len(names))
    where = f"r.lifecycle_stage = 'active' AND r.experiment_id IN ({marks})"
    ids = list(names)
    with _open(database) as connection:
        runs = connection.execute(
            f"SELECT r.run_uuid, r.experiment_id, r.status FROM runs r WHERE {where} "
            "AND r.run_uuid IN (SELECT run_uuid FROM tags WHERE key = ? AND value != '') "
            "ORDER BY r.start_time, r.run_uuid",
            (*ids, tag),
        ).fetchall()
        tags: dict[str, dict[str, str]] = {run_id: {} for run_id, _, _ in runs}
        keys: dict[str, list[str]] = {run_id: [] for run_id, _, _ in runs}
        for run_id, key, value in connection.execute(
            f"SELECT t.run_uuid, t.key, t.value FROM tags t JOIN runs r USING (run_uuid) WHERE {where}", ids
        ):
            if run_id in tags:
                tags[run_id][key] = value
        for run_id, key in connection.execute(
            f"SELECT m.run_uuid, m.key FROM latest_metrics m JOIN runs r USING (run_uuid) WHERE {where}", ids
        ):
            if run_id in keys:
                keys[run_id].append(key)
    return [
        StoredRun(run_id, names[experiment], status, tags[run_id], tuple(keys[run_id]))
        for run_id, experiment, status in runs
    ]


def read_metrics(database: Path, run_id: str, keys: Sequence[str]) -> list[Row]:
    """Read the histories of a run's metrics; names are those of MLflow."""
    rows = []
    with _open(database) as connection:
        for key in keys:
            found = connection.execute(
                "SELECT step, value, timestamp FROM metrics WHERE run_uuid = ? AND key = ? AND NOT is_nan",
                (run_id, key),
            )
            rows += [Row(name=key, step=step, value=value, timestamp=time) for step, value, time in found]
    return rows
