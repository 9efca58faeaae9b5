"""Connections to MLflow stores: addresses, errors, and a store whose folder has moved."""

from __future__ import annotations

import functools
import logging
import os
import sqlite3
import time
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from harness.storage import (
    hide_passwords,
    hold_lock,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
else:
    # importing mlflow takes a second, and tests evaluate annotations
    MlflowClient = Any

ENVIRONMENT = {
    # a dead server should cost seconds, not the minutes of MLflow's defaults; the user's own values win
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
log = logging.getLogger(__name__)

SQLITE = "sqlite:///"
ARTIFACTS = "mlartifacts"
"""Folder of artifacts beside the database of a SQLite store."""


def tracking_uri(runs_dir: Path) -> str:
    """``MLFLOW_TRACKING_URI``, or the SQLite store ``{runs_dir}/mlflow.db``."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(runs_dir.resolve() / "mlflow.db")


def sqlite_uri(database: Path) -> str:
    """Address of a SQLite store; `database_file` is its inverse."""
    path = str(database)
    if _decodes():
        path = path.replace("%", "%25").replace("?", "%3F")
    return SQLITE + path


@functools.cache
def _decodes() -> bool:
    """Whether SQLAlchemy takes ``%20`` in the path of a database for a blank, as it does from 2.1 on."""
    major, minor = version("sqlalchemy").split(".")[:2]
    return (int(major), int(minor)) >= (2, 1)


def database_file(uri: str) -> Path | None:
    """File of a SQLite store; None for a server or another database."""
    if not uri.startswith(SQLITE):
        return None
    path = uri.removeprefix(SQLITE).partition("?")[0]  # then come options of the driver
    return Path(unquote(path) if _decodes() else path)


def import_mlflow(uri: str) -> None:
    """Import all of mlflow that a store at `uri` needs, with `ENVIRONMENT` set."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow.entities

    # mlflow reads the level once, and may have been imported before
    logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"])
    if uri.startswith("sqlite:"):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def connect(uri: str) -> MlflowClient:
    """Connect to a store, to write; one process creates or mends a SQLite store while others wait."""
    import_mlflow(uri)
    from mlflow import MlflowClient

    database = database_file(uri)
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
    # two first writers would both run MLflow's migrations, and one would crash
    with nullcontext() if database is None else hold_store(database):
        if database is not None:
            _make_whole(database)
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
        _remove_stray_folder(uri)
        if database is not None:
            _follow_folder(database)
    return client


def _make_whole(database: Path) -> None:
    """Create a SQLite store under another name and rename it, so that a kill leaves none half made.

    A half-made one, of an earlier version or another program, is put aside.
    """
    if database.exists():
        if _is_store(database):
            return
        aside = database.with_name(f"{database.name}.broken-{int(time.time())}")
        database.rename(aside)
        log.warning(
            "warning: %s: found no whole MLflow store; kept as %s, and begun anew. "
            "Send runs that are missing with: palimpsest forward RUN_FOLDER...",
            *(database, aside.name),
        )
    partial = database.with_name(f"{database.name}.partial")
    for suffix in ("", "-journal", "-wal", "-shm"):
        partial.with_name(partial.name + suffix).unlink(missing_ok=True)
    _create(partial)
    partial.rename(database)


def _create(database: Path) -> None:
    """Create an empty store, which takes seconds."""
    from mlflow import MlflowClient

    uri = sqlite_uri(database)
    MlflowClient(uri).search_experiments(max_results=1)
    _remove_stray_folder(uri)


def _remove_stray_folder(uri: str) -> None:
    """Remove the empty folder that MLflow makes where an encoded path would lie if it were not decoded."""
    database = database_file(uri)
    made = Path(uri.removeprefix(SQLITE)).parent
    if database is not None and made != database.parent:
        with suppress(OSError):
            os.removedirs(made)


def _is_store(database: Path) -> bool:
    """Whether MLflow's migrations of a SQLite file have run to their end; a locked file counts as whole."""
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            if not {"alembic_version", "experiments", "runs", "latest_metrics", "inputs"} <= tables:
                return False
            return connection.execute("SELECT 1 FROM alembic_version").fetchone() is not None
    except sqlite3.OperationalError:
        return True
    except sqlite3.DatabaseError:
        # no SQLite file at all
        return False


def hold_store(database: Path) -> AbstractContextManager[None]:
    """Lock a SQLite store against other writers of its schema, experiments and parent runs."""
    return hold_lock(database.with_name(database.name + ".lock"), wait=120)


def artifact_location(database: Path, experiment: str) -> str:
    """Where an experiment of a SQLite store keeps its artifacts; MLflow's default is the current folder."""
    return (database.parent.resolve() / ARTIFACTS / experiment).as_uri()


def _follow_folder(database: Path) -> None:
    """Correct the places of artifacts in a SQLite store that was moved with its folder.

    MLflow stores them as absolute addresses and has no command for this.
    """
    with sqlite3.connect(database, timeout=60) as connection:
        found = connection.execute("SELECT name, artifact_location FROM experiments").fetchall()
        for name, old in found:
            new = artifact_location(database, name)
            # places that a user chose have another ending
            if old == new or not (old or "").startswith("file:") or not old.endswith(f"/{ARTIFACTS}/{name}"):
                continue
            for table, column in (
                ("experiments", "artifact_location"),
                ("runs", "artifact_uri"),
                ("logged_models", "artifact_location"),
            ):
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, old, len(old) + 1, old + "/"),
                )
    connection.close()


def tracking_errors() -> tuple[type[Exception], ...]:
    """Exceptions of a store that is dead, busy, full or forbidden."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, RequestException, SQLAlchemyError, OSError


def write_reason(error: Exception) -> str:
    """Write an error on one line of moderate length."""
    return hide_passwords(" ".join(f"{error}".split()))[:200] or type(error).__name__
