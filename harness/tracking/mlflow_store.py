"""The MLflow store of runs' journals; only this module imports mlflow.

The journal is the truth and is written first. `TrackedRun` sends its rows while the run goes on, in a thread
of its own, so that a slow server holds nothing up. Sending rows again changes nothing, so a dead server costs
only a warning. Send the rows later with

    palimpsest forward RUN_FOLDER...
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock

from harness.config import (
    Config,
    flatten,
    to_yaml,
)
from harness.runs import (
    Row,
    read_rows,
    run_name,
)
from harness.storage import (
    InputError,
    unknown_name,
)
from harness.tracking.verdict_tags import read_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
else:
    # importing mlflow takes a second, and tests evaluate annotations
    MlflowClient = Any

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

# MLflow's limits per request and per value
BATCH_ROWS = 1000
BATCH_PARAMS = 100
PARAM_LENGTH = 6000
ERROR_LENGTH = 500
PERIOD = 5.0
"""Seconds between two sendings of a run that goes on."""
# a dead server should cost seconds, not the minutes of MLflow's defaults; the user's own values win
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}

log = logging.getLogger(__name__)


class TrackedRun:
    """One run in MLflow, kept up to date with its journal.

    A context manager: inside, a thread sends new rows every `PERIOD` seconds. The run ends as FINISHED, after
    an exception as FAILED with its message in the tag ``error``, after an interrupt as KILLED. A killed
    process leaves it RUNNING, and the next process for the same folder resumes it.

    Parameters
    ----------
    config : Config
        Gives the experiment (the study) and the run's name, parameters and tags.
    folder : Path
        The run's folder, which holds the journal.
    tags : mapping of str to str
        Additional tags, such as ``code_version``.
    """

    def __init__(self, config: Config, folder: Path, tags: Mapping[str, str] | None = None) -> None:
        self._config = config
        self._folder = folder
        self._tags = {
            "study": config.study.name,
            "backbone": config.backbone.name,
            "objective": config.backbone.objective,
            "size": config.backbone.size or "none",
            "task": config.task.name,
            "method": config.method.name,
            "seed": str(config.seed),
            "brain": config.brain.name,
            **(tags or {}),
        }
        # {runs_dir}/{study}/{run}: right from any working folder
        self._runs_dir = folder.resolve().parents[1]
        self._uri = tracking_uri(self._runs_dir)
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._sent = 0
        self._warned = False
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def forward(self, status: Status = "RUNNING", end_time: int | None = None) -> bool:
        """Send unsent rows; returns whether that worked. The first failure logs a warning.

        Parameters
        ----------
        status : str
            All but RUNNING end the run; FINISHED also sets the tags of its verdict.
        end_time : int or None
            Milliseconds since 1970; None: now.
        """
        with self._lock:
            try:
                self._send(status, end_time)
            except Exception as error:  # nothing that tracking meets may stop a run
                if not self._warned:
                    reason = " ".join(f"{error}".split())[:200] or type(error).__name__
                    log.warning(
                        "warning: MLflow at %s does not answer (%s); results are safe in %s, "
                        "send them later with: palimpsest forward %s",
                        *(self._uri, reason, self._folder / "results.jsonl", self._folder),
                    )
                self._warned = True
                return False
            return True

    def _send(self, status: Status, end_time: int | None) -> None:
        if self._client is None:
            client = connect(self._uri)
            self._open(client)
            self._client = client
            client.update_run(self._run_id, status="RUNNING")
        self._send_rows(self._client)
        if status != "RUNNING":
            found = read_tags(self._config, self._folder) if status == "FINISHED" else {}
            self._set_tags(self._client, self._tags | found)
            self._client.set_terminated(self._run_id, status=status, end_time=end_time)

    def _set_tags(self, client: MlflowClient, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        client.log_batch(self._run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def _open(self, client: MlflowClient) -> None:
        """Find or create the run, with its tags and parameters."""
        from mlflow.entities import Param

        name = run_name(self._config)
        experiment = _find_or_create_experiment(client, self._config.study.name, self._runs_dir)
        found = client.search_runs([experiment], f"tags.`palimpsest.run` = '{name}'", max_results=1)
        if found:
            (run,) = found
        else:
            rows = self._read(0)[0]
            # rows of a run that is sent late say when it began
            begun = min((row["timestamp"] for row in rows), default=time.time_ns() // 1_000_000)
            run = client.create_run(
                experiment, start_time=begun, tags={"palimpsest.run": name}, run_name=name
            )
        self._run_id = run_id = run.info.run_id
        if "error" in run.data.tags:
            client.delete_tag(run_id, "error")
        self._set_tags(client, self._tags)
        params = [Param(key, value[:PARAM_LENGTH]) for key, value in flatten(self._config).items()]
        for start in range(0, len(params), BATCH_PARAMS):
            client.log_batch(run_id, params=params[start : start + BATCH_PARAMS])
        client.log_text(run_id, to_yaml(self._config), "config.yaml")

    def _send_rows(self, client: MlflowClient) -> None:
        from mlflow.entities import Metric

        rows, end = self._read(self._sent)
        metrics = [Metric(row["name"], row["value"], row["timestamp"], row["step"]) for row in rows]
        for start in range(0, len(metrics), BATCH_ROWS):
            client.log_batch(self._run_id, metrics=metrics[start : start + BATCH_ROWS])
        self._sent = end

    def _read(self, offset: int) -> tuple[list[Row], int]:
        journal = self._folder / "results.jsonl"
        return read_rows(journal, offset) if journal.exists() else ([], 0)

    def _follow(self) -> None:
        while True:
            self.forward()
            if self._stop.wait(PERIOD):
                return

    def __enter__(self) -> TrackedRun:
        self._stop.clear()
        # an import in the thread could meet one of this thread halfway and leave mlflow broken for good
        with suppress(Exception):  # `forward` warns of it
            import_mlflow(self._uri)
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if kind is None:
            self.forward("FINISHED")
            return
        self._tags["error"] = f"{kind.__name__}: {error}"[:ERROR_LENGTH]
        self.forward("FAILED" if issubclass(kind, Exception) else "KILLED")


def log_table(
    study: Path, name: str, table: str, metrics: Mapping[str, float], tags: Mapping[str, str] | None = None
) -> bool:
    """Log a table of a whole study as ``<name>.csv``, with a few metrics, beside its runs; replace an old.

    It has an MLflow run of its own in the study's experiment, without the tag of runs, so queries skip it.
    A store that does not answer costs a warning.

    Parameters
    ----------
    study : Path
        The study's folder, ``{runs_dir}/{study}``.
    name : str
        Of the MLflow run; tag ``palimpsest.table``.
    table : str
        As CSV.
    metrics : mapping of str to float
        Finite values.
    tags : mapping of str to str

    Returns
    -------
    bool
        Whether it worked.
    """
    folder = study.resolve()
    uri = tracking_uri(folder.parent)
    try:
        client = connect(uri)
        experiment = _find_or_create_experiment(client, folder.name, folder.parent)
        found = client.search_runs([experiment], f"tags.`palimpsest.table` = '{name}'", max_results=1)
        own = {"palimpsest.table": name, "study": folder.name, **(tags or {})}
        run = found[0] if found else client.create_run(experiment, tags=own, run_name=name)
        run_id = run.info.run_id
        client.log_text(run_id, table, f"{name}.csv")
        for metric, value in metrics.items():
            client.log_metric(run_id, metric, value)
        client.set_terminated(run_id)
    except _tracking_errors() as error:
        reason = " ".join(str(error).split())[:200]
        log.warning("warning: MLflow at %s does not answer (%s); not logged: %s", uri, reason, name)
        return False
    return True


def tracking_uri(runs_dir: Path) -> str:
    """``MLFLOW_TRACKING_URI``, or the SQLite store ``{runs_dir}/mlflow.db``."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs_dir.resolve()}/mlflow.db"


