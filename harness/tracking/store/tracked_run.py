"""A run in MLflow, kept up to date with its journal while it goes on."""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from harness.config import Config
from harness.measures import (
    is_headline,
    split_name,
)
from harness.runs import (
    GrowingRows,
    label_subjects,
    list_snapshots,
    mapping_folder,
    read_run_manifest,
    run_name,
    split_file,
    subject_folder,
)
from harness.storage import (
    InputError,
    hide_passwords,
    read_json,
    write_json,
)
from harness.tracking.store.connection import (
    connect,
    database_file,
    import_mlflow,
    tracking_uri,
    write_reason,
)
from harness.tracking.store.contents import (
    PARENT_TAG,
    describe_inputs,
    describe_params,
    describe_tags,
    run_title,
)
from harness.tracking.store.experiments import (
    find_or_create_experiment,
    find_or_create_study_run,
)
from harness.tracking.store.keys import RUN_TAG, Status, metric_key
from harness.tracking.store.tables import (
    RESULTS,
    ROWS_TAG,
    TABLES,
    kind_tables,
    log_tables,
    write_results,
)
from harness.tracking.verdict_tags import tag_rows

if TYPE_CHECKING:
    from mlflow import MlflowClient
else:
    MlflowClient = Any

# MLflow's limits per request and per value
BATCH_ROWS = 1000
BATCH_PARAMS = 100
ERROR_LENGTH = 500
PERIOD = 5.0
"""Seconds between two sendings of a run that goes on."""

PATIENCE, HASTE = 300.0, 30.0
"""Seconds that the end of a run waits for the store; and after an error or an interrupt."""

SENT = "sent.json"
"""File of a run's folder: which store has how many of its rows."""

log = logging.getLogger(__name__)


