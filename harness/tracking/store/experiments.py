"""Experiments of MLflow, one per study, and the run that holds what belongs to the whole study."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from harness.tracking.store.connection import (
    artifact_location,
    database_file,
    hold_store,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
else:
    MlflowClient = Any

STUDY_TAG = "palimpsest.study"
# opens on runs and their charts instead of asking what the experiment is for
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


def find_or_create_experiment(client: MlflowClient, study: str) -> str:
    """Return the ID of a study's experiment; a deleted one is restored."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(study)
    if found is None:
        database = database_file(client.tracking_uri)
        place = None if database is None else artifact_location(database, study)
        try:
            return str(client.create_experiment(study, place, EXPERIMENT_TAGS))
        except MlflowException:
            # another run of the study may have created it
            found = client.get_experiment_by_name(study)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def find_or_create_study_run(client: MlflowClient, experiment: str, study: str) -> str:
    """Return the ID of the run that holds a study's tables and report."""
    database = database_file(client.tracking_uri)
    with nullcontext() if database is None else hold_store(database):
        # a server may get two from runs that start together: all take the older one
        found = client.search_runs(
            [experiment], f"tags.`{STUDY_TAG}` = '{study}'", max_results=1, order_by=["start_time ASC"]
        )
        if found:
            return str(found[0].info.run_id)
        now = time.time_ns() // 1_000_000
        created = client.create_run(
            experiment, now, {STUDY_TAG: study, "study": study}, run_name=f"study {study}"
        )
        # it holds files and does no work of its own
        client.set_terminated(created.info.run_id)
        return str(created.info.run_id)