def import_mlflow(uri: str) -> None:
    """Import all of mlflow that a store at `uri` needs, with `ENVIRONMENT` set."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow.entities

    if uri.startswith("sqlite:"):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def connect(uri: str) -> MlflowClient:
    """Connect to a store; one process creates a new SQLite store while others wait."""
    import_mlflow(uri)
    from mlflow import MlflowClient

    lock: FileLock | nullcontext[None] = nullcontext()
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///"))
        database.parent.mkdir(parents=True, exist_ok=True)
        # two first writers would both run MLflow's migrations, and one would crash
        lock = FileLock(database.with_name(database.name + ".lock"), timeout=120)
    with lock:
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    return client


def read_histories(
    uri: str, study: str | None, wanted: Callable[[str], bool]
) -> Iterator[tuple[dict[str, str], list[Row]]]:
    """Yield tags and the `wanted` metrics' rows of every run of a study (None: all studies).

    Raises
    ------
    InputError
        If there is no such study or no store.
    """
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise InputError(
            f"{uri}: no such tracking store; expected the runs_dir or MLFLOW_TRACKING_URI of a study"
        )
    try:
        client = connect(uri)
        studies = {
            found.name: found.experiment_id
            for found in _all_pages(client.search_experiments)
            if found.name != "Default"
        }
        if study is not None and study not in studies:
            raise unknown_name("study", study, studies)
        chosen = list(studies.values()) if study is None else [studies[study]]
        runs = (
            _all_pages(partial(client.search_runs, chosen, "tags.`palimpsest.run` != ''")) if chosen else []
        )
        with ThreadPoolExecutor(8) as pool:
            for run in runs:
                names = sorted(filter(wanted, run.data.metrics))
                histories = pool.map(partial(_read_history, client, run.info.run_id), names)
                yield dict(run.data.tags), [row for rows in histories for row in rows]
    except _tracking_errors() as error:
        raise InputError(f"MLflow at {uri} does not answer ({' '.join(str(error).split())[:200]})") from None


def _read_history(client: MlflowClient, run_id: str, name: str) -> list[Row]:
    latest = {}
    # a run restarted after its folder was deleted has a step twice: the later value wins
    for point in sorted(client.get_metric_history(run_id, name), key=lambda point: int(point.timestamp)):
        latest[point.step] = Row(name=name, step=point.step, value=point.value, timestamp=point.timestamp)
    return [latest[step] for step in sorted(latest)]


def _all_pages(search: Callable[..., Any]) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _find_or_create_experiment(client: MlflowClient, study: str, runs_dir: Path) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(study)
    if found is None:
        artifacts = None
        if client.tracking_uri.startswith("sqlite:"):
            # MLflow's default is the current folder
            artifacts = (runs_dir / "mlartifacts" / study).as_uri()
        try:
            return str(client.create_experiment(study, artifact_location=artifacts))
        except MlflowException:
            # another run of the study may have created it
            found = client.get_experiment_by_name(study)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _tracking_errors() -> tuple[type[Exception], ...]:
    """Exceptions of a store that is dead, busy, full or forbidden."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, RequestException, SQLAlchemyError, OSError
