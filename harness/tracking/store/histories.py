"""Rows of the runs in a store: from the artifact with all results, or else from MLflow's metrics."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from harness.runs import Row
from harness.storage import (
    InputError,
    hide_passwords,
    unknown_name,
)
from harness.tracking.store import sqlite_file
from harness.tracking.store.connection import (
    ARTIFACTS,
    connect,
    database_file,
    tracking_errors,
    write_reason,
)
from harness.tracking.store.keys import RUN_TAG, metric_name
from harness.tracking.store.sqlite_file import StoredRun
from harness.tracking.store.tables import (
    RESULTS,
    ROWS_TAG,
    latest_rows,
    read_results,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
else:
    MlflowClient = Any

READERS = 8
"""Requests to a server at a time."""


def read_histories(
    uri: str,
    study: str | None,
    wanted: Callable[[str], bool],
    chosen: Callable[[Mapping[str, str]], bool] = lambda tags: True,
) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Yield tags and the `wanted` metrics' rows of the runs of a study (None: of all studies).

    A finished run has all its rows. One that goes on may have only its headline metrics so far, and so has
    one whose artifacts cannot be reached. A SQLite store is only read, so its folder may be read-only.

    Parameters
    ----------
    uri : str
        Of the store.
    study : str or None
    wanted : function of a metric's name
    chosen : function of a run's tags
        Whether its rows are read.

    Yields
    ------
    tags : dict
    rows : DataFrame
        Columns name, step, value, timestamp; one row per name and step.

    Raises
    ------
    InputError
        If there is no such study or no store.
    """
    database = database_file(uri)
    wanted = cache(wanted)
    if database is not None:
        if not database.exists():
            raise InputError(
                f"{hide_passwords(uri)}: no such tracking store; expected the runs_dir or "
                "MLFLOW_TRACKING_URI of a study"
            )
        try:
            yield from _read_file(database, study, wanted, chosen)
        except sqlite3.Error as error:
            raise InputError(
                f"MLflow at {hide_passwords(uri)} does not answer ({write_reason(error)})"
            ) from None
        return
    errors = tracking_errors()
    try:
        yield from _read_server(connect(uri), study, wanted, chosen)
    except errors as error:
        raise InputError(f"MLflow at {hide_passwords(uri)} does not answer ({write_reason(error)})") from None


def _read_file(
    database: Path,
    study: str | None,
    wanted: Callable[[str], bool],
    chosen: Callable[[Mapping[str, str]], bool],
) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    studies = _choose_study(sqlite_file.list_studies(database), study)
    for run in sqlite_file.list_runs(database, studies, RUN_TAG):
        if not chosen(run.tags):
            continue
        # beside the database, wherever the folder has moved since
        place = database.parent / ARTIFACTS / run.study / run.run_id / "artifacts" / RESULTS
        found = None
        if place.exists():
            # a reader may meet it while it is being replaced
            with suppress(OSError, pa.ArrowException):
                found = read_results(place, wanted)
        read = partial(sqlite_file.read_metrics, database, run.run_id)
        yield run.tags, _complete(run, found, wanted, read)


def _read_server(
    client: MlflowClient,
    study: str | None,
    wanted: Callable[[str], bool],
    chosen: Callable[[Mapping[str, str]], bool],
) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    experiments = _all_pages(client.search_experiments)
    studies = {found.name: found.experiment_id for found in experiments if found.name != "Default"}
    studies = _choose_study(studies, study)
    if not studies:
        return
    names = {place: name for name, place in studies.items()}
    runs = [
        StoredRun(
            run.info.run_id,
            names[run.info.experiment_id],
            run.info.status,
            dict(run.data.tags),
            tuple(run.data.metrics),
        )
        for run in _all_pages(partial(client.search_runs, list(names), f"tags.`{RUN_TAG}` != ''"))
        if chosen(run.data.tags)
    ]

    def read_metrics(run_id: str, keys: list[str]) -> list[Row]:
        return [
            Row(name=key, step=point.step, value=point.value, timestamp=int(point.timestamp))
            for key in keys
            for point in client.get_metric_history(run_id, key)
        ]

    def read(run: StoredRun) -> pd.DataFrame:
        found = _download(client, run, wanted) if ROWS_TAG in run.tags else None
        return _complete(run, found, wanted, partial(read_metrics, run.run_id))

    with ThreadPoolExecutor(READERS) as pool:
        for run, rows in zip(runs, pool.map(read, runs), strict=True):
            yield run.tags, rows


def _choose_study(studies: dict[str, Any], study: str | None) -> dict[str, Any]:
    if study is None:
        return studies
    if study not in studies:
        raise unknown_name("study", study, studies)
    return {study: studies[study]}


def _download(client: MlflowClient, run: StoredRun, wanted: Callable[[str], bool]) -> pd.DataFrame | None:
    """Read a run's results; None if they cannot be reached."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            return read_results(Path(client.download_artifacts(run.run_id, RESULTS, folder)), wanted)
    except (*tracking_errors(), pa.ArrowException):
        return None


def _complete(
    run: StoredRun,
    found: pd.DataFrame | None,
    wanted: Callable[[str], bool],
    read_metrics: Callable[[list[str]], list[Row]],
) -> pd.DataFrame:
    """Add the metrics of MLflow to a run's results, unless it is finished and has all of them."""
    if found is not None and run.status == "FINISHED":
        return found
    # rows since the last snapshot, or of a version without the artifact
    rows = read_metrics([key for key in run.keys if wanted(metric_name(key))])
    metrics = latest_rows([Row(**{**row, "name": metric_name(row["name"])}) for row in rows])
    if found is None:
        return metrics
    return pd.concat([found, metrics]).drop_duplicates(["name", "step"], ignore_index=True)


def _all_pages(search: Callable[..., Any]) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return