class TrackedRun:
    """One run in MLflow, kept up to date with its journal.

    A context manager: inside, a thread sends new rows every `PERIOD` seconds. The run ends as FINISHED, after
    an exception as FAILED with its message in the tag ``error``, after an interrupt as KILLED. A killed
    process leaves it RUNNING, and the next process for the same folder resumes it.

    Headline metrics of the catalogue become metrics, under the names of `metric_key`. The artifact
    ``results.parquet`` has all rows and is renewed at every snapshot; ``tables/`` has one table per kind.

    Parameters
    ----------
    config : Config
        Gives the experiment (the study) and the run's name, parameters, tags and data sets.
    folder : Path
        The run's folder, which holds the journal and, for data sets and versions, the manifest.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        self._config = config
        self._folder = folder
        # {runs_dir}/{study}/{run}: right from any working folder
        self._runs_dir = folder.resolve().parents[1]
        self._uri = tracking_uri(self._runs_dir)
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._was_finished = False
        self._journal = GrowingRows(folder / "results.jsonl")
        self._sent = 0
        self._warned = False
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._monitor: Any = None

    def forward(
        self, status: Status = "RUNNING", end_time: int | None = None, tags: Mapping[str, str] | None = None
    ) -> bool:
        """Send unsent rows; returns whether that worked. The first failure logs a warning.

        Parameters
        ----------
        status : str
            All but RUNNING end the run; FINISHED also sends its tables, mappings and the tags of its verdict.
        end_time : int or None
            Milliseconds since 1970; None: now, or the time of the last row if the run had ended before.
        tags : mapping of str to str
            Further tags of a run that ends.
        """
        with self._lock:
            try:
                self._send(status, end_time, tags or {})
            except Exception as error:  # nothing that tracking meets may stop a run
                self._warn(write_reason(error))
                return False
            return True

    def _warn(self, reason: str) -> None:
        if not self._warned:
            log.warning(
                "warning: MLflow at %s does not answer (%s); results are safe in %s, "
                "send them later with: palimpsest forward %s",
                *(hide_passwords(self._uri), reason, self._folder / "results.jsonl", self._folder),
            )
        self._warned = True

    def forward_late(self, status: Status = "FINISHED") -> bool:
        """Send a run that has ended; its end is the time of its last row. Returns whether that worked."""
        return self.forward(status, self._last_time())

    def _last_time(self) -> int | None:
        return max((row["timestamp"] for row in self._journal.read()), default=None)

    def log_model(self, save: Callable[[Path], None]) -> bool:
        """Log what `save` writes into a new folder as the run's model; returns whether that worked.

        A run has one: later calls change nothing. The tag ``model`` is its address, ``models:/…``.
        """
        if not self.forward():
            return False
        try:
            with self._lock, tempfile.TemporaryDirectory() as temporary:
                client = connect(self._uri)
                run = client.get_run(self._run_id)
                if "model" in run.data.tags:
                    return True
                folder = Path(temporary) / "model"
                save(folder)
                # MLflow allows no dots in a model's name
                name = re.sub(r"[^\w-]", "_", run_name(self._config))
                model = client.create_logged_model(run.info.experiment_id, name, self._run_id)
                client.log_model_artifacts(model.model_id, str(folder))
                client.finalize_logged_model(model.model_id, "READY")
                client.set_tag(self._run_id, "model", f"models:/{model.model_id}")
        except Exception as error:  # the run's results do not depend on it
            log.warning("warning: MLflow gets no model of the last snapshot (%s)", write_reason(error))
            return False
        return True

    def _send(self, status: Status, end_time: int | None, tags: Mapping[str, str]) -> None:
        if self._client is None:
            client = connect(self._uri)
            self._open(client)
            self._client = client
            client.update_run(self._run_id, status="RUNNING")
        self._send_rows(self._client, whole=status == "FINISHED")
        if status == "RUNNING":
            return
        if status == "FINISHED":
            self._send_files(self._client)
            tags = {**tags, **tag_rows(self._config, self._journal.read())}
        self._set_tags(self._client, tags)
        if end_time is None and self._was_finished:
            end_time = self._last_time()
        self._client.set_terminated(self._run_id, status=status, end_time=end_time)
        if status == "FINISHED":
            write_json(self._folder / SENT, self._describe_sent())

    def is_sent(self) -> bool:
        """Whether the finished run is in this store with all of its rows, as far as its folder knows."""
        try:
            return read_json(self._folder / SENT) == self._describe_sent()
        except InputError:
            # missing or damaged: sending again changes nothing
            return False

    def _describe_sent(self) -> dict[str, object]:
        own = database_file(tracking_uri(self._runs_dir)) == self._runs_dir / "mlflow.db"
        # the store beside the runs moves with them; an address may hold a password
        store = "mlflow.db" if own else hashlib.sha256(self._uri.encode()).hexdigest()
        return {"store": store, "rows": len(self._journal.read())}

    def _set_tags(self, client: MlflowClient, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        client.log_batch(self._run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def _open(self, client: MlflowClient) -> None:
        """Find or create the run, with its tags, parameters, data sets and configuration."""
        from mlflow.entities import Param

        study, name = self._config.study.name, run_name(self._config)
        experiment = find_or_create_experiment(client, study)
        found = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{name}'", max_results=1)
        if found:
            (run,) = found
        else:
            rows = self._journal.read()
            # rows of a run that is sent late say when it began
            begun = min((row["timestamp"] for row in rows), default=time.time_ns() // 1_000_000)
            run = client.create_run(experiment, begun, tags={RUN_TAG: name}, run_name=run_title(self._config))
        self._run_id = run_id = run.info.run_id
        self._was_finished = bool(found) and run.info.status == "FINISHED"
        nested = self._config.mlflow.nested
        for old in {"error"} | (set() if nested else {PARENT_TAG}):
            if old in run.data.tags:
                client.delete_tag(run_id, old)
        if run.info.run_name != run_title(self._config):
            client.update_run(run_id, name=run_title(self._config))
        manifest_file = self._folder / "manifest.json"
        manifest = read_run_manifest(self._folder)
        tags = describe_tags(self._config, manifest)
        if nested:
            tags[PARENT_TAG] = find_or_create_study_run(client, experiment, study)
        self._set_tags(client, tags)
        params = [Param(key, value) for key, value in describe_params(self._config).items()]
        for start in range(0, len(params), BATCH_PARAMS):
            client.log_batch(run_id, params=params[start : start + BATCH_PARAMS])
        client.log_inputs(run_id, describe_inputs(self._config, manifest))
        for file in (self._folder / "config.yaml", manifest_file):
            if file.exists():
                client.log_artifact(run_id, str(file))

    def _send_rows(self, client: MlflowClient, whole: bool) -> None:
        """Send the headline metrics among unsent rows; all rows if `whole`, or some are of snapshots."""
        from mlflow.entities import Metric

        rows = self._journal.read()
        metrics = [
            Metric(metric_key(row["name"]), row["value"], row["timestamp"], row["step"])
            for row in rows[self._sent :]
            if _is_shown(row["name"])
        ]
        for start in range(0, len(metrics), BATCH_ROWS):
            client.log_batch(self._run_id, metrics=metrics[start : start + BATCH_ROWS])
        # losses of single steps come all the time, and are metrics anyway
        if whole or any(split_name(row["name"]).stage != "train" for row in rows[self._sent :]):
            self._send_results(client)
        self._sent = len(rows)

    def _send_results(self, client: MlflowClient) -> None:
        rows = self._journal.read()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / RESULTS
            write_results(rows, path)
            client.log_artifact(self._run_id, str(path))
        self._set_tags(client, {ROWS_TAG: str(len(rows))})

    def _send_files(self, client: MlflowClient) -> None:
        """Send a finished run's tables, splits, figures and mappings; those that are there are replaced."""
        run_id = self._run_id
        tables = kind_tables(self._journal.read())
        log_tables(client, run_id, {f"{TABLES}/{kind}.json": table for kind, table in tables})
        if (self._folder / "figures").is_dir():
            client.log_artifacts(run_id, str(self._folder / "figures"), "figures")
        for label in label_subjects(self._config.brain) or (None,):
            subject = subject_folder(self._folder, label)
            place = "" if label is None else f"subjects/{label}"
            if split_file(subject).exists():
                client.log_artifact(run_id, str(split_file(subject)), place or None)
            for mapping in self._chosen_mappings(subject):
                client.log_artifacts(run_id, str(mapping), f"{place}/mappings/{mapping.name}".lstrip("/"))

    def _chosen_mappings(self, subject: Path) -> list[Path]:
        chosen, steps = self._config.mlflow.mappings, list_snapshots(self._folder)
        if chosen == "none" or not steps:
            return []
        last = mapping_folder(subject, steps[-1])
        found = [last] if chosen == "last" else sorted(last.parent.glob("step-*"))
        return [folder for folder in found if folder.is_dir()]

    def _follow(self) -> None:
        while True:
            self.forward()
            self._watch_machine()
            if self._stop.wait(PERIOD):
                return

    def _watch_machine(self) -> None:
        """Start MLflow's thread for system metrics, once the run is open."""
        if self._monitor is not None or self._client is None or not self._config.mlflow.system_metrics:
            return
        # its troubles are no warnings of ours
        logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)
        self._monitor = False
        with suppress(Exception):
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(self._run_id, resume_logging=True, tracking_uri=self._uri)
            self._monitor.start()

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
        # requests time out between bytes only, so a server that sends one now and then would hold the run up
        patience = PATIENCE if kind is None else HASTE
        end = threading.Thread(target=self._end, args=(kind, error), name="mlflow end", daemon=True)
        end.start()
        end.join(patience)
        if end.is_alive():
            self._warn(f"not done after {patience:.0f} s")

    def _end(self, kind: type[BaseException] | None, error: BaseException | None) -> None:
        if self._thread is not None:
            self._thread.join()
        if self._monitor:
            with suppress(Exception):
                self._monitor.finish()
        if kind is None:
            self.forward("FINISHED")
            return
        message = {"error": f"{kind.__name__}: {error}"[:ERROR_LENGTH]}
        self.forward("FAILED" if issubclass(kind, Exception) else "KILLED", tags=message)


def _is_shown(name: str) -> bool:
    try:
        return is_headline(name)
    except InputError:
        # of an earlier version; it is in the table of all rows
        return False
